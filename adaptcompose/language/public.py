"""`ac.parse` and `ac.check`: the language without a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.check import Checked, Context
from adaptcompose.composition.check import check as check_source
from adaptcompose.composition.operators.prune import beyond_text
from adaptcompose.composition.size_limits import told
from adaptcompose.composition.structure import verify
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source
from adaptcompose.resolution.backbone import find_backbone, named
from adaptcompose.resolution.resolve import Sources, look_up
from adaptcompose.resources import resource
from adaptcompose.syntax import parser as syntax


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
    text: str,
    backbone: str | None = None,
    root: str | Path | None = None,
    hub: str | None = None,
) -> list[Diagnostic]:
    """Everything that is wrong with an expression, sorted by place; empty if nothing is.

    With a `backbone` (a folder, or a repository whose config.json is to be had) variants and
    layers are checked too. With a `root`, where `./` starts, or a `hub` the folders behind
    references are looked at, those of a hub that is a folder among them; no other hub is asked.
    """
    base = context(backbone, Path(root or "."), hub or "hf")
    checked = check_alone(Source(text), base)
    if root is None and hub is None:
        return list(checked.diagnostics)
    return check_files(checked, base, Path(root or "."), hub or "hf")


def check_alone(source: Source, context: Context) -> Checked:
    """An expression that is in no spec, and has no data therefore."""
    checked = check_source(source, context)
    if checked.read is None or not (found := list(beyond_text(checked.read))):
        return checked
    return replace(checked, graph=None, diagnostics=told([*checked.diagnostics, *found]))


def check_files(checked: Checked, context: Context, root: Path, hub: str) -> list[Diagnostic]:
    """What there is to say of an expression once folders are looked at, and a hub that is one."""
    found = list(checked.diagnostics)
    if checked.read is not None:
        read = look_up(checked.read, context.backbone, Sources(hub, root, ask=False))
        found += [*read.notes, *verify(read.graph, context.backbone)]
    return list(told(dict.fromkeys(found)))


def context(
    backbone: str | None, root: Path, hub: str = "hf", known_as: str | None = None
) -> Context:
    """The catalogue of the package and of `root`, and the facts of a backbone if one is named.

    What the Hub calls it has to be said of a folder, if it is `known_as` something.
    """
    cards = Catalogue.open(resource("hub_cards"), root / "hub_cards")
    sources = Sources(hub, root)
    facts = None
    if backbone is not None:
        facts = find_backbone(named(backbone, root), sources, known_as=known_as).facts
    return Context(cards, facts, composed=sources.composed)


__all__ = ["Composition", "Failed", "check", "context", "parse"]
