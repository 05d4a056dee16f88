"""Check an expression: its text, the catalogue, the backbone, and the folders it refers to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, CheckResult, check_source
from adaptcompose.composition.operators.prune import spec_only_problems
from adaptcompose.composition.size_limits import sort_and_cap
from adaptcompose.composition.structure import structural_problems
from adaptcompose.diagnostics.diagnostic import Diagnostic, Source
from adaptcompose.resolution.backbone import as_folder_or_name, find_backbone
from adaptcompose.resolution.resolve import resolve_where_known
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource_folder


def check_expression(source: Source, context: CheckContext) -> CheckResult:
    """Check an expression outside a spec, where it cannot refer to data."""
    checked = check_source(source, context)
    if checked.partial_graph is None or not (
        found := list(spec_only_problems(checked.partial_graph))
    ):
        return checked
    return replace(checked, graph=None, diagnostics=sort_and_cap([*checked.diagnostics, *found]))


def check_files(
    checked: CheckResult, context: CheckContext, root: Path, hub: str
) -> list[Diagnostic]:
    """All diagnostics of an expression, including those about folders and hubs on this machine."""
    found = list(checked.diagnostics)
    if checked.partial_graph is not None:
        read = resolve_where_known(
            checked.partial_graph, context.backbone, Sources(hub, root, may_query=False)
        )
        found += [*read.diagnostics, *structural_problems(read.graph, context.backbone)]
    return list(sort_and_cap(dict.fromkeys(found)))


def context(
    backbone: str | None, root: Path, hub: str = "hf", known_as: str | None = None
) -> CheckContext:
    """The catalogue of the package and of `root`, and the facts of the backbone.

    If the backbone is a folder, `known_as` is its repository on the Hub, for which adapters exist.
    """
    cards = Catalogue.open(resource_folder("hub_cards"), root / "hub_cards")
    sources = Sources(hub, root)
    facts = None
    if backbone is not None:
        facts = find_backbone(as_folder_or_name(backbone, root), sources, known_as=known_as).facts
    return CheckContext(cards, facts, may_be_published=sources.may_be_published)
