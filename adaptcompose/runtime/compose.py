"""From an expression to a running model: parse, check, resolve, build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel

from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.heads import HeadChoice
from adaptcompose.composition.operators.prune import spec_only_problems
from adaptcompose.composition.structure import structural_problems
from adaptcompose.diagnostics.diagnostic import Failed, Source, select_errors
from adaptcompose.resolution.backbone import as_folder_or_name, find_backbone
from adaptcompose.resolution.resolve import resolve
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.build import build, facts_of_model, load_backbone
from adaptcompose.runtime.model import ComposedModel


def compose(
    expr: str | Source,
    backbone: str | Path | PreTrainedModel,
    *,
    root: str | Path = ".",
    head: HeadChoice = "auto",
    optimise: bool = True,
    hub: str | None = None,
) -> ComposedModel:
    """Build the model of an expression; `api.compose` documents the arguments."""
    sources = Sources(hub or "hf", Path(root))
    source = Source(expr) if isinstance(expr, str) else expr
    model, base = None, None
    if isinstance(backbone, PreTrainedModel):
        model = backbone
    else:
        base = find_backbone(as_folder_or_name(str(backbone), sources.root), sources)
    facts = base.facts if base is not None else facts_of_model(model)
    cards = Catalogue.open(resource_folder("hub_cards"), sources.root / "hub_cards")
    listing, composed = sources.list_repositories, sources.may_be_published
    checked = check_source(
        source, CheckContext(cards, facts, list_repositories=listing, may_be_published=composed)
    )
    graph = resolve(checked.raise_errors(), facts, sources).graph
    if problems := [*select_errors(structural_problems(graph, facts)), *spec_only_problems(graph)]:
        raise Failed(problems)
    if model is None:
        assert base is not None
        model = load_backbone(base.folder(), with_head=head == "backbone")
    made = build(graph, facts, model, sources, head=head, optimise=optimise)
    made.composition = replace(made.composition, backbone_pin=base.pin if base else None)
    return made
