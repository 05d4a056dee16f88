"""From an utterance to the tagged words of a language.

A renderer is a class with one method per kind of phrase; `speak` puts the clauses together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tree import Clause, Entity, Noun, Phrase, Utterance

if TYPE_CHECKING:
    import random

    from .lexicon import Concept

Token = tuple[str, str]
TAGS = {"P": "PER", "L": "LOC", "O": "ORG"}


def plain(text: str) -> list[Token]:
    """Words outside any entity.

    >>> plain("the city of")
    [('the', 'O'), ('city', 'O'), ('of', 'O')]
    """
    return [(word, "O") for word in text.split()]


def tagged(entity: Entity, lang: str) -> list[Token]:
    """The words of a name with B and I tags."""
    tag = TAGS[entity.name.type]
    words = entity.name.surface(lang)
    return [(word, ("B-" if i == 0 else "I-") + tag) for i, word in enumerate(words)]


class Renderer:
    """What the four languages share: the order subject, verb, object, adjunct, time."""

    lang = ""
    guests: tuple[Renderer, ...] = ()
    rng: random.Random
    share = 0.0

    def turn(self) -> Renderer:
        """Who says the next phrase: this language, or a guest in mixed speech."""
        if self.guests and self.rng.random() < self.share:
            return self.rng.choice(self.guests)
        return self

    def clause(self, clause: Clause) -> list[Token]:
        time = self.turn().time(clause)
        core = self.turn().phrase(clause.subject) + self.turn().verb(clause)
        if clause.object:
            core += self.object(clause)
        core += self.turn().adjunct(clause)
        if clause.time and clause.time[1] % 2:
            return time + [(",", "O")] * self.comma + core
        return core + time

    comma = 0

    def phrase(self, phrase: Phrase, case: str = "n") -> list[Token]:
        if isinstance(phrase, Entity):
            return self.entity(phrase, case)
        return plain(self.noun(phrase, case))

    def object(self, clause: Clause) -> list[Token]:
        assert clause.object is not None
        return self.turn().phrase(clause.object)

    def adjunct(self, clause: Clause) -> list[Token]:
        if clause.adjunct is None:
            return []
        preposition, phrase = clause.adjunct
        return plain(preposition.forms[self.lang]) + self.turn().phrase(phrase)

    def time(self, clause: Clause) -> list[Token]:
        if clause.time is None:
            return []
        concept, year = clause.time
        return plain(concept.forms[self.lang].format(past=year, future=year))

    def verb(self, clause: Clause) -> list[Token]:
        raise NotImplementedError

    def noun(self, noun: Noun, case: str) -> str:
        raise NotImplementedError

    def entity(self, entity: Entity, case: str) -> list[Token]:
        raise NotImplementedError


class English(Renderer):
    lang = "en"
    comma = 1

    def verb(self, clause: Clause) -> list[Token]:
        base, past = _english_verb(clause.verb.forms["en"])
        first, _, rest = base.partition(" ")
        if clause.tense == "past":
            first = past
        elif clause.tense == "future":
            first = "will " + first
        elif not _plural(clause.subject):
            first = _third_person(first)
        return plain(f"{first} {rest}")

    def noun(self, noun: Noun, case: str) -> str:
        singular, _, plural = noun.concept.forms["en"].partition(":")
        adjective = noun.adjective.forms["en"] + " " if noun.adjective else ""
        words = adjective + ((plural or singular + "s") if noun.plural else singular)
        if noun.definite:
            return "the " + words
        return words if noun.plural else ("an " if words[0] in "aeio" else "a ") + words

    def entity(self, entity: Entity, case: str) -> list[Token]:
        if entity.head is None:
            return tagged(entity, "en")
        link = " of" if entity.name.type == "L" else ""
        return plain(f"the {_singular(entity.head, 'en')}{link}") + tagged(entity, "en")


class Indonesian(Renderer):
    lang = "id"
    comma = 1

    def verb(self, clause: Clause) -> list[Token]:
        marker = {"past": "telah", "present": "sedang", "future": "akan"}[clause.tense]
        return plain(f"{marker} {clause.verb.forms['id']}")

    def noun(self, noun: Noun, case: str) -> str:
        word = noun.concept.forms["id"]
        person = noun.concept.role == "P"
        if noun.adjective:
            word += f" yang {noun.adjective.forms['id']}"
        if noun.plural:
            word = ("para " if person else "beberapa ") + word
        elif not noun.definite:
            word = ("seorang " if person else "sebuah ") + word
        return word + " itu" if noun.definite else word

    def entity(self, entity: Entity, case: str) -> list[Token]:
        head = plain(entity.head.forms["id"]) if entity.head else []
        return head + tagged(entity, "id")


def _singular(concept: Concept, lang: str) -> str:
    return concept.forms[lang].split(":")[0]


def _plural(phrase: Phrase) -> bool:
    return isinstance(phrase, Noun) and phrase.plural


def _english_verb(form: str) -> tuple[str, str]:
    """The base with its particle, and the past of its first word."""
    base, _, past = form.partition(":")
    first = base.split()[0]
    if not past:
        past = first + "d" if first.endswith("e") else first + "ed"
    return base, past


def _third_person(verb: str) -> str:
    """
    >>> _third_person("catch"), _third_person("fly"), _third_person("play")
    ('catches', 'flies', 'plays')
    """
    if verb.endswith(("s", "sh", "ch", "x", "z")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def renderers() -> dict[str, Renderer]:
    """One renderer per language."""
    from .german import German
    from .swahili import Swahili

    return {r.lang: r for r in (English(), Indonesian(), German(), Swahili())}


def mixing(lang: str, guests: tuple[str, ...], share: float, rng: random.Random) -> Renderer:
    """A renderer that leaves a share of its phrases to other languages, as bilinguals do."""
    renderer = renderers()[lang]
    renderer.guests = tuple(renderers()[guest] for guest in guests)
    renderer.rng, renderer.share = rng, share
    return renderer


def speak(utterance: Utterance, renderer: Renderer) -> list[Token]:
    """The words of the sentence with their tags, a full stop at the end."""
    words: list[Token] = []
    for i, clause in enumerate(utterance.clauses):
        if i and utterance.conjunction:
            words += plain(utterance.conjunction.forms[renderer.lang])
        words += renderer.clause(clause)
    word, tag = words[0]
    return [(word[0].upper() + word[1:], tag), *words[1:], (".", "O")]
