"""Checking an expression against text, catalogue, backbone, and the folders behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.check import Checked, Context
from adaptcompose.composition.check import check as check_source
from adaptcompose.composition.operators.prune import beyond_text
from adaptcompose.composition.size_limits import told
from adaptcompose.composition.structure import verify
from adaptcompose.diagnostics.diagnostic import Diagnostic, Source
from adaptcompose.resolution.backbone import find_backbone, named
from adaptcompose.resolution.resolve import look_up
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource


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
