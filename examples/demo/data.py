"""Write the demo's data files: labelled data to `data/`, raw text to `build/text/`.

    python examples/demo/data.py

The same files come out every time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from text.data import CHAT, Split, ner, raw_text, sentence_task
from text.lexicon import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from text.render import Token

HERE = Path(__file__).parent
TEXT = {"train": 30000, "validation": 500}
NER_TRAIN, NER_EVALUATION = 2000, 400
TASK_TRAIN, TASK_EVALUATION = 1500, 400
SENTENCE_TASKS = ("topic", "place", "person", "organisation", "actor", "names")


def write_conll(path: Path, sentences: Iterable[list[Token]]) -> None:
    """`token TAB tag`, one per line, a blank line after each sentence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = ["".join(f"{word}\t{tag}\n" for word, tag in s) for s in sentences]
    path.write_text("\n".join(blocks), encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def write_text(folder: Path) -> None:
    """Raw text of every language, for masked-language modelling."""
    for lang in LANGUAGES:
        for part, count in TEXT.items():
            rows = ({"text": text} for text in raw_text(lang, part, count))
            write_jsonl(folder / f"{lang}.{part}.jsonl", rows)
        if lang != "sw":  # the backbone must not meet Swahili
            chat = raw_text(lang, "train", TEXT["train"], seed=1, blend=CHAT)
            write_jsonl(folder / f"{lang}.chat.jsonl", ({"text": text} for text in chat))


def write_labelled(folder: Path) -> None:
    """Training data in English only; evaluation data in English and Swahili."""
    train = Split("ner", "train", "train")
    write_conll(folder / "ner" / "en.train.conll", ner("en", train, NER_TRAIN))
    for lang in ("en", "sw"):
        for part in ("validation", "test"):
            for mixture in ("mixed", "context"):
                sentences = ner(lang, Split("ner", part, mixture), NER_EVALUATION)
                write_conll(folder / "ner" / f"{lang}.{part}.{mixture}.conll", sentences)
    for task in SENTENCE_TASKS:
        rows = sentence_task(task, "en", Split("task", "train", "train"), TASK_TRAIN)
        write_jsonl(folder / task / "en.train.jsonl", rows)
        for lang in ("en", "sw"):
            for part in ("validation", "test"):
                rows = sentence_task(task, lang, Split("task", part, "mixed"), TASK_EVALUATION)
                write_jsonl(folder / task / f"{lang}.{part}.jsonl", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labelled", type=Path, default=HERE / "data")
    parser.add_argument("--text", type=Path, default=HERE / "build" / "text")
    args = parser.parse_args()
    write_labelled(args.labelled)
    write_text(args.text)


if __name__ == "__main__":
    main()
