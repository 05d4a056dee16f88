"""The names of activations that are checked are those that can run."""

from __future__ import annotations

import pytest
from transformers.activations import ACT2FN

from adaptcompose.methods.activations import ACTIVATIONS, unknown_activations
from adaptcompose.runtime.ops.primitives import activation


def test_every_activation_of_transformers_is_known() -> None:
    assert set(ACT2FN) <= ACTIVATIONS


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_known_activation_can_run(name: str) -> None:
    assert callable(activation(name))


def test_a_slip_is_told_with_the_nearest_name() -> None:
    (found,) = unknown_activations("relu", None, "gleu")
    assert (found.code, found.help) == ("AC212", "did you mean `gelu`?")
