"""`adaptcompose show`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import (
    BackboneOption,
    FormatOption,
    HubOption,
    KnownAsOption,
    OverridesOption,
    app,
    is_spec_target,
)
from adaptcompose.cli.inputs import print_next_command
from adaptcompose.cli.terminal import align_columns
from adaptcompose.diagnostics.codes import AC109, AC406
from adaptcompose.diagnostics.diagnostic import Failed, Source

if TYPE_CHECKING:
    from adaptcompose.catalogue.cards import Card, Variant
    from adaptcompose.composition.checker import CheckContext
    from adaptcompose.hub.lock import Pin
    from adaptcompose.resolution.file_listing import FileListing
    from adaptcompose.resolution.inspection import Content
    from adaptcompose.syntax.references import Ref

_LABELS_SHOWN = 12
_GROUPS_SHOWN = 12

Details = Mapping[str, Sequence[str]]
"""Facts about an adapter that its files do not contain: lines of text by label."""


@app.command()
def show(
    reference: Annotated[
        str, typer.Argument(help="A folder, a repository, a catalogue entry or a spec.")
    ],
    backbone: BackboneOption = None,
    known_as: KnownAsOption = None,
    hub: HubOption = None,
    form: FormatOption = "text",
    full: Annotated[bool, typer.Option("--full", help="For a spec: include defaults.")] = False,
    overrides: OverridesOption = None,
) -> None:
    """Describe the contents of a folder or repository: method, sites, sizes, base and head.

    For a spec, print every key with its value, with `each` filled in.
    """
    if is_spec_target(reference, backbone, hub, overrides, known_as):
        _print_spec(reference, overrides or (), form, full=full)
        return
    if full:
        raise typer.BadParameter("use it with a spec only", param_hint="--full")
    from adaptcompose.catalogue.cards import Card
    from adaptcompose.resolution.expression_check import context

    base = context(backbone, Path(), hub or "hf", known_as)
    source, details = _find_listing(reference, base, hub or "hf")
    if isinstance(source, Card):
        _print_card(source, form, details)
    else:
        _print_listing(source, reference, base, form, details)


def _print_listing(
    listing: FileListing, reference: str, base: CheckContext, form: str, details: Details
) -> None:
    from adaptcompose.resolution.inspection import inspect_files

    contents = inspect_files(listing, base.backbone)
    if not contents:
        wanted, help = "anything that adaptcompose knows", "show one of the folders in it"
        raise Failed(AC406.at(name=reference, what="other files", wanted=wanted, help=help))
    if form == "json":
        plain = {
            "reference": reference,
            "contents": [each.as_plain() for each in contents],
            **details,
        }
        print(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    print("\n\n".join("\n".join(_format_content(reference, each)) for each in contents))
    for line in _format_details(details):
        print(line)
    runnable = next((each for each in contents if each.calls and not each.why), None)
    if runnable is not None and runnable.kind in ("setup", "composition"):
        print_next_command("check", runnable.calls)


def _print_spec(target: str, overrides: Sequence[str], form: str, *, full: bool) -> None:
    """Print the spec as it was read, in a form that reads as the same spec; a sweep prints all."""
    from adaptcompose.experiment.spec.spec import read_specs
    from adaptcompose.storage.yaml_source import dump_yaml

    plain = [spec.as_plain(full=full) for spec in read_specs(Path(target), overrides)]
    if form == "json":
        document = plain if len(plain) > 1 else plain[0]
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("---\n".join(map(dump_yaml, plain)), end="")


def _find_listing(text: str, base: CheckContext, hub: str) -> tuple[FileListing | Card, Details]:
    """The files that a reference names, or the card of a catalogue entry with several variants."""
    from adaptcompose.composition.names import NameLookup
    from adaptcompose.resolution.file_listing import open_listing
    from adaptcompose.resolution.sources import Sources
    from adaptcompose.syntax.references import local_ref

    sources, span = Sources(hub, Path()), Source(text, "<reference>").span(0, len(text))
    if Path(text).is_dir():
        path = text if text.startswith((".", "/", "~")) else f"./{text}"
        return open_listing(local_ref(path), sources), {}
    if Path(text).is_file():
        help = "name a folder, a repository, a catalogue entry or a spec"
        raise Failed(AC109.at(span, name=text, why="it is a file", help=help))
    names = NameLookup(base.catalogue, base.backbone)
    ref = names.parse(text, span)
    if ref.kind == "bare":
        raise names.unknown_name(text, span, None)
    variant = names.look_up(ref, span).variant
    if ref.kind == "catalogue" and variant is None:
        card = base.catalogue.card(str(ref.space), str(ref.name), span)
        if len(card.variants) > 1:
            return card, _adapter_details(ref, None, None)
        variant = card.variants[0]
    listing = open_listing(ref, sources, variant)
    pin = None if ref.kind == "local" else sources.pin(ref, variant)
    return listing, _adapter_details(ref, variant, pin)


def _adapter_details(ref: Ref, variant: Variant | None, pin: Pin | None) -> Details:
    """Licence and revision of an adapter, and the locks in this folder that pin it."""
    from adaptcompose.compiler.plan import format_bytes

    details = {
        "licence": [(variant.licence if variant else None) or ""],
        "pinned": [f"{pin.repo}@{pin.revision}"] if pin else [],
        "used": [
            f"{path}: {used}, {format_bytes(used.size)}"
            for path, used in _find_locks_using(str(ref))
        ],
    }
    return {label: texts for label, texts in details.items() if any(texts)}


def _find_locks_using(name: str) -> Iterator[tuple[Path, Pin]]:
    """The locks in the working directory and its folders that pin any variant of an adapter."""
    from adaptcompose.hub.lock import Lock

    for path in sorted([*Path().glob("*.lock"), *Path().glob("*/*.lock")]):
        with suppress(Failed):  # .lock files of other tools
            lock = Lock.load(path)
            pins = lock.adapters if lock else {}
            yield from ((path, pin) for key, pin in pins.items() if _is_variant_of(key, name))


def _is_variant_of(key: str, name: str) -> bool:
    return key == name or key.partition("@")[0] == name


def _print_card(card: Card, form: str, details: Details) -> None:
    name = f"{card.space}/{card.name}"
    if form == "json":
        variants = [{"backbone": v.backbone, "key": v.key, **v.as_plain()} for v in card.variants]
        print(json.dumps({"name": name, "variants": variants, **details}, indent=2))
        return
    print(f"{name}: {card.title}, on")
    rows = [
        (v.backbone, v.key, v.method or "", v.licence or "", _variant_path(v))
        for v in card.variants
    ]
    for line in align_columns(rows):
        print(f"  {line}")
    for line in _format_details(details):
        print(line)
    print_next_command("show", name, "--backbone", card.variants[0].backbone)


def _variant_path(variant: Variant) -> str:
    revision = f"@{variant.revision}" if variant.revision else ""
    return f"{variant.repo}{revision}{f'/{variant.subfolder}' if variant.subfolder else ''}"


def _format_content(reference: str, content: Content) -> Iterator[str]:
    """A headline, then one line per known fact."""
    path = f"{reference.rstrip('/')}/{content.place}" if content.place else reference
    yield f"{content.kind} {path}"
    yield from _format_details(_content_details(content))


def _format_details(details: Details) -> Iterator[str]:
    """Lines of label and text; further texts of a label follow without it."""
    for label, texts in details.items():
        for number, text in enumerate(filter(None, texts)):
            first = f"  {'' if number else label:11} "
            yield from wrap(text, 100, initial_indent=first, subsequent_indent=" " * 16)


def _content_details(content: Content) -> Details:
    from adaptcompose.compiler.plan import format_bytes

    groups = [str(group) for group in content.groups]
    if len(groups) > _GROUPS_SHOWN:
        groups[_GROUPS_SHOWN:] = [f"and {len(groups) - _GROUPS_SHOWN} more"]
    files = (f"{name} ({format_bytes(number)})" for name, number in content.files.items())
    return {
        "name": [content.name],
        "method": [content.method],
        "written": [content.calls],
        "sites": groups,
        "parameters": ["" if content.parameters is None else f"{content.parameters:,}"],
        "base": [_base(content)],
        "labels": [_labels(content)],
        "version": [content.written],
        "files": [", ".join(files)],
        "unusual": list(content.unusual),
        "cannot run": [content.why],
    }


def _base(content: Content) -> str:
    kind = (
        f"{content.type}, width {content.width}" if content.type and content.width else content.type
    )
    return f"{content.base} ({kind})" if content.base and kind else content.base or kind


def _labels(content: Content) -> str:
    if not content.labels:
        return ""
    more = len(content.labels) - _LABELS_SHOWN
    shown = ", ".join(content.labels[:_LABELS_SHOWN])
    return f"{len(content.labels)}: {shown}{f' and {more} more' if more > 0 else ''}"
