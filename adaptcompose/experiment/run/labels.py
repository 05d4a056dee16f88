"""The combinations of a sweep as names of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from adaptcompose.experiment.spec.sections import Spec

_UNSAFE = re.compile(r"[^\w.+=,@-]+")


def combination_dir(variables: Mapping[str, str]) -> str:
    """A combination as the name of a folder.

    >>> combination_dir({"lr": "1e-4", "lang": "hf://x/y"})
    'lr=1e-4,lang=hf_x_y'
    """
    written = ",".join(f"{name}={value}" for name, value in variables.items())
    return _UNSAFE.sub("_", written).replace("..", "_")[:200]


def combination_dirs(specs: Sequence[Spec]) -> list[str]:
    """The folders of the combinations, each once."""
    found: list[str] = []
    for one in specs:
        label = combination_dir(one.variables)
        number = sum(other == label or other.startswith(f"{label}~") for other in found)
        found.append(f"{label}~{number + 1}" if number else label)
    return found
