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
        forms = clause.verb.forms["de"].split()
        infinitive, present, past = forms[:3]
        many = isinstance(clause.subject, Noun) and clause.subject.plural
        if clause.tense == "future":
            finite, last = ("werden" if many else "wird"), infinitive
        elif clause.tense == "present":
            finite, last = (infinitive if many else present), ""
        else:
            finite, last = (_past_plural(past) if many else past), ""
        time, subject = self.time(clause), self.phrase(clause.subject)
        inverted = bool(clause.time and clause.time[1] % 2)
        words = time + plain(finite) + subject if inverted else subject + plain(finite)
        words += self.object(clause) if clause.object else []
        words += self.adjunct(clause) + ([] if inverted else time)
        return words + plain(last)

    def object(self, clause: Clause) -> list[Token]:
        assert clause.object is not None
        forms = clause.verb.forms["de"].split()
        return self._governed(forms[3] if len(forms) > 3 else ":a", clause.object)

    def adjunct(self, clause: Clause) -> list[Token]:
        if clause.adjunct is None:
            return []
        preposition, phrase = clause.adjunct
        return self._governed(preposition.forms["de"], phrase)

    def _governed(self, preposition: str, phrase: Phrase) -> list[Token]:
        """A phrase in the case that its preposition takes: `mit:d` is mit with the dative."""
        words, _, case = preposition.rpartition(":")
        return plain(words) + self.phrase(phrase, case)

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
