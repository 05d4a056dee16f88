"""What a sentence says, before it is in any language; and the dice that choose it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .lexicon import Concept, lexicon
from .names import Name, name

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

SUBJECTS = {"P": 0.46, "O": 0.3, "L": 0.24}
TENSES = ("past", "present", "future")


@dataclass(frozen=True)
class Entity:
    """A named thing, at times with the noun that says what it is: `the city of Kelmo`."""

    name: Name
    head: Concept | None = None


@dataclass(frozen=True)
class Noun:
    """A noun phrase without a name: `the famous players`."""

    concept: Concept
    plural: bool = False
    definite: bool = True
    adjective: Concept | None = None


Phrase = Entity | Noun


@dataclass(frozen=True)
class Clause:
    verb: Concept
    tense: str
    subject: Phrase
    object: Phrase | None
    adjunct: tuple[Concept, Phrase] | None
    time: tuple[Concept, int] | None


@dataclass(frozen=True)
class Utterance:
    """One or two clauses about one topic."""

    topic: str
    clauses: tuple[Clause, ...]
    conjunction: Concept | None = None

    def phrases(self) -> list[Phrase]:
        """Subjects, objects and adjuncts, clause by clause."""
        found: list[Phrase | None] = []
        for clause in self.clauses:
            found += [clause.subject, clause.object, clause.adjunct and clause.adjunct[1]]
        return [phrase for phrase in found if phrase is not None]

    def names(self) -> list[Name]:
        return [phrase.name for phrase in self.phrases() if isinstance(phrase, Entity)]

    def concepts(self) -> list[Concept]:
        """The content concepts: verbs, nouns, adjectives."""
        found = [clause.verb for clause in self.clauses]
        for phrase in self.phrases():
            if isinstance(phrase, Noun):
                found += [phrase.concept] + ([phrase.adjective] if phrase.adjective else [])
            elif phrase.head:
                found.append(phrase.head)
        return found


@dataclass(frozen=True)
class Setting:
    """Where content may come from.

    `concepts` weighs the concept pools, `names` is the one name pool, `mixture` a name mixture.
    """

    concepts: Mapping[str, float]
    names: str
    mixture: str
    own_topic: float = 0.9
    named: float = 0.62
    two_clauses: float = 0.05


class Speaker:
    """Draws utterances from a setting; the same seed says the same things."""

    def __init__(self, setting: Setting, rng: random.Random) -> None:
        self.setting = setting
        self.rng = rng

    def _pick(self, concepts: tuple[Concept, ...], **where: str) -> Concept | None:
        """A concept from a pool drawn by weight, or from any allowed pool if that one has none."""
        weights = self.setting.concepts
        fit = [
            c
            for c in concepts
            if weights.get(c.pool)
            and c.topic == where.get("topic", c.topic)
            and c.role.startswith(where.get("role", ""))
        ]
        pools = [pool for pool in weights if any(c.pool == pool for c in fit)]
        if not pools:
            return None
        pool = self.rng.choices(pools, [weights[p] for p in pools])[0]
        return self.rng.choice([c for c in fit if c.pool == pool])

    def utterance(self, topic: str) -> Utterance:
        """One or two clauses, the first of which is surely about the topic."""
        first = self._clause(topic)
        if self.rng.random() >= self.setting.two_clauses:
            return Utterance(topic, (first,))
        second = self._clause(topic if self.rng.random() < self.setting.own_topic else "any")
        return Utterance(topic, (first, second), self.rng.choice(lexicon().conjunctions))

    def _clause(self, topic: str) -> Clause:
        rng = self.rng
        verb = None
        while verb is None:
            subject_type = rng.choices(list(SUBJECTS), list(SUBJECTS.values()))[0]
            verb = self._pick(lexicon().verbs, topic=topic, role=subject_type)
        tense = rng.choice(TENSES)
        object_: Phrase | None = None
        if verb.role[1] == "N":
            object_ = self._noun("T", verb.topic)
        elif verb.role[1] != "-":
            object_ = self._phrase(verb.role[1], verb.topic)
        adjunct = None
        if rng.random() < 0.3:
            preposition = rng.choice(lexicon().prepositions)
            adjunct = (preposition, self._phrase(preposition.role, verb.topic))
        time = None
        if rng.random() < 0.3:
            fit = [t for t in lexicon().times if t.role == tense]
            year = rng.randrange(1960, 2020) if tense == "past" else rng.randrange(2027, 2060)
            time = (rng.choice(fit), year)
        return Clause(verb, tense, self._phrase(subject_type, verb.topic), object_, adjunct, time)

    def _phrase(self, type_: str, topic: str) -> Phrase:
        """Someone, a place or an organisation: named, or by a noun."""
        if self.rng.random() >= self.setting.named:
            return self._noun(type_, topic)
        head = self._head(type_, topic) if self.rng.random() < 0.1 else None
        return Entity(name(self.rng, type_, self.setting.names, self.setting.mixture), head)

    def _head(self, type_: str, topic: str) -> Concept:
        topics = (topic, "any") if self.rng.random() < 0.6 else ("any", topic)
        found = [self._pick(lexicon().nouns, topic=t, role=type_) for t in topics]
        concept = found[0] or found[1] or self._pick(lexicon().nouns, role=type_)
        assert concept is not None
        return concept

    def _noun(self, type_: str, topic: str) -> Noun:
        adjective = self._pick(lexicon().adjectives) if self.rng.random() < 0.1 else None
        plural, definite = self.rng.random() < 0.15, self.rng.random() < 0.6
        return Noun(self._head(type_, topic), plural, definite, adjective)
