"""The names of activations that are checked are those that transformers knows."""

from __future__ import annotations

from transformers.activations import ACT2FN

from adaptcompose.methods.activations import ACTIVATIONS, unknown


def test_every_activation_of_transformers_is_known() -> None:
    assert set(ACT2FN) == ACTIVATIONS


def test_a_slip_is_told_with_the_nearest_name() -> None:
    (found,) = unknown("relu", None, "gleu")
    assert (found.code, found.help) == ("AC212", "did you mean `gelu`?")
