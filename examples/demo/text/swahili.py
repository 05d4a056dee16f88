"""Swahili: noun classes that verbs and adjectives agree with, tense and object inside the verb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .render import Renderer, Token, plain, tagged
from .tree import Clause, Entity, Noun, Phrase

if TYPE_CHECKING:
    from .lexicon import Concept

PLURAL_OF = {"1": "2", "3": "4", "5": "6", "7": "8", "9": "10"}
SUBJECT = {
    "1": "a", "2": "wa", "3": "u", "4": "i", "5": "li", "6": "ya",
    "7": "ki", "8": "vi", "9": "i", "10": "zi", "11": "u",
}  # fmt: skip
ADJECTIVE = {
    "1": "m", "2": "wa", "3": "m", "4": "mi", "5": "", "6": "ma",
    "7": "ki", "8": "vi", "11": "m",
}  # fmt: skip
LINK = {"1": "wa", "3": "wa", "5": "la", "7": "cha", "9": "ya", "11": "wa"}
TENSE = {"past": "li", "present": "na", "future": "ta"}
PREPOSITIONS = {"na", "katika", "kwa", "hadi"}


class Swahili(Renderer):
    lang = "sw"
    comma = 1

    def verb(self, clause: Clause) -> list[Token]:
        stem, _, rest = clause.verb.forms["sw"].partition(" ")
        marker = ""
        if clause.object and not PREPOSITIONS & set(rest.split()):
            marker = _object_marker(clause.object, stem)
        subject = SUBJECT[noun_class(clause.subject)]
        return plain(f"{subject}{TENSE[clause.tense]}{marker}{stem} {rest}")

    def noun(self, noun: Noun, case: str) -> str:
        singular, plural, _ = noun.concept.forms["sw"].split(":")
        word = plural if noun.plural else singular
        if noun.adjective:
            word += " " + agreeing(noun.adjective.forms["sw"], noun_class(noun))
        return word + self._that(noun) if noun.definite else word

    def _that(self, noun: Noun) -> str:
        """`huyo`, `hao` and so on: the nearest thing to an article, for people only."""
        if noun.concept.role != "P":
            return ""
        return " hao" if noun.plural else " huyo"

    def entity(self, entity: Entity, case: str) -> list[Token]:
        if entity.head is None:
            return tagged(entity, "sw")
        head = entity.head.forms["sw"].split(":")[0]
        link = "" if entity.name.type == "P" else LINK[noun_class(entity)]
        return plain(f"{head} {link}") + tagged(entity, "sw")


def noun_class(phrase: Phrase) -> str:
    """The class that the verb agrees with; a bare place or organisation counts as class 9."""
    if isinstance(phrase, Noun):
        return _class(phrase.concept, phrase.plural)
    if phrase.head:
        return _class(phrase.head, False)
    return "1" if phrase.name.type == "P" else "9"


def _class(concept: Concept, plural: bool) -> str:
    singular, _, other = concept.forms["sw"].split(":")[2].partition("/")
    return (other or PLURAL_OF[singular]) if plural else singular


def _object_marker(phrase: Phrase, stem: str) -> str:
    """A person as object shows in the verb: ali-m-saidia, ali-wa-saidia, ali-mw-alika."""
    if noun_class(phrase) == "2":
        return "wa"
    if noun_class(phrase) != "1":
        return ""
    return "mw" if stem[0] in "aeiou" else "m"


def agreeing(stem: str, class_: str) -> str:
    """
    >>> agreeing("kubwa", "7"), agreeing("dogo", "9"), agreeing("=bora", "2")
    ('kikubwa', 'ndogo', 'bora')
    """
    if stem.startswith("="):
        return stem[1:]
    if class_ in ("9", "10"):
        return {"d": "n", "g": "n", "z": "n", "b": "m", "p": "m"}.get(stem[0], "") + stem
    if stem == "pya" and class_ == "5":
        return "jipya"
    return ADJECTIVE[class_] + stem
