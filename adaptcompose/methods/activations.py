"""The names of the activations of transformers, to check them without importing it."""

from __future__ import annotations

from collections.abc import Iterator

from adaptcompose.diagnostics.codes import AC212
from adaptcompose.diagnostics.diagnostic import Diagnostic, suggest

ACTIVATIONS = frozenset(
    {
        *(
            "relu",
            "relu2",
            "relu6",
            "leaky_relu",
            "leakyrelu",
            "prelu",
            "sigmoid",
            "tanh",
            "linear",
        ),
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python"),
        *("gelu_python_tanh", "gelu_pytorch_tanh", "quick_gelu", "silu", "swish", "mish"),
        *("hardswish", "laplace", "sqrtsoftplus", "xielu"),
    }
)


def unknown_activations(*names: str | None) -> Iterator[Diagnostic]:
    """AC212 for every name that is not an activation."""
    for name in names:
        if name is not None and name not in ACTIVATIONS:
            yield AC212.at(name=name, help=suggest(name, sorted(ACTIVATIONS)))
