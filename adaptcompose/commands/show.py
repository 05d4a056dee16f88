"""`adaptcompose show`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.commands.app import Base, Form, Hub, app, hint
from adaptcompose.language.codes import AC406
from adaptcompose.language.diagnostics import Failed, Source

if TYPE_CHECKING:
    from adaptcompose.hub.cards import Card
    from adaptcompose.hub.contents import Content
    from adaptcompose.hub.refs import Ref
    from adaptcompose.hub.shelves import Shelf
    from adaptcompose.language.check import Context

_LABELS_SHOWN = 12
_GROUPS_SHOWN = 12


@app.command()
def show(
    reference: Annotated[str, typer.Argument(help="a folder, a repository, a catalogue name")],
    backbone: Base = None,
    hub: Hub = None,
    form: Form = "text",
) -> None:
    """Describe what a folder or a repository holds: method, sites, sizes, base, head, oddities."""
    from adaptcompose.hub.cards import Card
    from adaptcompose.hub.contents import contents
    from adaptcompose.language.public import context

    found = context(backbone, Path(), hub or "hf")
    shelf = _shelf(reference, found, hub or "hf")
    if isinstance(shelf, Card):
        _print_card(shelf, form)
        return
    objects = contents(shelf, found.backbone)
    if not objects:
        what, help = "nothing that adaptcompose knows", "show one of the folders below it"
        raise Failed(AC406.at(name=reference, what=what, help=help))
    if form == "json":
        plain = {"reference": reference, "contents": [one.as_plain() for one in objects]}
        print(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    print("\n\n".join("\n".join(_lines(reference, one)) for one in objects))
    runnable = next((one for one in objects if one.calls and not one.why), None)
    if runnable is not None and runnable.kind in ("setup", "composition"):
        hint("check", runnable.calls)


def _shelf(text: str, found: Context, hub: str) -> Shelf | Card:
    """The files behind a reference, or the card of a name that has several adapters."""
    from adaptcompose.hub.refs import local_ref
    from adaptcompose.hub.resolve import Sources
    from adaptcompose.hub.shelves import open_shelf
    from adaptcompose.language.names import Names

    sources = Sources(hub, Path())
    if Path(text).is_dir():
        return open_shelf(
            local_ref(text if text.startswith((".", "/", "~")) else f"./{text}"), sources
        )
    span = Source(text, "<reference>").span(0, len(text))
    names = Names(found.catalogue, found.backbone)
    leaf = names.adapter(names.parse(text, span), span)
    ref: Ref | None = leaf.ref
    assert ref is not None
    if ref.kind == "catalogue" and leaf.variant is None:
        assert ref.space is not None and ref.name is not None
        card = found.catalogue.card(ref.space, ref.name, span)
        if len(card.variants) > 1:
            return card
        return open_shelf(ref, sources, card.variants[0])
    return open_shelf(ref, sources, leaf.variant)


def _print_card(card: Card, form: str) -> None:
    if form == "json":
        variants = [{"backbone": v.backbone, "key": v.key, **v.as_plain()} for v in card.variants]
        print(json.dumps({"name": f"{card.space}/{card.name}", "variants": variants}, indent=2))
        return
    print(f"{card.space}/{card.name}: {card.title}, on")
    for variant in card.variants:
        print(f"  {variant.backbone:32} {variant.key:12} {variant.method or '':12} {variant.repo}")
    hint("show", f"{card.space}/{card.name}", "--backbone", card.variants[0].backbone)


def _lines(reference: str, one: Content) -> Iterator[str]:
    """A headline, then one line for each thing that is known."""
    place = f"{reference.rstrip('/')}/{one.place}" if one.place else reference
    yield f"{one.kind} {place}"
    for label, text in _rows(one):
        yield from wrap(text, 100, initial_indent=f"  {label:11} ", subsequent_indent=" " * 16)


def _rows(one: Content) -> Iterator[tuple[str, str]]:
    """Label and text; what a label has several of stands below it."""
    from adaptcompose.compiler.plan_text import size

    groups = [str(group) for group in one.groups]
    if len(groups) > _GROUPS_SHOWN:
        groups[_GROUPS_SHOWN:] = [f"and {len(groups) - _GROUPS_SHOWN} more"]
    files = (f"{name} ({size(number)})" for name, number in one.files.items())
    told = {
        "name": [one.name],
        "method": [one.method],
        "written": [one.calls],
        "sites": groups,
        "parameters": ["" if one.parameters is None else f"{one.parameters:,}"],
        "base": [_base(one)],
        "labels": [_labels(one)],
        "version": [one.written],
        "files": [", ".join(files)],
        "unusual": list(one.unusual),
        "cannot run": [one.why],
    }
    for label, texts in told.items():
        for number, text in enumerate(filter(None, texts)):
            yield ("" if number else label), text


def _base(one: Content) -> str:
    kind = f"a {one.type} of width {one.width}" if one.type and one.width else one.type
    return f"{one.base} ({kind})" if one.base and kind else one.base or kind


def _labels(one: Content) -> str:
    if not one.labels:
        return ""
    more = len(one.labels) - _LABELS_SHOWN
    shown = ", ".join(one.labels[:_LABELS_SHOWN])
    return f"{len(one.labels)}: {shown}{f' and {more} more' if more > 0 else ''}"
