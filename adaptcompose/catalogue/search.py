"""Search the catalogue; the same query filters the results of a hub.

>>> from adaptcompose.resources import resource_folder
>>> cards = Catalogue.open(resource_folder("hub_cards"))
>>> query = SearchQuery(("swahili",), backbone="xlm-roberta-base")
>>> [hit.name for hit in search_cards(cards, query)]
['lang/sw']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adaptcompose.catalogue.cards import DEFAULT_VARIANT, Card, Catalogue, Variant
from adaptcompose.hub.store import RepositoryHit
from adaptcompose.syntax.references import canonical_id


@dataclass(frozen=True)
class SearchQuery:
    """A search: every word must occur, and every other field that is not None must match."""

    words: tuple[str, ...] = ()
    backbone: str | None = None
    language: str | None = None
    task: str | None = None
    method: str | None = None

    def matches_hit(self, hit: RepositoryHit) -> bool:
        """Whether a repository of a hub is for the backbone and the task of the query.

        Many cards record no backbone, so its name in that of the repository counts, too.
        """
        base = canonical_id(self.backbone) if self.backbone else None
        is_named = base is None or base.split("/")[-1] in hit.repo
        return (is_named or base in hit.backbones) and self.task in (None, hit.task)


@dataclass(frozen=True)
class CardHit:
    """A card and those of its variants that match a query."""

    card: Card
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        return f"{self.card.space}/{self.card.name}"

    @property
    def backbones(self) -> list[str]:
        """The backbones of the variants without their organisations, sorted."""
        return sorted({variant.backbone.split("/")[-1] for variant in self.variants})

    def reference_to(self, variant: Variant) -> str:
        """The reference to a variant in an expression."""
        return self.name if variant.key == DEFAULT_VARIANT else f"{self.name}@{variant.key}"

    def as_plain(self) -> dict[str, Any]:
        """The JSON form."""
        card = self.card
        entry: dict[str, Any] = {"name": self.name, "title": card.title, "task": card.task}
        entry |= {"languages": list(card.languages), "datasets": list(card.datasets)}
        return entry | {
            "adapters": [
                {"backbone": v.backbone, "key": v.key} | v.as_plain() for v in self.variants
            ]
        }


def search_cards(catalogue: Catalogue, query: SearchQuery) -> list[CardHit]:
    """The cards that match a query, the best match first.

    First come cards whose name or space is one of the words, then those whose name contains one.
    """
    words = [word.casefold() for word in query.words]

    def rank(hit: CardHit) -> tuple[bool, bool, str]:
        is_name = any(word in (hit.card.name, hit.card.space, hit.name) for word in words)
        return not is_name, not any(word in hit.name for word in words), hit.name

    return sorted(_hits(catalogue, query), key=rank)


def _hits(catalogue: Catalogue, query: SearchQuery) -> Iterator[CardHit]:
    base = canonical_id(query.backbone) if query.backbone else None
    for space in catalogue.spaces():
        for name in catalogue.names(space):
            card = catalogue.card(space, name)
            if query.language not in (None, *card.languages) or query.task not in (None, card.task):
                continue
            variants = tuple(
                variant
                for variant in card.variants
                if base in (None, variant.backbone)
                and (query.method is None or (variant.method or "").startswith(query.method))
                and _has_words(card, variant, query.words)
            )
            if variants:
                yield CardHit(card, variants)


def _has_words(card: Card, variant: Variant, words: tuple[str, ...]) -> bool:
    searchable = [f"{card.space}/{card.name}", card.title, card.task or "", variant.backbone]
    searchable += [*card.languages, *card.datasets, variant.repo, variant.method or "", variant.key]
    text = " ".join(searchable).casefold()
    return all(word.casefold() in text for word in words)
