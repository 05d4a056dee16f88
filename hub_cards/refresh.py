"""Bring the cards up to date with the Hub: licences, tasks, data sets, and what has come or gone.

    python hub_cards/refresh.py [--pin] [--dry-run] [SPACE ...]

Asks wherever HF_ENDPOINT points, two requests a second at most. What a card says already stays,
unless the Hub has nothing of that name any more: that is only told. `--pin` gives adapters without
a revision the newest commit. The text of a card and its names are never changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.catalogue.cards import Card, Catalogue, Variant
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.huggingface import HuggingFaceStore
from adaptcompose.hub.store import RepositoryHit
from adaptcompose.storage.atomic import write_atomically

AUTHOR = "AdapterHub"
_NOT_THERE = {"AC401", "AC404"}

Describe = Callable[[str], tuple[RepositoryHit, str] | None]
"""What the Hub says of a repository, and its newest commit; None if there is none."""


@dataclass(frozen=True)
class Refreshed:
    """A card as it would be, and the repositories that the Hub does not have."""

    card: Card
    gone: tuple[str, ...]


def refreshed(card: Card, describe: Describe, *, pin: bool = False) -> Refreshed:
    """The card with what the Hub knows besides."""
    told = {one.repo: describe(one.repo) for one in card.variants}
    known = [found for answer in told.values() if answer is not None for found in answer[:1]]
    variants = tuple(_variant(one, told[one.repo], pin=pin) for one in card.variants)
    kinds = {found.task for found in known if found.task}
    task = card.task or (kinds.pop() if len(kinds) == 1 else None)
    datasets = {*card.datasets, *(dataset for found in known for dataset in found.datasets)}
    new = replace(card, variants=variants, task=task, datasets=tuple(sorted(datasets)))
    return Refreshed(new, tuple(sorted(repo for repo, answer in told.items() if answer is None)))


def _variant(one: Variant, answer: tuple[RepositoryHit, str] | None, *, pin: bool) -> Variant:
    if answer is None:
        return one
    found, newest = answer
    revision = one.revision or (newest if pin else None)
    return replace(one, licence=one.licence or found.licence, revision=revision)


def ask(store: HuggingFaceStore, pause: float) -> Describe:
    """One repository after the other, with a pause: a public hub is not to be flooded."""

    def describe(repo: str) -> tuple[RepositoryHit, str] | None:
        time.sleep(pause)
        try:
            return store.describe(repo)
        except Failed as failed:
            if {one.code for one in failed.diagnostics} <= _NOT_THERE:
                return None
            raise

    return describe


def cards_of(catalogue: Catalogue, spaces: list[str]) -> Iterator[Card]:
    for space in spaces or catalogue.spaces():
        for name in catalogue.names(space):
            yield catalogue.card(space, name)


def main(arguments: list[str], *, root: Path = Path(__file__).parent, pause: float = 0.5) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("spaces", nargs="*", metavar="SPACE")
    parser.add_argument("--pin", action="store_true", help="pin what has no revision")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    store, catalogue = HuggingFaceStore(), Catalogue.open(root)
    describe = ask(store, pause)
    changed = 0
    for card in list(cards_of(catalogue, given.spaces)):
        found = refreshed(card, describe, pin=given.pin)
        for repo in found.gone:
            print(f"{card.space}/{card.name}: the Hub has no {repo}")
        if found.card != card:
            changed += 1
            print(f"{card.space}/{card.name}: changed")
            if not given.dry_run:
                write_atomically(root / card.space / f"{card.name}.md", str(found.card))
    known = {one.repo for card in cards_of(catalogue, []) for one in card.variants}
    for repo in sorted({*store.list_repositories(f"{AUTHOR}/*")} - known):
        print(f"not in the catalogue: {repo}")
    print(f"{changed} cards changed{' (nothing was written)' if given.dry_run else ''}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failed:
        sys.exit(str(failed))
