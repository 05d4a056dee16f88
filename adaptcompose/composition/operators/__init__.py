"""Every operator of the language, a module each: its fields are its arguments.

Laws stand in the docstrings; tests hold them on random compositions.
"""

from __future__ import annotations

import importlib
import pkgutil

from adaptcompose.composition.operators.average import irreversible
from adaptcompose.composition.operators.branches import Branches, branch_of, misplaced
from adaptcompose.composition.operators.fuse import Fuse, fusions, parts_of
from adaptcompose.composition.operators.layers import Drop, Keep, Restriction
from adaptcompose.composition.operators.prune import Prune
from adaptcompose.composition.operators.stack import Stack, flatten, slots
from adaptcompose.composition.operators.swap import Swap
from adaptcompose.composition.operators.training import Training, learning, marks, named_parts

__all__ = [
    "Branches",
    "Drop",
    "Fuse",
    "Keep",
    "Prune",
    "Restriction",
    "Stack",
    "Swap",
    "Training",
    "branch_of",
    "flatten",
    "fusions",
    "irreversible",
    "learning",
    "marks",
    "misplaced",
    "named_parts",
    "parts_of",
    "slots",
]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
