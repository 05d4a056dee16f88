"""How near an output has to be to its golden: in proportion to the golden's largest value.

The peers' environments read this module too, so it imports torch alone.
"""

from __future__ import annotations

from torch import Tensor

TOLERANCE = 1e-5
"""About eighty units of float32, relative to the largest value."""
FLOOR = 0.1
"""Values below it come out of states of order one, and have the rounding of those."""


def distance(found: Tensor, golden: Tensor) -> float:
    """The largest difference, divided by the golden's largest absolute value or by `FLOOR`.

    Processors, and numbers of threads, add the same products in another order, so the error of a
    sum grows with its terms and not with the one. A nan in either tensor gives nan, which is within
    no tolerance.

    Raises:
        ValueError: The shapes differ.
    """
    if found.shape != golden.shape:
        raise ValueError(f"shape {tuple(found.shape)}, not {tuple(golden.shape)}")
    return float((found - golden).abs().max() / golden.abs().max().clamp(min=FLOOR))
