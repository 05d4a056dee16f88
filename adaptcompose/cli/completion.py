"""Shell completion: files, words inside a quoted expression, keys of a spec."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptcompose.experiment.spec.section_reader import KeyDoc

COMPLETION_VARIABLE = "_ADAPTCOMPOSE_COMPLETE"
"""The environment variable that a shell sets to ask for completions."""
TARGET_SUFFIXES = (".yaml", ".yml", ".compose")


def complete_target(incomplete: str) -> list[str]:
    """Specs and .compose files, or continuations of an expression."""
    files = _files(incomplete, TARGET_SUFFIXES)
    if files and not set(incomplete) & set("(|=,"):
        return files
    from adaptcompose.catalogue.cards import Catalogue
    from adaptcompose.composition.completion import complete_for_shell
    from adaptcompose.resources import resource_folder

    cards = Catalogue.open(resource_folder("hub_cards"), Path("hub_cards"))
    return complete_for_shell(incomplete, cards)


def complete_backbone(incomplete: str) -> list[str]:
    """Folders with a config.json; if there are none, all folders to look into."""
    folders = _folders(incomplete)
    backbones = [folder for folder in folders if (Path(folder) / "config.json").is_file()]
    return backbones or [f"{folder}/" for folder in folders]


def complete_spec(incomplete: str) -> list[str]:
    """Specs."""
    return _files(incomplete, TARGET_SUFFIXES[:2])


def complete_key(incomplete: str) -> list[str]:
    """Keys of spec.yaml; after `=`, the choices or the default of the key."""
    from adaptcompose.experiment.spec.spec import spec_keys

    known = {key.path.replace("[]", "[0]"): key for key in spec_keys() if "*" not in key.path}
    path, mark, _ = incomplete.partition("=")
    if mark:
        values = _values(known[path]) if path in known else []
        settings = [f"{path}={value}" for value in values]
        return [setting for setting in settings if setting.startswith(incomplete)]
    matching = [key for key in known if key.startswith(incomplete)]
    if len(matching) != 1:
        return [f"{key}=" for key in matching]
    # given a single completion, a shell would start the next argument
    key = matching[0]
    return [f"{key}={value}" for value in ("", *(_values(known[key]) or ["…"]))]


def _values(key: KeyDoc) -> list[str]:
    from adaptcompose.syntax.signature import format_value

    if key.kind.startswith("one of "):
        return key.kind.removeprefix("one of ").split(", ")
    if key.kind == "true or false":
        return ["true", "false"]
    return [] if key.default in (None, "", (), {}) else [format_value(key.default)]


def complete_kind(incomplete: str) -> list[str]:
    """Kinds of task."""
    from adaptcompose.tasks.metrics import supported_kinds

    return [kind for kind in supported_kinds() if kind.startswith(incomplete)]


def complete_word(incomplete: str) -> list[str]:
    """The words that `explain` explains: codes of diagnostics, operators and methods."""
    from adaptcompose.composition.word_docs import describe_all_words
    from adaptcompose.diagnostics.codes import CODES

    known = [*CODES, *(page.word for page in describe_all_words())]
    return [word for word in known if word.startswith(incomplete)]


def _files(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Files with these endings, and folders with specs, whose paths begin with `incomplete`."""
    start = Path(incomplete if incomplete.endswith("/") else f"{incomplete}x").parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    if not start.is_dir():
        return []
    matching = []
    for path in sorted(start.iterdir()):
        name = f"{prefix}{path.name}"
        if not name.startswith(incomplete) or path.name.startswith("."):
            continue
        if path.suffix in endings:
            matching.append(name)
        elif path.is_dir() and incomplete and any(path.glob("*.yaml")):
            matching.append(f"{name}/")
    return matching


def _folders(incomplete: str) -> list[str]:
    start = Path(incomplete if incomplete.endswith("/") else f"{incomplete}x").parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    if not start.is_dir():
        return []
    names = (f"{prefix}{path.name}" for path in sorted(start.iterdir()) if path.is_dir())
    return [name for name in names if name.startswith(incomplete)]


def answer_bash(answer: Callable[[], int]) -> int:
    """Answer bash, which splits words at `=` and `:` and expects only the part after them.

    `answer` prints completions of whole words and returns an exit code.
    """
    words, current = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    joined, fixed = join_words(words[: current + 1])
    if len(words) > current:
        os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(len(joined) - 1)}
    try:
        with redirect_stdout(io.StringIO()) as out:
            return answer()
    finally:
        print(*(line.removeprefix(fixed) for line in out.getvalue().splitlines()), sep="\n")


def join_words(words: list[str]) -> tuple[list[str], str]:
    """The words as they were typed, and the part of the last one that bash does not replace.

    >>> join_words(["run", "--set", "train.schedule", "=", "li"])
    (['run', '--set', 'train.schedule=li'], 'train.schedule=')
    """
    joined: list[str] = []
    fixed, after_mark = "", False
    for word in words:
        is_mark = word != "" and set(word) <= {"=", ":"}
        fixed = joined.pop() if joined and (is_mark or after_mark) else ""
        joined.append(fixed + word)
        fixed, after_mark = joined[-1] if is_mark else fixed, is_mark
    return joined, fixed
