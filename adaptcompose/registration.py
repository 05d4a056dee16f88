"""Importing the modules of a package, so that they register what they define."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable


def import_modules_of(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, in alphabetical order.

    A package whose modules register methods, operators, layouts or commands calls this function in
    its `__init__` with its own `__name__` and `__path__`. A new module then needs no other line
    anywhere. What a module registers with is a `register_…` function or decorator of its kind.
    """
    for module in pkgutil.iter_modules(path, f"{package}."):
        importlib.import_module(module.name)
