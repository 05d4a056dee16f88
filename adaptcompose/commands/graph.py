"""`adaptcompose graph`."""

from __future__ import annotations

from typing import Annotated

import typer

from adaptcompose.commands.app import (
    Base,
    Hub,
    Target,
    app,
    checked_expression,
    is_spec,
    prepared_spec,
)


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

    if is_spec(target, backbone, hub):
        prepared = prepared_spec(target)
        block, facts = prepared.graph, prepared.facts
    else:
        checked, base, _ = checked_expression(target, backbone, hub)
        block, facts = checked.raise_errors(), base.backbone  # type: ignore[assignment]
    print(mermaid(block, facts) if as_mermaid else draw(block, facts))
