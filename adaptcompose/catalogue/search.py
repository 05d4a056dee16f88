"""Searching: the cards that come with adaptcompose first, then what a hub has.

>>> from adaptcompose.resources import resource_folder
>>> cards = Catalogue.open(resource_folder("hub_cards"))
>>> [hit.name for hit in search_cards(cards, SearchQuery(("swahili",), backbone="xlm-roberta-base"))]
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
    """What is looked for: every word must occur, and each of the others that is given fits."""

    words: tuple[str, ...] = ()
    backbone: str | None = None
    language: str | None = None
    task: str | None = None
    method: str | None = None

    def matches_hit(self, found: RepositoryHit) -> bool:
        """Whether what a hub found is of this backbone and task, by card or name."""
        base = canonical_id(self.backbone) if self.backbone else None
        named = base is None or base.split("/")[-1] in found.repo
        return (named or base in found.backbones) and self.task in (None, found.task)


@dataclass(frozen=True)
class CardHit:
    """A card, with those of its adapters that fit."""

    card: Card
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        return f"{self.card.space}/{self.card.name}"

    @property
    def backbones(self) -> list[str]:
        """Their names without the organisations, sorted."""
        return sorted({one.backbone.split("/")[-1] for one in self.variants})

    def reference_to(self, variant: Variant) -> str:
        """As it stands in an expression."""
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
    """The cards that fit: those that a word names, those with a word in the name, the others."""
    words = [word.casefold() for word in query.words]

    def rank(hit: CardHit) -> tuple[bool, bool, str]:
        called = any(word in (hit.card.name, hit.card.space, hit.name) for word in words)
        return not called, not any(word in hit.name for word in words), hit.name

    return sorted(_hits(catalogue, query), key=rank)


def _hits(catalogue: Catalogue, query: SearchQuery) -> Iterator[CardHit]:
    base = canonical_id(query.backbone) if query.backbone else None
    for space in catalogue.spaces():
        for name in catalogue.names(space):
            card = catalogue.card(space, name)
            if query.language not in (None, *card.languages) or query.task not in (None, card.task):
                continue
            variants = tuple(
                one
                for one in card.variants
                if base in (None, one.backbone)
                and (query.method is None or (one.method or "").startswith(query.method))
                and _fits(card, one, query.words)
            )
            if variants:
                yield CardHit(card, variants)


def _fits(card: Card, variant: Variant, words: tuple[str, ...]) -> bool:
    searchable = [f"{card.space}/{card.name}", card.title, card.task or "", variant.backbone]
    searchable += [*card.languages, *card.datasets, variant.repo, variant.method or "", variant.key]
    text = " ".join(searchable).casefold()
    return all(word.casefold() in text for word in words)
