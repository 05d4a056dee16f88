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
    hub_hits = [] if cards or method else _search_hub(query, hub or "hf")
    if form == "json":
        records = {
            "cards": [hit.as_plain() for hit in hits],
            "hub": [vars(hit) for hit in hub_hits],
        }
        print(json.dumps(records, indent=2))
        return
    _print_cards(hits, query)
    _print_hub_hits(hub_hits, hub or "hf")
    if not hits and not hub_hits:
        print("no results", file=sys.stderr)


def _search_hub(query: SearchQuery, hub: str) -> list[RepositoryHit]:
    """The matching repositories of a hub; if it cannot be searched, print why and return none."""
    from adaptcompose.hub.opening import open_store

    try:
        hits = open_store(hub, Path()).search(query.words, language=query.language)
    except Failed as failed:
        for diagnostic in failed.diagnostics:
            print(f"{hub} was not searched: {diagnostic.message}", file=sys.stderr)
        return []
    return [hit for hit in hits if query.matches_hit(hit)]


def _print_cards(hits: Sequence[CardHit], query: SearchQuery) -> None:
    """Print one line per adapter if a backbone is given, else one per card with its backbones."""
    if query.backbone:
        rows = [
            (hit.reference_to(variant), hit.card.title, variant.method or "", variant.repo)
            for hit in hits
            for variant in hit.variants
        ]
    else:
        rows = [(hit.name, hit.card.title, ", ".join(hit.backbones), "") for hit in hits]
    for line in align_columns(rows):
        print(line)


def _print_hub_hits(hits: Sequence[RepositoryHit], hub: str) -> None:
    if not hits:
        return
    print(f"\non {hub}:")
    rows = [
        (hit.repo, ", ".join(hit.languages), hit.task or "", ", ".join(hit.backbones))
        for hit in hits[:_SHOWN_LIMIT]
    ]
    for line in align_columns(rows):
        print(line)
    if len(hits) > _SHOWN_LIMIT:
        print(f"… and {len(hits) - _SHOWN_LIMIT} more; --format json shows all")
