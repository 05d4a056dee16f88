"""`ac.parse` and `ac.check`: the language without a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptcompose.hub.backbone import find_backbone, named
from adaptcompose.hub.cards import Catalogue
from adaptcompose.hub.resolve import Sources
from adaptcompose.language import syntax
from adaptcompose.language.check import Context
from adaptcompose.language.check import check as check_source
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source
from adaptcompose.resources import resource


@dataclass(frozen=True)
class Composition:
    """A parsed expression; printing it is the inverse of parsing."""

    tree: syntax.Tree

    def __str__(self) -> str:
        return str(self.tree)


def parse(text: str) -> Composition:
    """The composition that a text says, names not looked up; Failed if it is not of the language.

    >>> parse("stack(a, b)|swap(x = c)") == parse("stack(a, b) | swap(x=c)")
    True
    """
    return Composition(syntax.parse_tree(text))


def check(
    text: str, backbone: str | None = None, root: str | Path = ".", hub: str = "hf"
) -> list[Diagnostic]:
    """Everything that is wrong with an expression, sorted by place; empty if nothing is.

    With a `backbone` (a folder, or a repository whose config.json is to be had) variants and
    layers are checked too.
    """
    return list(check_source(Source(text), context(backbone, Path(root), hub)).diagnostics)


def context(backbone: str | None, root: Path, hub: str = "hf") -> Context:
    """The catalogue of the package and of `root`, and the facts of a backbone if one is named."""
    cards = Catalogue.open(resource("hub_cards"), root / "hub_cards")
    sources = Sources(hub, root)
    facts = find_backbone(named(backbone, root), sources).facts if backbone else None
    return Context(cards, facts, composed=sources.composed)


__all__ = ["Composition", "Failed", "check", "context", "parse"]
