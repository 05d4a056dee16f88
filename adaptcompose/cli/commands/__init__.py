"""The commands, one module each: importing a module of this folder registers its command."""

from __future__ import annotations

from adaptcompose.cli.app import app
from adaptcompose.registration import import_modules_of

import_modules_of(__name__, __path__)

__all__ = ["app"]
