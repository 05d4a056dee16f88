"""The operators of the language, one module each; the fields of an operator are its arguments.

The docstrings state the laws of the operators, which tests check on random compositions.
"""

from __future__ import annotations

from adaptcompose.composition.operators.average import inversion_problems
from adaptcompose.composition.operators.branches import (
    BranchOperator,
    branch_of,
    branch_position_problems,
)
from adaptcompose.composition.operators.fuse import Fuse, fusions_of, parts_of
from adaptcompose.composition.operators.layers import Drop, Keep, LayerFilter
from adaptcompose.composition.operators.prune import Prune
from adaptcompose.composition.operators.stack import Stack, flatten, slot_names
from adaptcompose.composition.operators.swap import Swap
from adaptcompose.composition.operators.trainability import (
    Trainability,
    explicit_trainability,
    nameable_parts,
    trainable_parts,
)
from adaptcompose.registration import import_modules_of

__all__ = [
    "BranchOperator",
    "Drop",
    "Fuse",
    "Keep",
    "LayerFilter",
    "Prune",
    "Stack",
    "Swap",
    "Trainability",
    "branch_of",
    "branch_position_problems",
    "explicit_trainability",
    "flatten",
    "fusions_of",
    "inversion_problems",
    "nameable_parts",
    "parts_of",
    "slot_names",
    "trainable_parts",
]

import_modules_of(__name__, __path__)
