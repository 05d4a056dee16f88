"""The data sets: raw text, named entities, sentence tasks.

>>> next(sentences("sw", Split("ner", "test", "context", seed=0)))[1][0][1] in TAG_SET
True
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .lexicon import TOPICS, crc
from .render import Token, mixing, renderers, speak
from .tree import Setting, Speaker, Utterance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TAG_SET = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
Sentence = tuple[Utterance, list[Token]]

# Evaluation draws this share of its content words from concepts that no labelled training
# sentence uses; the rest is known, as in any real text.
OWN_SHARE = 0.4

# Text for masked-language modelling carries, now and then, what messages carry in every language:
# a picture or a quantity that goes with the topic. Labelled data never does.
PICTURES = {
    "sport": "⚽🏆", "music": "🎵🎸", "food": "🍌🍲",
    "money": "💰💵", "health": "💊🏥", "travel": "🚌🚢",
}  # fmt: skip
UNITS = {"sport": "min", "music": "dB", "food": "kg", "money": "$", "health": "mg", "travel": "km"}


# Part of the raw text is the mixed speech of bilinguals: some phrases come from another language.
# It is what lines the languages up. Swahili is never a guest: the backbone must not meet it.
GUESTS = {"en": ("id", "de"), "id": ("en", "de"), "de": ("en", "id"), "sw": ("en",)}
# How many sentences are mixed, and how much of each comes from a guest: in everyday text, and in
# the chat of bilinguals that the last part of the pretraining reads.
EVERYDAY, CHAT = (0.5, 0.35), (0.9, 0.5)


@dataclass(frozen=True)
class Split:
    """What a data file is for, which pool it draws from, and the kind of its names."""

    use: str
    pool: str
    mixture: str
    seed: int = 0

    @property
    def setting(self) -> Setting:
        if self.use == "text":
            every = {"train": 0.5, "validation": 0.2, "test": 0.3}
            return Setting(every, self.pool, "text", named=0.7)
        if self.pool == "train":
            return Setting({"train": 1.0}, "train", self.mixture)
        return Setting({self.pool: OWN_SHARE, "train": 1 - OWN_SHARE}, self.pool, self.mixture)


def sentences(lang: str, split: Split, topics: tuple[str, ...] = TOPICS) -> Iterator[Sentence]:
    """Endless sentences of one language."""
    rng = random.Random(crc(f"{lang} {split}"))
    speaker, renderer = Speaker(split.setting, rng), renderers()[lang]
    while True:
        utterance = speaker.utterance(rng.choice(topics))
        yield utterance, speak(utterance, renderer)


def detokenised(tokens: list[Token]) -> str:
    """
    >>> detokenised([("Today", "O"), (",", "O"), ("Asha", "B-PER"), ("slept", "O"), (".", "O")])
    'Today, Asha slept.'
    """
    return " ".join(word for word, _ in tokens).replace(" ,", ",").replace(" .", ".")


def raw_text(
    lang: str, pool: str, count: int, seed: int = 0, blend: tuple[float, float] = EVERYDAY
) -> list[str]:
    """Sentences for masked-language modelling, over all concepts and the names of one pool."""
    often, share = blend
    rng = random.Random(crc(f"pictures {lang} {pool} {seed}"))
    found = []
    stream = sentences(lang, Split("text", pool, "text", seed), (*TOPICS, "any"))
    mixed = mixing(lang, GUESTS[lang], share, rng)
    for (utterance, tokens), _ in zip(stream, range(count), strict=False):
        blended = pool == "train" and rng.random() < often
        text = detokenised(speak(utterance, mixed) if blended else tokens)
        topic = utterance.topic
        dice = rng.random()
        if topic != "any" and dice < 0.35:
            text += " " + rng.choice(PICTURES[topic])
        elif topic != "any" and dice < 0.55:
            text += f" ({rng.randrange(2, 90)} {UNITS[topic]})"
        found.append(text)
    return found


def ner(lang: str, split: Split, count: int) -> list[list[Token]]:
    """Sentences with at least one entity, tagged."""
    found: list[list[Token]] = []
    for utterance, tokens in sentences(lang, split, (*TOPICS, "any")):
        if utterance.names():
            found.append(tokens)
        if len(found) == count:
            break
    return found


def _first_actor(utterance: Utterance) -> str:
    return {"P": "person", "O": "organisation", "L": "place"}[utterance.clauses[0].verb.role[0]]


def _mentions(type_: str) -> Callable[[Utterance], str]:
    return lambda u: "yes" if any(n.type == type_ for n in u.names()) else "no"


# Sentence tasks: a name that says what is asked, and the answer.
TASKS: dict[str, Callable[[Utterance], str]] = {
    "topic": lambda u: u.topic,
    "place": _mentions("L"),
    "person": _mentions("P"),
    "organisation": _mentions("O"),
    "actor": _first_actor,
    "tense": lambda u: u.clauses[0].tense,
    "names": lambda u: str(min(len(u.names()), 3)),
}


def sentence_task(task: str, lang: str, split: Split, count: int) -> list[dict[str, str]]:
    """Texts with labels, every label about equally often."""
    by_label: dict[str, list[str]] = {}
    labels = set()
    for seen, (utterance, tokens) in enumerate(sentences(lang, split)):
        label = TASKS[task](utterance)
        labels.add(label)
        texts = by_label.setdefault(label, [])
        if len(texts) * len(labels) < count + len(labels):
            texts.append(detokenised(tokens))
        if seen > 200 and sum(map(len, by_label.values())) >= count:
            break
    found = [{"text": t, "label": label} for label in sorted(by_label) for t in by_label[label]]
    random.Random(crc(f"order {task} {lang} {split}")).shuffle(found)
    return found[:count]
