"""Dropout wherever the language has one: what is drawn by chance in training, and never in eval."""

from __future__ import annotations

from dataclasses import fields

from adaptcompose.methods import registered_methods

NAMES = ("dropout", "stochastic_depth")
"""Arguments of methods that leave something out by chance, in training."""
SHARES = {"dropout": 0.4, "stochastic_depth": 0.3}


def dropouts_of(word: str) -> tuple[str, ...]:
    """The arguments of a method's word that leave something out by chance."""
    known = {entry.name for entry in fields(registered_methods()[word])}
    return tuple(name for name in NAMES if name in known)


def with_dropout(text: str) -> str:
    """A method's call with all of its dropouts above 0, whatever it says of them.

    >>> with_dropout("lora(rank=2)"), with_dropout("ia3()")
    ('lora(rank=2, dropout=0.4)', 'ia3()')
    """
    word, _, given = text.removesuffix(")").partition("(")
    names = dropouts_of(word)
    own = [one for one in given.split(", ") if one and one.partition("=")[0] not in names]
    return f"{word}({', '.join([*own, *(f'{name}={SHARES[name]}' for name in names)])})"
