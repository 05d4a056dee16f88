"""What commands share: the app, their common arguments, exit codes, and what a target means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from adaptcompose.language.codes import AC607
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source, errors
from adaptcompose.version import __version__

if TYPE_CHECKING:
    from adaptcompose.language.check import Checked, Context
    from adaptcompose.work.prepare import Prepared

PROBLEMS, INTERNAL, HUB, RUN, INTERRUPTED = 1, 2, 3, 4, 130
_HUB_CODES = {"AC404", "AC405", "AC419"}

EXAMPLES = """\
Compose adapters on a frozen language model: one line, compiled.

\b
adaptcompose check 'stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=5)'
adaptcompose plan examples/quickstart.yaml
adaptcompose run examples/quickstart.yaml
adaptcompose predict demo/sw-ner --hub examples/demo/hub --text 'Amina anaishi Mombasa'
adaptcompose pull demo/sw-ner --hub examples/demo/hub
"""

EXIT_CODES = """\
Exit codes: 0 fine · 1 problems in what you wrote · 2 usage or an error of ours · 3 the hub cannot
be reached or refuses · 4 a run failed · 130 interrupted.
"""

app = typer.Typer(
    help=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
)

Target = Annotated[str, typer.Argument(help="an expression, a spec.yaml, a .compose file, or -")]
Base = Annotated[str | None, typer.Option(help="backbone: a folder or a repository")]
Hub = Annotated[str | None, typer.Option(help="hf, the default, or the folder of a hub")]
Form = Annotated[Literal["text", "json"], typer.Option("--format")]


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def is_spec(target: str, backbone: str | None, hub: str | None) -> bool:
    if not target.endswith((".yaml", ".yml")):
        return False
    for name, given in (("backbone", backbone), ("hub", hub)):
        if given is not None:
            raise typer.BadParameter(f"the spec says its {name}", param_hint=f"--{name}")
    return True


def expression(target: str) -> tuple[Source, Path]:
    """The expression itself, and the folder at which `./` starts in it."""
    if target == "-":
        return Source(sys.stdin.read(), "<stdin>"), Path()
    if target.endswith(".compose"):
        path = Path(target)
        if not path.is_file():
            raise Failed(AC607.at(path=target, root=Path.cwd()))
        return Source(path.read_text("utf-8"), target), path.parent
    return Source(target), Path()


def checked_expression(
    target: str, backbone: str | None, hub: str | None
) -> tuple[Checked, Context, Path]:
    """An expression as far as text, catalogue and config.json tell."""
    from adaptcompose.language.check import check as check_source
    from adaptcompose.language.public import context

    source, root = expression(target)
    base = context(backbone, root, hub or "hf")
    return check_source(source, base), base, root


def prepared_spec(target: str) -> Prepared:
    from adaptcompose.work.prepare import prepare
    from adaptcompose.work.spec import read_spec

    path = Path(target)
    return prepare(read_spec(path), path)


def say(notes: Any) -> None:
    for note in notes:
        print(f"{note}\n", file=sys.stderr)


def exit_code(found: list[Diagnostic]) -> int:
    return HUB if any(one.code in _HUB_CODES for one in errors(found)) else PROBLEMS
