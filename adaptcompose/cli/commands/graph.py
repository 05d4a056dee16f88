"""`adaptcompose graph`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import (
    BackboneOption,
    HubOption,
    KnownAsOption,
    OverridesOption,
    TargetArgument,
    app,
    is_spec_target,
)
from adaptcompose.cli.inputs import check_expression, prepare_target
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    from adaptcompose.backbones.layout import Facts
    from adaptcompose.composition.graph import Block


@app.command()
def graph(
    target: TargetArgument,
    backbone: BackboneOption = None,
    known_as: KnownAsOption = None,
    hub: HubOption = None,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Draw as Mermaid text.")] = False,
    as_dot: Annotated[bool, typer.Option("--dot", help="Draw as DOT text for Graphviz.")] = False,
    as_svg: Annotated[bool, typer.Option("--svg", help="Draw as an SVG picture.")] = False,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Draw only what runs in this layer.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write to this file instead of standard output."),
    ] = None,
    overrides: OverridesOption = None,
) -> None:
    """Draw a composition: in the terminal, as Mermaid or DOT text, or as an SVG picture."""
    if as_mermaid + as_dot + as_svg > 1:
        raise typer.BadParameter("choose one of --mermaid, --dot and --svg")
    form = "mermaid" if as_mermaid else "dot" if as_dot else "svg" if as_svg else "text"
    graphs = _graphs(target, backbone, hub, overrides, known_as)
    drawings = [_render(form, block, facts, layer) for block, facts in graphs.values()]
    if form == "svg" and len(drawings) > 1:
        raise typer.BadParameter(
            "a picture shows one composition; choose one of the sweep with --set"
        )
    text = "\n\n".join(drawings)
    if out is None:
        print(text)
    else:
        write_atomically(out, f"{text}\n")


def _graphs(
    target: str,
    backbone: str | None,
    hub: str | None,
    overrides: list[str] | None,
    known_as: str | None,
) -> dict[str, tuple[Block, Facts | None]]:
    """The distinct compositions of a target by canonical text: several for a sweep, else one."""
    from adaptcompose.composition.canonical_text import format_canonical

    if is_spec_target(target, backbone, hub, overrides, known_as):
        runs = prepare_target(target, overrides)
        return {format_canonical(run.graph): (run.graph, run.facts) for run in runs}
    checked, base, _ = check_expression(target, backbone, hub, known_as)
    block = checked.raise_errors()
    return {"": (block, base.backbone)}


def _render(form: str, block: Block, facts: Facts | None, layer: int | None) -> str:
    from adaptcompose.composition.drawing.terminal import render_terminal

    if layer is not None:
        if facts is None or layer >= facts.layers:
            why = f"the layers are 0..{facts.layers - 1}" if facts else "add --backbone"
            raise typer.BadParameter(why, param_hint="--layer")
        block, facts = block.in_layer(facts, layer), None
    if form == "mermaid":
        from adaptcompose.composition.drawing.mermaid import render_mermaid

        return render_mermaid(block, facts)
    if form == "dot":
        from adaptcompose.composition.drawing.dot import render_dot

        return render_dot(block, facts)
    if form == "svg":
        from adaptcompose.composition.drawing.svg import render_svg

        return render_svg(block, facts)
    return render_terminal(block, facts)
