"""What commands share: the app, their common arguments, exit codes, and what a target means."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from adaptcompose.cli.completion import complete_backbone, complete_key, complete_target
from adaptcompose.cli.inputs import SPECS
from adaptcompose.cli.terminal import choose_colour
from adaptcompose.version import __version__

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
be reached or refuses · 4 a run failed · 5 plan --detailed-exitcode: something would change ·
130 interrupted · 141 whoever read the output is gone.
"""

GROUPS = {
    "write": ("new", "check", "fmt", "graph", "explain", "schema"),
    "resolve": ("search", "show", "lock", "plan"),
    "run": ("run", "train", "eval", "predict", "serve"),
    "share": ("pull", "push", "publish", "report", "diff"),
    "care": ("cache", "doctor", "hf-extension"),
}


class Commands(TyperGroup):
    """The commands in the order in which one meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = [name for names in GROUPS.values() for name in names]
        known = super().list_commands(ctx)
        return sorted(known, key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        known = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        placed = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in known if name not in placed)
        for title, names in {**GROUPS, "more": others}.items():
            found = [(name, known.get(name)) for name in names]
            rows = [(name, one.get_short_help_str(90)) for name, one in found if one is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    cls=Commands,
    help=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
)

Target = Annotated[
    str,
    typer.Argument(
        help="an expression, a spec.yaml, a .compose file, or -", autocompletion=complete_target
    ),
]
Base = Annotated[
    str | None,
    typer.Option(help="backbone: a folder or a repository", autocompletion=complete_backbone),
]
KnownAs = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="REPO",
        help="what the backbone is on the Hub, if it is a folder",
        autocompletion=complete_backbone,
    ),
]
Hub = Annotated[str | None, typer.Option(help="hf, the default, or the folder of a hub")]
Form = Annotated[Literal["text", "json"], typer.Option("--format", help="for people or programs")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="another value for a key of the spec: train.lr=5e-5",
        autocompletion=complete_key,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print the result only")]


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    color: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="colours; auto: on a terminal, unless NO_COLOR is set"),
    ] = "auto",
    offline: Annotated[
        bool, typer.Option("--offline", help="nothing but the cache of the Hub, in any command")
    ] = False,
) -> None:
    choose_colour(color)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the client is imported
    if version:
        print(__version__)
        raise typer.Exit


def is_spec(
    target: str,
    backbone: str | None,
    hub: str | None,
    overrides: list[str] | None = None,
    known_as: str | None = None,
) -> bool:
    """Whether a target is a spec; usage errors for options that do not go with it."""
    if not target.endswith(SPECS):
        if overrides:
            raise typer.BadParameter("only a spec has keys to set", param_hint="--set")
        if known_as is not None and backbone is None:
            raise typer.BadParameter("it goes with --backbone", param_hint="--as")
        return False
    for name, given in (("backbone", backbone), ("hub", hub), ("as", known_as)):
        if given is not None:
            raise typer.BadParameter(f"the spec says its {name}", param_hint=f"--{name}")
    return True
