"""The spec that `adaptcompose new` writes: known keys are filled in, optional ones are comments.

>>> answers = StarterAnswers("demo", "demo/base", "stack(lang=en, task=ner)")
>>> print(format_starter(answers).splitlines()[1])
spec: 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptcompose.diagnostics.codes import AC420, AC426
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.spec.schema import MODELINE
from adaptcompose.resolution.manifest import FILE, Manifest
from adaptcompose.resolution.sources import Sources
from adaptcompose.storage.yaml_source import dump_yaml
from adaptcompose.syntax.formatting import as_yaml_scalar
from adaptcompose.syntax.parser import parse_tree
from adaptcompose.syntax.references import parse_ref


@dataclass(frozen=True)
class StarterAnswers:
    """What you answered; `files` maps splits to data files.

    For a spec that starts from a published composition, `published_expression` is its expression,
    and `head` is the value of `task.head`.
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
    published_expression: str = ""


def starter_from_published(reference: str, answers: StarterAnswers) -> StarterAnswers:
    """Complete answers with the manifest of a published composition; given answers win.

    Raises AC420 if the reference is neither a repository nor a folder, AC426 if there is no
    composition in it.
    """
    ref, sources = parse_ref(reference, ()), Sources(answers.hub or "hf", Path())
    if ref.kind not in ("hub", "local"):
        raise Failed(AC420.at(name=reference))
    pin = sources.pin(ref)
    if FILE not in pin.files:
        raise Failed(AC426.at(name=reference))
    manifest = Manifest.load(sources.fetch(ref, pin, [FILE]), reference)
    backbone, head = manifest.backbone, manifest.heads().get("", "")
    kind = str(manifest.task.get("kind", "")) if head != "none" else ""
    return replace(
        answers,
        backbone=answers.backbone or backbone.get("model", "") or backbone.get("as", ""),
        known_as=backbone.get("as") if answers.backbone or "model" in backbone else None,
        compose=answers.compose or str(ref),
        kind=answers.kind or kind or None,
        head="of-backbone" if head == "backbone" else None,
        description=manifest.description,
        published_expression=manifest.expression,
    )


def format_starter(start: StarterAnswers) -> str:
    """The text of the spec. Raises Failed if `compose` is not a valid expression."""
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
    if start.published_expression:
        yield f"# published as {' '.join(start.published_expression.split())}"
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
    """Sections `train` and `evaluate`; as comments if the data for them are not known yet."""
    trains = (
        "" if start.kind and "train" in start.files and not start.published_expression else "# "
    )
    scores = "" if start.kind and {"test", "validation"} & start.files.keys() else "# "
    yield f"{trains}train:"
    for line in ("data: examples", "epochs: 3", "batch: 16", "lr: 1e-4", "seeds: [0, 1, 2]"):
        yield f"{trains}  {line}"
    yield ""
    yield f"{scores}evaluate:"
    yield f"{scores}  - {{name: as trained, data: examples}}"


def _entry(key: str, value: str | Mapping[str, Any]) -> str:
    return dump_yaml({key: value}).rstrip("\n")
