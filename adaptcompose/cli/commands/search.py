"""`adaptcompose search`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Form, Hub, app
from adaptcompose.cli.terminal import aligned
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from adaptcompose.catalogue.search import Hit, Query
    from adaptcompose.hub.store import Found

_MOST_SHOWN = 20


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(help="words that all occur")] = None,
    backbone: Annotated[str | None, typer.Option(help="for this backbone only")] = None,
    language: Annotated[str | None, typer.Option(help="its code: en, sw")] = None,
    task: Annotated[str | None, typer.Option(help="such as token-classification")] = None,
    method: Annotated[str | None, typer.Option(help="such as pfeiffer; cards only")] = None,
    cards: Annotated[bool, typer.Option("--cards", help="ask no hub")] = False,
    hub: Hub = None,
    form: Form = "text",
) -> None:
    """Find adapters and compositions: in the cards first, then on the hub."""
    from adaptcompose.catalogue.cards import Catalogue
    from adaptcompose.catalogue.search import Query, search_cards
    from adaptcompose.resources import resource

    query = Query(tuple(words or ()), backbone, language, task, method)
    catalogue = Catalogue.open(resource("hub_cards"), Path("hub_cards"))
    hits = search_cards(catalogue, query)
    found = [] if cards or method else _on_hub(query, hub or "hf")
    if form == "json":
        shown = [hit.as_plain() for hit in hits], [vars(one) for one in found]
        print(json.dumps(dict(zip(("cards", "hub"), shown, strict=True)), indent=2))
        return
    _print_cards(hits, query)
    _print_found(found, hub or "hf")
    if not hits and not found:
        print("nothing fits", file=sys.stderr)


def _on_hub(query: Query, hub: str) -> list[Found]:
    """What a hub has; where it cannot be asked that is said, and the cards still count."""
    from adaptcompose.hub.opening import open_store

    try:
        found = open_store(hub, Path()).search(query.words, language=query.language)
    except Failed as failed:
        for one in failed.diagnostics:
            print(f"{hub} was not searched: {one.message}", file=sys.stderr)
        return []
    return [one for one in found if query.takes(one)]


def _print_cards(hits: Sequence[Hit], query: Query) -> None:
    """One adapter a line on a backbone, else one card a line with its backbones."""
    if query.backbone:
        found = [(hit, variant) for hit in hits for variant in hit.variants]
        rows = [(h.written(v), h.card.title, v.method or "", v.repo) for h, v in found]
    else:
        rows = [(hit.name, hit.card.title, ", ".join(hit.backbones), "") for hit in hits]
    for line in aligned(rows):
        print(line)


def _print_found(found: Sequence[Found], hub: str) -> None:
    if not found:
        return
    print(f"\non {hub}:")
    rows = [
        (one.repo, ", ".join(one.languages), one.task or "", ", ".join(one.backbones))
        for one in found[:_MOST_SHOWN]
    ]
    for line in aligned(rows):
        print(line)
    if len(found) > _MOST_SHOWN:
        print(f"… and {len(found) - _MOST_SHOWN} more; --format json shows all")
