"""`adaptcompose new`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import QuietOption, app
from adaptcompose.cli.completion import complete_backbone, complete_kind, complete_target
from adaptcompose.cli.inputs import print_next_command
from adaptcompose.diagnostics.codes import AC422
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    from adaptcompose.experiment.spec.starter import StarterAnswers

COMPOSE = "stack(lang=en, task=pfeiffer(reduction=16))"

TaskOption = Annotated[
    str | None,
    typer.Option(
        help="The kind of task, such as text-classification.", autocompletion=complete_kind
    ),
]


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="The name of the run: lower-case letters, digits and -.")
    ],
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The backbone: a folder or a repository.", autocompletion=complete_backbone
        ),
    ] = None,
    compose: Annotated[
        str | None, typer.Option(help="The composition.", autocompletion=complete_target)
    ] = None,
    task: TaskOption = None,
    train: Annotated[str | None, typer.Option(help="A file with training data.")] = None,
    validation: Annotated[str | None, typer.Option(help="A file with validation data.")] = None,
    test: Annotated[str | None, typer.Option(help="A file with test data.")] = None,
    hub: Annotated[
        str | None, typer.Option(help="The hub: hf (the default), a URL or a folder.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="A published composition to start from.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write a spec to start from, <name>.yaml, with its JSON Schema for editors.

    On a terminal, it asks for everything that you leave out.
    """
    from adaptcompose.experiment.spec.starter import (
        StarterAnswers,
        format_starter,
        starter_from_published,
    )

    path = Path(f"{name}.yaml")
    _check_name(name)
    if path.exists():
        raise Failed(AC422.at(path=path))
    splits = {"train": train, "validation": validation, "test": test}
    files = {split: file for split, file in splits.items() if file}
    start = StarterAnswers(name, backbone or "", compose or "", task, hub, files)
    start = _ask_missing(starter_from_published(source, start) if source else start)
    _check_kind(start.kind)
    write_atomically(path, format_starter(start))
    _write_schema()
    if not quiet:
        print(f"{path} written")
    print_next_command("check", str(path), quiet=quiet)


def _ask_missing(start: StarterAnswers) -> StarterAnswers:
    """The answers, completed by asking for those that are missing."""
    kind = start.kind
    if kind is None and start.files:
        kind = _ask("kind of task", "text-classification")
    backbone = start.backbone or _ask("backbone", "FacebookAI/xlm-roberta-base")
    compose = start.compose or _ask("composition", COMPOSE)
    return replace(start, backbone=backbone, compose=compose, kind=kind)


def _write_schema() -> None:
    """Write the JSON Schema that the first line of the spec names, unless it exists."""
    from adaptcompose.experiment.spec.schema import SCHEMA_FILE, build_schema

    if not Path(SCHEMA_FILE).exists():
        text = json.dumps(build_schema(), indent=2, ensure_ascii=False)
        write_atomically(Path(SCHEMA_FILE), f"{text}\n")


def _ask(question: str, default: str) -> str:
    """The answer of the user, or the default if standard input is not a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return default
    return str(typer.prompt(question, default=default, err=True))


def _check_name(name: str) -> None:
    from adaptcompose.experiment.spec.sections import NAME_PATTERN

    if not NAME_PATTERN.fullmatch(name):
        words = "lower-case letters, digits and single `-`"
        raise typer.BadParameter(f"use {words}", param_hint="NAME")


def _check_kind(kind: str | None) -> None:
    from adaptcompose.tasks.metrics import supported_kinds

    known = supported_kinds()
    if kind is not None and kind not in known:
        raise typer.BadParameter(f"use one of {', '.join(known)}", param_hint="--task")
