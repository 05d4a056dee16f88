"""What the shell offers at the tab key: files, and words inside a quoted expression."""

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
"""The variable by which a shell asks."""
TARGET_SUFFIXES = (".yaml", ".yml", ".compose")


def complete_target(incomplete: str) -> list[str]:
    """Files that hold a composition, or how an expression goes on."""
    files = _files(incomplete, TARGET_SUFFIXES)
    if files and not set(incomplete) & set("(|=,"):
        return files
    from adaptcompose.catalogue.cards import Catalogue
    from adaptcompose.composition.completion import complete_for_shell
    from adaptcompose.resources import resource_folder

    cards = Catalogue.open(resource_folder("hub_cards"), Path("hub_cards"))
    return complete_for_shell(incomplete, cards)


def complete_backbone(incomplete: str) -> list[str]:
    """Folders with a config.json."""
    folders = _folders(incomplete)
    return [f"{folder}" for folder in folders if (Path(folder) / "config.json").is_file()] or [
        f"{folder}/" for folder in folders
    ]


def complete_spec(incomplete: str) -> list[str]:
    """Specs."""
    return _files(incomplete, TARGET_SUFFIXES[:2])


def complete_key(incomplete: str) -> list[str]:
    """Keys of spec.yaml, with their choices or their default behind `=`."""
    from adaptcompose.experiment.spec.spec import spec_keys

    known = {key.path.replace("[]", "[0]"): key for key in spec_keys() if "*" not in key.path}
    path, mark, _ = incomplete.partition("=")
    if mark:
        values = _values(known[path]) if path in known else []
        return [one for value in values if (one := f"{path}={value}").startswith(incomplete)]
    found = [one for one in known if one.startswith(incomplete)]
    if len(found) != 1:
        return [f"{one}=" for one in found]
    # a shell that has only one answer goes on with the next argument
    return [f"{found[0]}={value}" for value in ("", *(_values(known[found[0]]) or ["…"]))]


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
    """Codes of diagnostics, operators and methods: what `explain` explains."""
    from adaptcompose.composition.word_docs import describe_all_words
    from adaptcompose.diagnostics.codes import CODES

    known = [*CODES, *(page.word for page in describe_all_words())]
    return [word for word in known if word.startswith(incomplete)]


def _files(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Files with these endings, and folders to look into, that begin so."""
    start = Path(incomplete if incomplete.endswith("/") else f"{incomplete}x").parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    if not start.is_dir():
        return []
    found = []
    for path in sorted(start.iterdir()):
        name = f"{prefix}{path.name}"
        if not name.startswith(incomplete) or path.name.startswith("."):
            continue
        if path.suffix in endings:
            found.append(name)
        elif path.is_dir() and incomplete and any(path.glob("*.yaml")):
            found.append(f"{name}/")
    return found


def _folders(incomplete: str) -> list[str]:
    start = Path(incomplete if incomplete.endswith("/") else f"{incomplete}x").parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    if not start.is_dir():
        return []
    names = (f"{prefix}{path.name}" for path in sorted(start.iterdir()) if path.is_dir())
    return [name for name in names if name.startswith(incomplete)]


def answer_bash(answer: Callable[[], int]) -> int:
    """Answers for bash, which cuts words at `=` and `:` and wants to know what comes behind."""
    words, current = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    whole, done = join_words(words[: current + 1])
    if len(words) > current:
        os.environ |= {"COMP_WORDS": "\n".join(whole), "COMP_CWORD": str(len(whole) - 1)}
    try:
        with redirect_stdout(io.StringIO()) as out:
            return answer()
    finally:
        print(*(line.removeprefix(done) for line in out.getvalue().splitlines()), sep="\n")


def join_words(words: list[str]) -> tuple[list[str], str]:
    """The words as they were typed, and how much of the last one bash keeps as it is.

    >>> join_words(["run", "--set", "train.schedule", "=", "li"])
    (['run', '--set', 'train.schedule=li'], 'train.schedule=')
    """
    whole: list[str] = []
    done, cut = "", False
    for word in words:
        mark = word != "" and set(word) <= {"=", ":"}
        done = whole.pop() if whole and (mark or cut) else ""
        whole.append(done + word)
        done, cut = whole[-1] if mark else done, mark
    return whole, done
