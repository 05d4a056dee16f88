"""`adaptcompose new`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Quiet, app
from adaptcompose.cli.completion import complete_backbone, complete_kind, complete_target
from adaptcompose.cli.inputs import hint
from adaptcompose.diagnostics.codes import AC422
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    from adaptcompose.experiment.spec.starter import Start

COMPOSE = "stack(lang=en, task=pfeiffer(reduction=16))"

Kind = Annotated[
    str | None,
    typer.Option(help="a kind of task: text-classification", autocompletion=complete_kind),
]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="lower-case letters, digits and -: the run's name")],
    backbone: Annotated[
        str | None,
        typer.Option(help="a folder or a repository", autocompletion=complete_backbone),
    ] = None,
    compose: Annotated[
        str | None, typer.Option(help="the composition", autocompletion=complete_target)
    ] = None,
    task: Kind = None,
    train: Annotated[str | None, typer.Option(help="a file of training data")] = None,
    validation: Annotated[str | None, typer.Option(help="a file of validation data")] = None,
    test: Annotated[str | None, typer.Option(help="a file of test data")] = None,
    hub: Annotated[str | None, typer.Option(help="hf, the default, or the folder of a hub")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="a published composition to go on with")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a spec to start from, <name>.yaml, and its JSON Schema for editors beside it.

    On a terminal what is not given is asked for.
    """
    from adaptcompose.experiment.spec.origin import start_from
    from adaptcompose.experiment.spec.starter import Start, starter

    path = Path(f"{name}.yaml")
    _check_name(name)
    if path.exists():
        raise Failed(AC422.at(path=path))
    given = {"train": train, "validation": validation, "test": test}
    files = {split: file for split, file in given.items() if file}
    start = Start(name, backbone or "", compose or "", task, hub, files)
    start = _answered(start_from(source, start) if source else start)
    _check_kind(start.kind)
    write_atomically(path, starter(start))
    _write_schema()
    if not quiet:
        print(f"{path} written")
    hint("check", str(path), quiet=quiet)


def _answered(start: Start) -> Start:
    """With answers to what is not known yet."""
    kind = start.kind
    if kind is None and start.files:
        kind = _ask("kind of task", "text-classification")
    backbone = start.backbone or _ask("backbone", "FacebookAI/xlm-roberta-base")
    compose = start.compose or _ask("composition", COMPOSE)
    return replace(start, backbone=backbone, compose=compose, kind=kind)


def _write_schema() -> None:
    """The schema that the first line of the spec names, unless there is one."""
    from adaptcompose.experiment.spec.schema import FILE, schema

    if not Path(FILE).exists():
        text = json.dumps(schema(), indent=2, ensure_ascii=False)
        write_atomically(Path(FILE), f"{text}\n")


def _ask(what: str, default: str) -> str:
    """The answer of whoever sits there, or the default where nobody does."""
    if sys.stdin is None or not sys.stdin.isatty():
        return default
    return str(typer.prompt(what, default=default, err=True))


def _check_name(name: str) -> None:
    from adaptcompose.experiment.spec.sections import NAME

    if not NAME.fullmatch(name):
        words = "lower-case letters, digits and single `-`"
        raise typer.BadParameter(f"a name is made of {words}", param_hint="NAME")


def _check_kind(kind: str | None) -> None:
    from adaptcompose.tasks.metrics import supported_kinds

    known = supported_kinds()
    if kind is not None and kind not in known:
        raise typer.BadParameter(f"one of {', '.join(known)}", param_hint="--task")
