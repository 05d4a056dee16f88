"""`check` of a spec: everything that text, cards and the backbone's config.json can tell."""

from __future__ import annotations

from collections.abc import Iterator

from adaptcompose.backbones.layout import Facts
from adaptcompose.hub.backbone import find_backbone
from adaptcompose.hub.cards import Catalogue
from adaptcompose.hub.resolve import Sources
from adaptcompose.language import codes, syntax
from adaptcompose.language.check import Checked, Context, check_tree
from adaptcompose.language.diagnostics import Diagnostic, Failed
from adaptcompose.language.graph import Block
from adaptcompose.resources import resource
from adaptcompose.work.prepare import new_parts, tree_of
from adaptcompose.work.sections import EvaluateSection, PredictSection, Spec


def check_spec(spec: Spec) -> list[Diagnostic]:
    """Every problem of the spec's expressions, sorted by place; no adapter is fetched.

    A local backbone's config.json is read; one of the Hugging Face Hub is not asked for, so that a
    check never waits for the network: then names count and layers do not.
    """
    found: list[Diagnostic] = []
    try:
        facts = _facts(spec)
    except Failed as failed:
        return list(failed.diagnostics)
    cards = Catalogue.open(resource("hub_cards"), spec.root / "hub_cards")
    context = Context(cards, facts, aliases=spec.adapters)
    main = _checked(spec, context, found)
    if main is not None and main.tree is not None:
        found += main.diagnostics
        if main.graph is not None:
            context = Context(cards, facts, aliases=spec.adapters, parts=new_parts(main.graph))
            found += _untrained(spec, main.graph)
        items: tuple[EvaluateSection | PredictSection, ...] = (*spec.evaluate, *spec.predict)
        for item in items:
            found += _check_item(item, main.tree, context)
    return sorted(dict.fromkeys(found), key=Diagnostic.position)


def _facts(spec: Spec) -> Facts | None:
    section = spec.backbone
    local = section.model.startswith((".", "/", "~"))
    if spec.hub == "hf" and not local:
        return None
    sources = Sources(spec.hub, spec.root)
    place = section.place("model") or spec.place("backbone")
    return find_backbone(section.model, sources, known_as=section.known_as, span=place).facts


def _checked(spec: Spec, context: Context, found: list[Diagnostic]) -> Checked | None:
    try:
        return check_tree(syntax.parse_tree(spec.compose), context)
    except Failed as failed:
        found += failed.diagnostics
        return None


def _untrained(spec: Spec, graph: Block) -> Iterator[Diagnostic]:
    if spec.train is None and (spec.evaluate or spec.predict or spec.publish):
        names = ", ".join(f"`{name}`" for name in new_parts(graph))
        if names:
            yield codes.AC501.at(spec.compose.span(), names=names)


def _check_item(
    item: EvaluateSection | PredictSection, tree: syntax.Tree, context: Context
) -> Iterator[Diagnostic]:
    if item.compose is None and item.pipe is None:
        return
    try:
        yield from check_tree(tree_of(item, tree), context).diagnostics
    except Failed as failed:
        yield from failed.diagnostics
