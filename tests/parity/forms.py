"""A golden's composition in the forms that compute something of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedModel

from adaptcompose.compiler.lower import lower
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel


def forms(
    expression: str,
    backbone: PreTrainedModel,
    root: Path,
    head: str | None = "auto",
    *,
    literal: bool,
) -> Iterator[ComposedModel]:
    """As it is optimised, then, if `literal`, literally, where that is another program."""
    model = compose(expression, backbone, root=root, head=head)
    yield model
    if literal and lower(model.composition.graph, model.composition.facts) != model.program:
        yield compose(expression, backbone, root=root, head=head, optimise=False)
