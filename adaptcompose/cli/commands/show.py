"""`adaptcompose show`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Base, Form, Hub, KnownAs, Set, app, is_spec
from adaptcompose.cli.inputs import hint
from adaptcompose.cli.terminal import aligned
from adaptcompose.diagnostics.codes import AC109, AC406
from adaptcompose.diagnostics.diagnostic import Failed, Source

if TYPE_CHECKING:
    from adaptcompose.catalogue.cards import Card, Variant
    from adaptcompose.composition.check import Context
    from adaptcompose.hub.lock import Locked
    from adaptcompose.resolution.file_listing import Shelf
    from adaptcompose.resolution.inspect import Content
    from adaptcompose.syntax.references import Ref

_LABELS_SHOWN = 12
_GROUPS_SHOWN = 12

Told = Mapping[str, Sequence[str]]
"""What is known of an adapter beside its files: label and texts."""


@app.command()
def show(
    reference: Annotated[
        str, typer.Argument(help="a folder, a repository, a catalogue name, or a spec")
    ],
    backbone: Base = None,
    known_as: KnownAs = None,
    hub: Hub = None,
    form: Form = "text",
    full: Annotated[bool, typer.Option("--full", help="of a spec: its defaults, too")] = False,
    overrides: Set = None,
) -> None:
    """Describe what a folder or a repository holds: method, sites, sizes, base, head, oddities.

    Of a spec it is what was read: every key with its value, `each` filled in.
    """
    if is_spec(reference, backbone, hub, overrides, known_as):
        _print_spec(reference, overrides or (), form, full=full)
        return
    if full:
        raise typer.BadParameter("only a spec has defaults", param_hint="--full")
    from adaptcompose.catalogue.cards import Card
    from adaptcompose.resolution.expression_check import context

    found = context(backbone, Path(), hub or "hf", known_as)
    shelf, told = _shelf(reference, found, hub or "hf")
    if isinstance(shelf, Card):
        _print_card(shelf, form, told)
    else:
        _print_shelf(shelf, reference, found, form, told)


def _print_shelf(shelf: Shelf, reference: str, found: Context, form: str, told: Told) -> None:
    from adaptcompose.resolution.inspect import contents

    objects = contents(shelf, found.backbone)
    if not objects:
        what, help = "nothing that adaptcompose knows", "show one of the folders below it"
        raise Failed(AC406.at(name=reference, what=what, help=help))
    if form == "json":
        plain = {"reference": reference, "contents": [one.as_plain() for one in objects], **told}
        print(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    print("\n\n".join("\n".join(_lines(reference, one)) for one in objects))
    for line in _labelled(told):
        print(line)
    runnable = next((one for one in objects if one.calls and not one.why), None)
    if runnable is not None and runnable.kind in ("setup", "composition"):
        hint("check", runnable.calls)


def _print_spec(target: str, overrides: Sequence[str], form: str, *, full: bool) -> None:
    """The spec as it was read, which reads as the same spec; one for each run of a sweep."""
    from adaptcompose.experiment.spec.spec import read_specs
    from adaptcompose.storage.yaml_source import dump

    plain = [spec.plain(full=full) for spec in read_specs(Path(target), overrides)]
    if form == "json":
        document = plain if len(plain) > 1 else plain[0]
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("---\n".join(map(dump, plain)), end="")


def _shelf(text: str, found: Context, hub: str) -> tuple[Shelf | Card, Told]:
    """The files behind a reference, or the card of a name that has several adapters."""
    from adaptcompose.composition.names import Names
    from adaptcompose.resolution.file_listing import open_shelf
    from adaptcompose.resolution.sources import Sources
    from adaptcompose.syntax.references import local_ref

    sources, span = Sources(hub, Path()), Source(text, "<reference>").span(0, len(text))
    if Path(text).is_dir():
        path = text if text.startswith((".", "/", "~")) else f"./{text}"
        return open_shelf(local_ref(path), sources), {}
    if Path(text).is_file():
        help = "show a folder, a repository, a name of the catalogue or a spec"
        raise Failed(AC109.at(span, name=text, why="it is a file", help=help))
    names = Names(found.catalogue, found.backbone)
    ref = names.parse(text, span)
    if ref.kind == "bare":
        raise names.unknown(text, span, None)
    variant = names.adapter(ref, span).variant
    if ref.kind == "catalogue" and variant is None:
        card = found.catalogue.card(str(ref.space), str(ref.name), span)
        if len(card.variants) > 1:
            return card, _told(ref, None, None)
        variant = card.variants[0]
    shelf = open_shelf(ref, sources, variant)
    pin = None if ref.kind == "local" else sources.pin(ref, variant)
    return shelf, _told(ref, variant, pin)


def _told(ref: Ref, variant: Variant | None, pin: Locked | None) -> Told:
    """Licence and revision of an adapter, and the runs here that use it."""
    from adaptcompose.compiler.plan import size

    known = {"licence": [(variant.licence if variant else None) or ""]}
    known["pinned"] = [f"{pin.repo}@{pin.revision}"] if pin else []
    known["used"] = [f"{path}: {used}, {size(used.size)}" for path, used in _uses(str(ref))]
    return {label: texts for label, texts in known.items() if any(texts)}


def _uses(name: str) -> Iterator[tuple[Path, Locked]]:
    """The locks here and in the folders here that pin an adapter, any variant of it."""
    from adaptcompose.hub.lock import Lock

    for path in sorted([*Path().glob("*.lock"), *Path().glob("*/*.lock")]):
        with suppress(Failed):  # other tools have locks as well
            pins = found.adapters if (found := Lock.open(path)) else {}
            yield from ((path, pin) for key, pin in pins.items() if _same(key, name))


def _same(key: str, name: str) -> bool:
    return key == name or key.partition("@")[0] == name


def _print_card(card: Card, form: str, told: Told) -> None:
    name = f"{card.space}/{card.name}"
    if form == "json":
        variants = [{"backbone": v.backbone, "key": v.key, **v.as_plain()} for v in card.variants]
        print(json.dumps({"name": name, "variants": variants, **told}, indent=2))
        return
    print(f"{name}: {card.title}, on")
    rows = [(v.backbone, v.key, v.method or "", v.licence or "", _place(v)) for v in card.variants]
    for line in aligned(rows):
        print(f"  {line}")
    for line in _labelled(told):
        print(line)
    hint("show", name, "--backbone", card.variants[0].backbone)


def _place(variant: Variant) -> str:
    revision = f"@{variant.revision}" if variant.revision else ""
    return f"{variant.repo}{revision}{f'/{variant.subfolder}' if variant.subfolder else ''}"


def _lines(reference: str, one: Content) -> Iterator[str]:
    """A headline, then one line for each thing that is known."""
    place = f"{reference.rstrip('/')}/{one.place}" if one.place else reference
    yield f"{one.kind} {place}"
    yield from _labelled(_rows(one))


def _labelled(told: Told) -> Iterator[str]:
    """Label and text; what a label has several of stands below it."""
    for label, texts in told.items():
        for number, text in enumerate(filter(None, texts)):
            first = f"  {'' if number else label:11} "
            yield from wrap(text, 100, initial_indent=first, subsequent_indent=" " * 16)


def _rows(one: Content) -> Told:
    from adaptcompose.compiler.plan import size

    groups = [str(group) for group in one.groups]
    if len(groups) > _GROUPS_SHOWN:
        groups[_GROUPS_SHOWN:] = [f"and {len(groups) - _GROUPS_SHOWN} more"]
    files = (f"{name} ({size(number)})" for name, number in one.files.items())
    return {
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


def _base(one: Content) -> str:
    kind = f"a {one.type} of width {one.width}" if one.type and one.width else one.type
    return f"{one.base} ({kind})" if one.base and kind else one.base or kind


def _labels(one: Content) -> str:
    if not one.labels:
        return ""
    more = len(one.labels) - _LABELS_SHOWN
    shown = ", ".join(one.labels[:_LABELS_SHOWN])
    return f"{len(one.labels)}: {shown}{f' and {more} more' if more > 0 else ''}"
