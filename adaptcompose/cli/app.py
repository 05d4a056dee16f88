"""The typer app, and what its commands share: arguments, the groups of the help, exit codes."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from adaptcompose.cli.completion import complete_backbone, complete_key, complete_target
from adaptcompose.cli.inputs import SPEC_SUFFIXES
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
Exit codes: 0 success · 1 problems in your input · 2 wrong usage or an internal error · 3 the hub
cannot be reached or refuses the request · 4 a run failed · 5 the plan differs from the last run
(--detailed-exitcode) · 130 interrupted · 141 the output pipe was closed.
"""

GROUPS = {
    "write": ("new", "check", "fmt", "graph", "explain", "schema"),
    "resolve": ("search", "show", "lock", "plan"),
    "run": ("run", "train", "eval", "predict", "serve"),
    "share": ("pull", "push", "publish", "report", "diff"),
    "maintain": ("cache", "doctor", "hf-extension"),
}


class OrderedCommands(TyperGroup):
    """Lists the commands by group, in the order in which you use them."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = [name for names in GROUPS.values() for name in names]
        known = super().list_commands(ctx)
        return sorted(known, key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        known = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        in_groups = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in known if name not in in_groups)
        for title, names in {**GROUPS, "more": others}.items():
            commands = [(name, known.get(name)) for name in names]
            rows = [(name, each.get_short_help_str(90)) for name, each in commands if each]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    cls=OrderedCommands,
    help=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
)

TargetArgument = Annotated[
    str,
    typer.Argument(
        help="An expression, a spec.yaml, a .compose file, or - for standard input.",
        autocompletion=complete_target,
    ),
]
BackboneOption = Annotated[
    str | None,
    typer.Option(help="The backbone: a folder or a repository.", autocompletion=complete_backbone),
]
KnownAsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="REPO",
        help="The name of the backbone on the Hub, if --backbone is a folder.",
        autocompletion=complete_backbone,
    ),
]
HubOption = Annotated[
    str | None, typer.Option(help="The hub: hf (the default), a URL or a folder.")
]
FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Output for people or for programs.")
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the spec, as in train.lr=5e-5. Can be repeated.",
        autocompletion=complete_key,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]


@app.callback(invoke_without_command=True)
def global_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    color: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="Use colours. With auto, on a terminal unless NO_COLOR is set."),
    ] = "auto",
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Use only what is in the cache of the Hub, in any command."),
    ] = False,
) -> None:
    choose_colour(color)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it when it is imported
    if version:
        print(__version__)
        raise typer.Exit


def is_spec_target(
    target: str,
    backbone: str | None,
    hub: str | None,
    overrides: list[str] | None = None,
    known_as: str | None = None,
) -> bool:
    """Whether a target is a spec. Raises a usage error for options that do not apply to it."""
    if not target.endswith(SPEC_SUFFIXES):
        if overrides:
            raise typer.BadParameter("use it with a spec only", param_hint="--set")
        if known_as is not None and backbone is None:
            raise typer.BadParameter("use it together with --backbone", param_hint="--as")
        return False
    for name, value in (("backbone", backbone), ("hub", hub), ("as", known_as)):
        if value is not None:
            raise typer.BadParameter(
                f"set `{'backbone.as' if name == 'as' else name}` in the spec instead",
                param_hint=f"--{name}",
            )
    return True
