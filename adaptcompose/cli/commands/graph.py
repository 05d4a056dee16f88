"""`adaptcompose graph`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptcompose.cli.app import Base, Hub, KnownAs, Set, Target, app, is_spec
from adaptcompose.cli.inputs import checked_expression, prepared_specs
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    from adaptcompose.backbones.layout import Facts
    from adaptcompose.composition.graph import Block


@app.command()
def graph(
    target: Target,
    backbone: Base = None,
    known_as: KnownAs = None,
    hub: Hub = None,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Mermaid text")] = False,
    as_dot: Annotated[bool, typer.Option("--dot", help="text for Graphviz")] = False,
    as_svg: Annotated[bool, typer.Option("--svg", help="a picture")] = False,
    layer: Annotated[int | None, typer.Option(min=0, help="what stands in this layer")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a file instead")] = None,
    overrides: Set = None,
) -> None:
    """Draw a composition: for the terminal, as Mermaid or DOT text, or as an SVG picture."""
    if as_mermaid + as_dot + as_svg > 1:
        raise typer.BadParameter("choose one of --mermaid, --dot and --svg")
    form = "mermaid" if as_mermaid else "dot" if as_dot else "svg" if as_svg else "text"
    graphs = _graphs(target, backbone, hub, overrides, known_as)
    drawings = [_drawn(form, *one, layer) for one in graphs.values()]
    if form == "svg" and len(drawings) > 1:
        raise typer.BadParameter("a picture shows one composition; --set chooses one of the sweep")
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
    """The compositions of a sweep that differ, or the one that there is."""
    from adaptcompose.composition.canonical import canonical

    if is_spec(target, backbone, hub, overrides, known_as):
        specs = prepared_specs(target, overrides)
        return {canonical(one.graph): (one.graph, one.facts) for one in specs}
    checked, base, _ = checked_expression(target, backbone, hub, known_as)
    block = checked.raise_errors()
    return {"": (block, base.backbone)}


def _drawn(form: str, block: Block, facts: Facts | None, layer: int | None) -> str:
    from adaptcompose.composition.drawing.terminal import draw, in_layer

    if layer is not None:
        if facts is None or layer >= facts.layers:
            known = f"0..{facts.layers - 1}" if facts else "known with --backbone only"
            raise typer.BadParameter(f"layers are {known}", param_hint="--layer")
        block, facts = in_layer(block, facts, layer), None
    if form == "mermaid":
        from adaptcompose.composition.drawing.mermaid import mermaid

        return mermaid(block, facts)
    if form == "dot":
        from adaptcompose.composition.drawing.dot import dot

        return dot(block, facts)
    if form == "svg":
        from adaptcompose.composition.drawing.svg import svg

        return svg(block, facts)
    return draw(block, facts)
