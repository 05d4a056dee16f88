"""A spec to start from: what is known is filled in, what may follow stands in comments.

>>> print(format_starter(StarterAnswers("demo", "demo/base", "stack(lang=en, task=ner)")).splitlines()[1])
spec: 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adaptcompose.experiment.spec.schema import MODELINE
from adaptcompose.storage.yaml_source import dump_yaml
from adaptcompose.syntax.formatting import as_yaml_scalar
from adaptcompose.syntax.parser import parse_tree


@dataclass(frozen=True)
class StarterAnswers:
    """The answers; `files` are the data by split.

    Of a published composition `replaced_backbone` is the expression, and `head` where its head is.
    """

    name: str
    backbone: str
    compose: str
    kind: str | None = None
    hub: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    known_as: str | None = None
    head: str | None = None
    description: str = ""
    replaced_backbone: str = ""


def format_starter(start: StarterAnswers) -> str:
    """The text of the spec; Failed if the expression is none."""
    return "\n".join(_lines(start)) + "\n"


def _lines(start: StarterAnswers) -> Iterator[str]:
    yield MODELINE
    yield "spec: 1"
    yield f"name: {start.name}"
    yield _entry("description", start.description or "One sentence that says what this is for.")
    yield ""
    if start.hub:
        yield _entry("hub", start.hub)
    known = {"model": start.backbone, "as": start.known_as}
    yield _entry("backbone", known if start.known_as else start.backbone)
    yield ""
    if start.replaced_backbone:
        yield f"# published as {' '.join(start.replaced_backbone.split())}"
    yield f"compose: {as_yaml_scalar(str(parse_tree(start.compose)))}"
    yield ""
    yield from _task(start)
    yield from _rows(start)
    yield ""
    yield "# publish:"
    yield f"#   repo: user/{start.name}"
    yield "#   license: apache-2.0"


def _task(start: StarterAnswers) -> Iterator[str]:
    if start.kind is None:
        yield "# task: {kind: token-classification}"
    else:
        head = f", head: {start.head}" if start.head else ""
        yield f"task: {{kind: {start.kind}{head}}}"
    yield ""
    if start.files:
        yield "data:"
        yield "  examples:"
        yield "    files:"
        yield from (f"      {_entry(split, path)}" for split, path in start.files.items())
    else:
        yield "# data:"
        yield "#   examples:"
        yield "#     files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}"
    yield ""


def _rows(start: StarterAnswers) -> Iterator[str]:
    """Training and evaluation, in comments where there is nothing to read yet."""
    trains = "" if start.kind and "train" in start.files and not start.replaced_backbone else "# "
    scores = "" if start.kind and {"test", "validation"} & start.files.keys() else "# "
    yield f"{trains}train:"
    for line in ("data: examples", "epochs: 3", "batch: 16", "lr: 1e-4", "seeds: [0, 1, 2]"):
        yield f"{trains}  {line}"
    yield ""
    yield f"{scores}evaluate:"
    yield f"{scores}  - {{name: as trained, data: examples}}"


def _entry(key: str, value: str | Mapping[str, Any]) -> str:
    return dump_yaml({key: value}).rstrip("\n")
