"""`adaptcompose search`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import FormatOption, HubOption, app
from adaptcompose.cli.terminal import align_columns
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from adaptcompose.catalogue.search import CardHit, SearchQuery
    from adaptcompose.hub.store import RepositoryHit

_SHOWN_LIMIT = 20


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(help="Words that must all occur.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only for this backbone.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Only for this language code, such as en or sw.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Only for this task, such as token-classification.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Only with this method, such as pfeiffer; searches cards only."),
    ] = None,
    cards: Annotated[
        bool, typer.Option("--cards", help="Search the cards only, not the hub.")
    ] = False,
    hub: HubOption = None,
    form: FormatOption = "text",
) -> None:
    """Search for adapters and compositions, in the cards and on the hub."""
    from adaptcompose.catalogue.cards import Catalogue
    from adaptcompose.catalogue.search import SearchQuery, search_cards
    from adaptcompose.resources import resource_folder

    query = SearchQuery(tuple(words or ()), backbone, language, task, method)
    catalogue = Catalogue.open(resource_folder("hub_cards"), Path("hub_cards"))
    hits = search_cards(catalogue, query)
    found = [] if cards or method else _search_hub(query, hub or "hf")
    if form == "json":
        shown = [hit.as_plain() for hit in hits], [vars(one) for one in found]
        print(json.dumps(dict(zip(("cards", "hub"), shown, strict=True)), indent=2))
        return
    _print_cards(hits, query)
    _print_hub_hits(found, hub or "hf")
    if not hits and not found:
        print("no results", file=sys.stderr)


def _search_hub(query: SearchQuery, hub: str) -> list[RepositoryHit]:
    """What a hub has; where it cannot be asked that is said, and the cards still count."""
    from adaptcompose.hub.opening import open_store

    try:
        found = open_store(hub, Path()).search(query.words, language=query.language)
    except Failed as failed:
        for one in failed.diagnostics:
            print(f"{hub} was not searched: {one.message}", file=sys.stderr)
        return []
    return [one for one in found if query.matches_hit(one)]


def _print_cards(hits: Sequence[CardHit], query: SearchQuery) -> None:
    """One adapter a line on a backbone, else one card a line with its backbones."""
    if query.backbone:
        found = [(hit, variant) for hit in hits for variant in hit.variants]
        rows = [(h.reference_to(v), h.card.title, v.method or "", v.repo) for h, v in found]
    else:
        rows = [(hit.name, hit.card.title, ", ".join(hit.backbones), "") for hit in hits]
    for line in align_columns(rows):
        print(line)


def _print_hub_hits(found: Sequence[RepositoryHit], hub: str) -> None:
    if not found:
        return
    print(f"\non {hub}:")
    rows = [
        (one.repo, ", ".join(one.languages), one.task or "", ", ".join(one.backbones))
        for one in found[:_SHOWN_LIMIT]
    ]
    for line in align_columns(rows):
        print(line)
    if len(found) > _SHOWN_LIMIT:
        print(f"… and {len(found) - _SHOWN_LIMIT} more; --format json shows all")
