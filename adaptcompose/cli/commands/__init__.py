"""The commands, one module each: importing a module of this folder registers its command."""

from __future__ import annotations

import importlib
import pkgutil

from adaptcompose.cli.app import app

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = ["app"]
