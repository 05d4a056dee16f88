"""Concepts: one row of the lexicon is one meaning with a form in every language.

>>> lexicon().verbs[0].forms["en"]
'play for'
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LANGUAGES = ("en", "id", "de", "sw")
TOPICS = ("sport", "food", "health", "travel")
POOLS = ("train", "validation", "test")
FOLDER = Path(__file__).parent / "lexicon"

# The n-th concept of a group (same word class, topic and role) goes to the n-th pool, in turn:
# so every pool has verbs and nouns for every topic.
_TURNS = ("train", "test", "validation", "train", "test", "train", "train", "test", "validation",
          "train")  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """A verb, noun, adjective or small word; `role` says what it takes or names."""

    kind: str
    topic: str
    role: str
    forms: dict[str, str]
    pool: str = "train"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.forms['en']}"

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Lexicon:
    verbs: tuple[Concept, ...]
    nouns: tuple[Concept, ...]
    adjectives: tuple[Concept, ...]
    times: tuple[Concept, ...]
    prepositions: tuple[Concept, ...]
    conjunctions: tuple[Concept, ...]

    @property
    def content(self) -> tuple[Concept, ...]:
        """The concepts that the pools keep apart."""
        return self.verbs + self.nouns + self.adjectives


def crc(text: str) -> int:
    """A hash that is the same in every process."""
    return zlib.crc32(text.encode())


def rows(name: str) -> list[list[str]]:
    """The rows of a lexicon file, comments left out."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line.split("|") for line in lines if line.strip() and not line.startswith("#")]


def _concepts(name: str, kind: str | None = None) -> list[Concept]:
    found = []
    for *head, en, id_, de, sw in rows(name):
        forms = {"en": en, "id": id_, "de": de, "sw": sw}
        if name == "verbs.txt":
            found.append(Concept("verb", head[0], head[1] + head[2], forms))
        elif name == "nouns.txt":
            found.append(Concept("noun", head[0], head[1], forms))
        elif head[0] == kind:
            found.append(Concept(kind, "any", head[1], forms))
    return found


def _pooled(concepts: list[Concept]) -> tuple[Concept, ...]:
    """The same concepts, each with its pool; order inside a group comes from a hash."""
    groups: dict[tuple[str, str], list[Concept]] = {}
    for concept in concepts:
        groups.setdefault((concept.topic, concept.role[0]), []).append(concept)
    pooled = []
    for group in groups.values():
        for turn, concept in enumerate(sorted(group, key=lambda c: crc(c.id))):
            pool = _TURNS[turn % len(_TURNS)]
            pooled.append(Concept(concept.kind, concept.topic, concept.role, concept.forms, pool))
    return tuple(pooled)


@lru_cache
def lexicon() -> Lexicon:
    """The whole lexicon, read once."""
    return Lexicon(
        _pooled(_concepts("verbs.txt")),
        _pooled(_concepts("nouns.txt")),
        _pooled(_concepts("small.txt", "adj")),
        tuple(_concepts("small.txt", "time")),
        tuple(_concepts("small.txt", "prep")),
        tuple(_concepts("small.txt", "conj")),
    )


@lru_cache
def vocabulary() -> frozenset[str]:
    """Every word of the lexicon in lower case, in any language: no invented name may equal one."""
    words: set[str] = set()
    for name in ("verbs.txt", "nouns.txt", "small.txt"):
        for row in rows(name):
            for form in row[2:]:
                words.update(form.lower().replace(":", " ").split())
    return frozenset(words)
