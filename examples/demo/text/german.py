"""German: cases, three genders, and the verb in second place."""

from __future__ import annotations

from .render import Renderer, Token, plain, tagged
from .tree import Clause, Entity, Noun, Phrase

DEFINITE = {
    "m": {"n": "der", "a": "den", "d": "dem"},
    "f": {"n": "die", "a": "die", "d": "der"},
    "n": {"n": "das", "a": "das", "d": "dem"},
    "p": {"n": "die", "a": "die", "d": "den"},
}
INDEFINITE = {
    "m": {"n": "ein", "a": "einen", "d": "einem"},
    "f": {"n": "eine", "a": "eine", "d": "einer"},
    "n": {"n": "ein", "a": "ein", "d": "einem"},
    "p": {"n": "", "a": "", "d": ""},
}
STRONG = {
    "m": {"n": "er", "a": "en", "d": "en"},
    "f": {"n": "e", "a": "e", "d": "en"},
    "n": {"n": "es", "a": "es", "d": "en"},
    "p": {"n": "e", "a": "e", "d": "en"},
}


class German(Renderer):
    lang = "de"

    def clause(self, clause: Clause) -> list[Token]:
        finite, last = self._finite(clause)
        time, subject = self.turn().time(clause), self.turn().phrase(clause.subject)
        inverted = bool(clause.time and clause.time[1] % 2)
        verb = self.turn()
        verb_words = plain(finite) if verb is self else verb.verb(clause)
        words = time + verb_words + subject if inverted else subject + verb_words
        if clause.object and verb is self:
            words += self.object(clause)
        elif clause.object:
            # A guest verb has brought its own preposition.
            words += self.turn().phrase(clause.object, "a")
        words += self.turn().adjunct(clause) + ([] if inverted else time)
        return words + (plain(last) if verb is self else [])

    def verb(self, clause: Clause) -> list[Token]:
        """The verb as a guest in another language, with its preposition."""
        finite, last = self._finite(clause)
        return plain(f"{finite} {last} {self._preposition(clause).rpartition(':')[0]}")

    def _finite(self, clause: Clause) -> tuple[str, str]:
        """The verb in second place, and what stands at the end."""
        infinitive, present, past = clause.verb.forms["de"].split()[:3]
        many = isinstance(clause.subject, Noun) and clause.subject.plural
        if clause.tense == "future":
            return ("werden" if many else "wird"), infinitive
        if clause.tense == "present":
            return (infinitive if many else present), ""
        return (_past_plural(past) if many else past), ""

    def _preposition(self, clause: Clause) -> str:
        forms = clause.verb.forms["de"].split()
        return forms[3] if len(forms) > 3 else ":a"

    def object(self, clause: Clause) -> list[Token]:
        assert clause.object is not None
        return self._governed(self._preposition(clause), clause.object)

    def adjunct(self, clause: Clause) -> list[Token]:
        if clause.adjunct is None:
            return []
        preposition, phrase = clause.adjunct
        return self._governed(preposition.forms["de"], phrase)

    def _governed(self, preposition: str, phrase: Phrase) -> list[Token]:
        """A phrase in the case that its preposition takes: `mit:d` is mit with the dative."""
        words, _, case = preposition.rpartition(":")
        return plain(words) + self.turn().phrase(phrase, case)

    def noun(self, noun: Noun, case: str) -> str:
        gender, singular, plural = noun.concept.forms["de"].split(":")
        gender, word = ("p", plural) if noun.plural else (gender, singular)
        if noun.plural and case == "d" and word[-1] not in "ns":
            word += "n"
        article = (DEFINITE if noun.definite else INDEFINITE)[gender][case]
        adjective = ""
        if noun.adjective:
            stem = noun.adjective.forms["de"]
            adjective = stem + (_weak(gender, case) if noun.definite else STRONG[gender][case])
        return f"{article} {adjective} {word}"

    def entity(self, entity: Entity, case: str) -> list[Token]:
        if entity.head is None:
            return tagged(entity, "de")
        gender, word, _ = entity.head.forms["de"].split(":")
        return plain(f"{DEFINITE[gender][case]} {word}") + tagged(entity, "de")


def _weak(gender: str, case: str) -> str:
    """The adjective ending after der, die, das."""
    return "e" if gender != "p" and (case == "n" or (case == "a" and gender != "m")) else "en"


def _past_plural(past: str) -> str:
    """
    >>> _past_plural("kaufte"), _past_plural("gewann")
    ('kauften', 'gewannen')
    """
    return past + ("n" if past.endswith("e") else "en")
