"""The command line: read arguments, call one function, print.

Exit codes: 0 fine · 1 problems in what you wrote · 2 usage or an error of ours · 3 the hub cannot
be reached or refuses · 4 a run failed · 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from adaptcompose.language.codes import AC425, AC607, AC999
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source, errors, render
from adaptcompose.version import __version__

if TYPE_CHECKING:
    from adaptcompose.compiler.plan import Plan
    from adaptcompose.compiler.program import Program
    from adaptcompose.language.check import Checked, Context
    from adaptcompose.terminal import Terminal
    from adaptcompose.work.prepare import Prepared

PROBLEMS, INTERNAL, HUB, RUN, INTERRUPTED = 1, 2, 3, 4, 130
_USAGE: Any = typer.BadParameter.__mro__[2]  # click's exception, wherever typer keeps its click
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

app = typer.Typer(
    help=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=(__doc__ or "").partition("\n\n")[2],
)

Target = Annotated[str, typer.Argument(help="an expression, a spec.yaml, a .compose file, or -")]
Base = Annotated[str | None, typer.Option(help="backbone: a folder or a repository")]
Hub = Annotated[str | None, typer.Option(help="hf, the default, or the folder of a hub")]
Form = Annotated[Literal["text", "json"], typer.Option("--format")]


@app.command()
def check(
    target: Target,
    backbone: Base = None,
    hub: Hub = None,
    form: Annotated[Literal["text", "json", "github"], typer.Option("--format")] = "text",
) -> None:
    """Say everything that is wrong with an expression or a spec; nothing is downloaded."""
    found = _diagnostics(target, backbone, hub)
    if form != "text" or found:
        print(render(found, form))
    if errors(found):
        raise typer.Exit(_exit_code(found))
    if form == "text" and not found:
        print("fine")


def _diagnostics(target: str, backbone: str | None, hub: str | None) -> list[Diagnostic]:
    try:
        if _is_spec(target, backbone, hub):
            from adaptcompose.work.prepare import check_spec
            from adaptcompose.work.spec import read_spec

            return check_spec(read_spec(Path(target)), Path(target))
        return list(_checked(target, backbone, hub)[0].diagnostics)
    except Failed as failed:
        return list(failed.diagnostics)


def _checked(target: str, backbone: str | None, hub: str | None) -> tuple[Checked, Context, Path]:
    """An expression as far as text, catalogue and config.json tell."""
    from adaptcompose.language.check import check as check_source
    from adaptcompose.language.public import context

    source, root = _expression(target)
    base = context(backbone, root, hub or "hf")
    return check_source(source, base), base, root


@app.command()
def plan(
    target: Target,
    backbone: Base = None,
    hub: Hub = None,
    form: Form = "text",
    program: Annotated[bool, typer.Option(help="print the program after each pass")] = False,
) -> None:
    """Show what would be loaded, created and trained; no weights are read."""
    if _is_spec(target, backbone, hub):
        prepared = _prepare(target)
        found, notes = prepared.plan(), list(prepared.notes)
    elif backbone is None:
        raise typer.BadParameter("a plan needs a backbone", param_hint="--backbone")
    else:
        found, notes = _plan(target, backbone, hub)
    if form == "json":
        print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
        return
    _say(notes)
    print(found)
    if program:
        _print_program(found.program)


def _plan(target: str, backbone: str, hub: str | None) -> tuple[Plan, list[Diagnostic]]:
    from adaptcompose.compiler.plan import make_plan
    from adaptcompose.hub.resolve import Sources, resolve
    from adaptcompose.language.check import verify
    from adaptcompose.language.heads import head_of

    checked, base, root = _checked(target, backbone, hub)
    graph, facts = checked.raise_errors(), base.backbone
    assert facts is not None
    resolved = resolve(graph, facts, Sources(hub or "hf", root))
    if problems := errors(verify(resolved.graph, facts)):
        raise Failed(problems)
    head, notes = head_of(resolved.graph), [*checked.diagnostics, *resolved.notes]
    return make_plan(resolved.graph, facts, head=head, expression=str(checked.tree)), notes


def _prepare(target: str) -> Prepared:
    from adaptcompose.work.prepare import prepare
    from adaptcompose.work.spec import read_spec

    path = Path(target)
    return prepare(read_spec(path), path)


def _print_program(program: Program) -> None:
    from adaptcompose.compiler.passes import stages

    before = None
    for name, after in stages(program):
        print(f"\n{name}: {after.multiplications():,} multiplications a token")
        print("  unchanged" if after == before else after)
        before = after


@app.command()
def graph(
    target: Target,
    backbone: Base = None,
    hub: Hub = None,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Mermaid text instead")] = False,
) -> None:
    """Draw a composition."""
    from adaptcompose.language.draw import draw
    from adaptcompose.language.mermaid import mermaid

    if _is_spec(target, backbone, hub):
        prepared = _prepare(target)
        block, facts = prepared.graph, prepared.facts
    else:
        checked, base, _ = _checked(target, backbone, hub)
        block, facts = checked.raise_errors(), base.backbone  # type: ignore[assignment]
    print(mermaid(block, facts) if as_mermaid else draw(block, facts))


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="a spec.yaml")],
    fresh: Annotated[bool, typer.Option("--fresh", help="train again what is done")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print the report only")] = False,
    form: Form = "text",
) -> None:
    """Do everything that a spec says: lock, plan, train, evaluate, predict, report, publish."""
    from adaptcompose.terminal import Terminal

    prepared = _prepare(str(spec))
    found, notes = prepared.plan(), [*prepared.notes, *prepared.read()]
    terminal = Terminal(quiet=quiet or form == "json")
    _say(notes)
    if not terminal.quiet:
        print(f"{found}\n")
    folder = Path("runs") / prepared.spec.name
    try:
        result = _run(prepared, found, folder, terminal, fresh)
    except OSError as error:
        why, path = error.strerror or str(error), error.filename or folder
        print(AC425.at(path=path, why=why), file=sys.stderr)
        raise typer.Exit(RUN) from error
    finally:
        terminal.close()
    if form == "json":
        print(json.dumps(result, indent=2, ensure_ascii=False, default=str))
        return
    if "published" in result:
        print(f"published {result['published']['repo']}@{result['published']['revision'][:7]}")
    print(f"report: {folder / 'report.json'}")


def _run(
    prepared: Prepared, plan: Plan, folder: Path, terminal: Terminal, fresh: bool
) -> dict[str, Any]:
    """Nothing is written before everything that the run reads was opened."""
    from adaptcompose.terminal import hush
    from adaptcompose.work.prepare import lock_path

    hush()
    from adaptcompose.work.run import Run

    made = Run(prepared, plan, folder, terminal, fresh=fresh)
    prepared.lock.write(lock_path(prepared.path))
    return made.run()


@app.command()
def predict(
    target: Annotated[
        str, typer.Argument(help="a published composition, a run, a spec or an expression")
    ],
    text: Annotated[list[str], typer.Option("--text", "-t", help="a text; several times for more")],
    backbone: Base = None,
    hub: Hub = None,
    form: Form = "text",
) -> None:
    """Run a composition on texts."""
    from adaptcompose.terminal import hush
    from adaptcompose.work.answer import answer

    hush()

    records = answer(target, text, backbone=backbone, hub=hub)
    if form == "json":
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    for record in records:
        print(record["shown"])


@app.command()
def pull(
    ref: Annotated[str, typer.Argument(help="user/repo@revision of a published composition")],
    folder: Annotated[Path | None, typer.Argument(help="where to; else its name here")] = None,
    hub: Hub = None,
) -> None:
    """Fetch a published composition, verified, into a folder."""
    from adaptcompose.work.pull import pull as pull_folder

    place = pull_folder(ref, folder, hub or "hf")
    print(f"{ref} is in {place}")


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _is_spec(target: str, backbone: str | None, hub: str | None) -> bool:
    if not target.endswith((".yaml", ".yml")):
        return False
    for name, given in (("backbone", backbone), ("hub", hub)):
        if given is not None:
            raise typer.BadParameter(f"the spec says its {name}", param_hint=f"--{name}")
    return True


def _expression(target: str) -> tuple[Source, Path]:
    """The expression itself, and the folder at which `./` starts in it."""
    if target == "-":
        return Source(sys.stdin.read(), "<stdin>"), Path()
    if target.endswith(".compose"):
        path = Path(target)
        if not path.is_file():
            raise Failed(AC607.at(path=target, root=Path.cwd()))
        return Source(path.read_text("utf-8"), target), path.parent
    return Source(target), Path()


def _say(notes: Any) -> None:
    for note in notes:
        print(f"{note}\n", file=sys.stderr)


def _exit_code(found: list[Diagnostic]) -> int:
    return HUB if any(one.code in _HUB_CODES for one in errors(found)) else PROBLEMS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; users' mistakes become messages, errors of ours one sentence."""
    for stream in (sys.stdout, sys.stderr):
        # a text may hold characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = int(app(arguments, prog_name="adaptcompose", standalone_mode=False) or 0)
        # some versions of typer have caught the interrupt themselves
        return _interrupted() if code == INTERRUPTED else code
    except Failed as failed:
        print(failed, file=sys.stderr)
        return _exit_code(list(failed.diagnostics))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except _USAGE as error:
        error.show()
        return INTERNAL
    except SystemExit as left:  # who read the output has gone, as in `adaptcompose graph … | head`
        return int(left.code or 0)
    except Exception as error:
        if os.environ.get("ADAPTCOMPOSE_DEBUG"):
            raise
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(AC999.at(why=why), file=sys.stderr)
        return INTERNAL


def _interrupted() -> int:
    print("interrupted; run the same command again to go on", file=sys.stderr)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
