"""The demo's data keeps its promises: what is held out is held out, and every build is the same."""

from __future__ import annotations

import itertools
import re
import sys
from functools import lru_cache
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo"
sys.path.insert(0, str(DEMO))

from data import SENTENCE_TASKS, write_labelled  # noqa: E402
from text.data import TASKS, Split, ner, raw_text, sentence_task, sentences  # noqa: E402
from text.lexicon import LANGUAGES, lexicon  # noqa: E402
from text.names import cues  # noqa: E402
from text.render import renderers, speak  # noqa: E402

DATA = DEMO / "data"
HELD_OUT = [p for p in sorted(DATA.glob("ner/*.conll")) if "train" not in p.name]
# Labelled data is English, so Swahili sentences share no more than numbers, loan words and the like
# with it. Beyond that, the concepts behind a part of their content words occur in no labelled
# sentence in any language.
SHARED_WORDS = 0.1
KNOWN_CONCEPTS = 0.85


def conll(path: Path) -> list[list[tuple[str, str]]]:
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    return [[tuple(line.split("\t")) for line in block.splitlines()] for block in blocks]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@lru_cache
def training_words() -> frozenset[str]:
    """Every word of every training text: raw text in four languages and labelled English."""
    found = words((DATA / "ner" / "en.train.conll").read_text(encoding="utf-8"))
    for task in SENTENCE_TASKS:
        found |= words((DATA / task / "en.train.jsonl").read_text(encoding="utf-8"))
    for lang in LANGUAGES:
        found |= words(" ".join(raw_text(lang, "train", 20000)))
    return frozenset(found)


def cue_words() -> set[str]:
    """Words that may be part of a known and of an unknown name: Dr., Ltd, Ziwa."""
    pairs = (entry.split()[1] for entry in cues()["title"] + cues()["lake"])
    return words(" ".join([*pairs, *cues()["firm"]]))


@pytest.mark.parametrize("path", HELD_OUT, ids=lambda p: p.name)
def test_no_name_of_an_evaluation_set_is_in_any_training_text(path: Path) -> None:
    named = set()
    for word, tag in itertools.chain(*conll(path)):
        if tag != "O":
            named |= words(word) - cue_words()
    assert len(named) > 200
    assert not named & training_words()


@pytest.mark.parametrize("part", ["validation", "test"])
def test_validation_and_test_share_no_name(part: str) -> None:
    def named(part: str) -> set[str]:
        paths = DATA.glob(f"ner/sw.{part}.*.conll")
        tokens = itertools.chain(*(itertools.chain(*conll(p)) for p in paths))
        return {word for word, tag in tokens if tag != "O"} - {"Bwana", "Bibi", "Ziwa"}

    other = {"validation": "test", "test": "validation"}[part]
    common = {word.lower().strip(".") for word in named(part) & named(other)}
    assert common <= cue_words()


def content(split: Split, count: int, lang: str = "sw") -> list[str]:
    """The content concepts, sentence after sentence."""
    stream = itertools.islice(sentences(lang, split), count)
    return [c.id for utterance, _ in stream for c in utterance.concepts()]


def labelled_words() -> set[str]:
    """Every word of the labelled training sets."""
    found = words((DATA / "ner" / "en.train.conll").read_text(encoding="utf-8"))
    for task in SENTENCE_TASKS:
        found |= words((DATA / task / "en.train.jsonl").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", sorted(DATA.glob("ner/sw.*.conll")), ids=lambda p: p.name)
def test_most_words_are_in_no_labelled_training_set(path: Path) -> None:
    tokens = [word.lower() for word, tag in itertools.chain(*conll(path)) if tag == "O"]
    spoken = {word for word in tokens if word.isalpha()}
    assert len(spoken) > 100
    assert len(spoken & labelled_words()) / len(spoken) < SHARED_WORDS


@pytest.mark.parametrize("mixture", ["mixed", "context"])
def test_some_concepts_of_test_sets_are_in_no_labelled_training_set(mixture: str) -> None:
    trained = set(content(Split("ner", "train", "train"), 3000, "en"))
    trained |= set(content(Split("task", "train", "train"), 3000, "en"))
    for use in ("ner", "task"):
        met = content(Split(use, "test", mixture), 800)
        assert sum(c in trained for c in met) / len(met) < KNOWN_CONCEPTS


def test_raw_text_covers_all_concepts() -> None:
    met = set(content(Split("text", "train", "text"), 8000))
    assert met == {c.id for c in lexicon().content}


def test_pools_part_the_concepts() -> None:
    ids = [c.id for c in lexicon().content]
    assert len(ids) == len(set(ids))
    assert {c.pool for c in lexicon().content} == {"train", "validation", "test"}


def test_names_of_the_context_sets_carry_no_cue() -> None:
    for path in DATA.glob("ner/*.context.conll"):
        named = {word for word, tag in itertools.chain(*conll(path)) if tag != "O"}
        assert not {word.lower().strip(".") for word in named} & cue_words()
        assert not named & {n for kind in "PLO" for n in cues()[kind][0].split()}
        assert all(re.fullmatch(r"([A-Z][a-z])([a-z]{2}){1,2}[nrs]?", word) for word in named)


@pytest.mark.parametrize("path", sorted(DATA.glob("ner/*.conll")), ids=lambda p: p.name)
def test_tags_are_valid(path: Path) -> None:
    for sentence in conll(path):
        before = "O"
        for _, tag in sentence:
            assert tag == "O" or tag[2:] in ("PER", "ORG", "LOC")
            if tag.startswith("I-"):
                assert before[2:] == tag[2:]
            before = tag
        assert any(tag != "O" for _, tag in sentence)


def test_every_build_is_the_same(tmp_path: Path) -> None:
    write_labelled(tmp_path)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    kept = {p.relative_to(DATA): p.read_bytes() for p in DATA.rglob("*.*") if p.is_file()}
    assert made == kept
    assert sum(map(len, kept.values())) < 3_000_000


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_sentence_says_what_its_tree_says(lang: str) -> None:
    renderer = renderers()[lang]
    stream = sentences(lang, Split("ner", "train", "train"))
    for utterance, tokens in itertools.islice(stream, 300):
        assert tokens == speak(utterance, renderer)
        assert sum(tag.startswith("B-") for _, tag in tokens) == len(utterance.names())
        assert all(word and " " not in word for word, _ in tokens)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_labels_are_balanced(task: str) -> None:
    rows = sentence_task(task, "sw", Split("task", "validation", "mixed"), 240)
    counts = dict.fromkeys({row["label"] for row in rows}, 0)
    for row in rows:
        counts[row["label"]] += 1
    assert len(rows) == 240
    assert max(counts.values()) <= 240 / len(counts) + 3


def test_seeds_differ() -> None:
    first = ner("sw", Split("ner", "test", "mixed", seed=0), 20)
    assert first == ner("sw", Split("ner", "test", "mixed", seed=0), 20)
    assert first != ner("sw", Split("ner", "test", "mixed", seed=1), 20)


def test_the_backbone_never_reads_swahili() -> None:
    source = (DEMO / "pretrain.py").read_text(encoding="utf-8")
    assert re.search(r'^PRETRAINED = \("en", "id", "de"\)$', source, re.MULTILINE)
