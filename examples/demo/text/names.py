"""Names of people (P), places (L) and organisations (O), kept apart by pool.

>>> import random
>>> invent(random.Random(0), "test") == invent(random.Random(0), "test")
True
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from .lexicon import crc, rows, vocabulary

if TYPE_CHECKING:
    import random

CONSONANTS = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z")
VOWELS = ("a", "e", "i", "o", "u")
_POOL_OF_TEN = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2


@dataclass(frozen=True)
class Mixture:
    """How often a name is a real one, or carries a cue in its form; the rest is invented."""

    real: float
    cue: float


MIXTURES = {
    "text": Mixture(0.6, 0.15),
    "train": Mixture(0.15, 0.35),
    "mixed": Mixture(0.20, 0.50),
    "context": Mixture(0.0, 0.0),
}


@dataclass(frozen=True)
class Name:
    """A name without a language; `cue` is "", or which cue its surface form carries."""

    type: str
    roots: tuple[str, ...]
    cue: str = ""
    turn: int = 0

    def surface(self, lang: str) -> list[str]:
        """The words of the name in one language.

        >>> Name("L", ("Kelmo",), "lake").surface("sw")
        ['Ziwa', 'Kelmo']
        """
        if self.cue == "title":
            titles = [t.split()[1] for t in cues()["title"] if t.split()[0] in (lang, "*")]
            return [titles[self.turn % len(titles)], *self.roots]
        if self.cue == "lake":
            word = next(w.split()[1] for w in cues()["lake"] if w.split()[0] == lang)
            return [word, *self.roots]
        if self.cue == "firm":
            firms = cues()["firm"][0].split()
            return [*self.roots, firms[self.turn % len(firms)]]
        if self.cue in ("landend", "personend"):
            ends = cues()[self.cue][0].split()
            return [*self.roots[:-1], self.roots[-1] + ends[self.turn % len(ends)]]
        return list(self.roots)


@lru_cache
def cues() -> dict[str, list[str]]:
    """The rows of names.txt by their first column."""
    return {row[0]: row[1:] for row in rows("names.txt")}


def pool_of(root: str) -> str:
    """The one pool in which a root may occur."""
    return _POOL_OF_TEN[crc(root.lower()) % 10]


@lru_cache
def real(type_: str, pool: str) -> tuple[str, ...]:
    """The real names of a type in a pool."""
    return tuple(n for n in cues()[type_][0].split() if pool_of(n) == pool)


@lru_cache
def _known_words() -> frozenset[str]:
    words = " ".join(" ".join(entries) for entries in cues().values()).lower().split()
    inflected = [word + end for word in vocabulary() for end in ("s", "es", "n", "en")]
    return frozenset(word.strip(".") for word in words + inflected)


def invent(rng: random.Random, pool: str) -> str:
    """A pronounceable word that belongs to the pool and is no word of the lexicon.

    In the pools for evaluation it is no real name and no title either: only the context may tell.
    """
    taken = vocabulary() if pool == "train" else vocabulary() | _known_words()
    while True:
        syllables = rng.choice((2, 2, 2, 3))
        word = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(syllables))
        word += rng.choice(("", "", "n", "r", "s"))
        if pool_of(word) == pool and word not in taken:
            return word.capitalize()


def acronym(rng: random.Random, pool: str) -> str:
    """Three capital letters that belong to the pool."""
    while True:
        word = "".join(rng.choice("ABCDEFGHIKLMNOPRSTUVW") for _ in range(3))
        if pool_of(word) == pool and word.lower() not in vocabulary():
            return word


def name(rng: random.Random, type_: str, pool: str, mixture: str) -> Name:
    """A name of one type, from one pool.

    Invented names of all types look alike, in letters and in length: only the context tells.
    """
    share = MIXTURES[mixture]
    dice = rng.random()
    turn = rng.randrange(60)
    if dice < share.real:
        return Name(type_, (rng.choice(real(type_, pool)),))
    roots = tuple(invent(rng, pool) for _ in range(rng.choice((1, 1, 1, 2))))
    if dice >= share.real + share.cue:
        return Name(type_, roots)
    if type_ == "P":
        return Name(type_, roots, rng.choice(("title", "title", "personend")), turn)
    if type_ == "L":
        return Name(type_, roots[:1], rng.choice(("lake", "landend", "landend")), turn)
    if rng.random() < 0.3:
        return Name(type_, (acronym(rng, pool),))
    return Name(type_, roots, "firm", turn)
