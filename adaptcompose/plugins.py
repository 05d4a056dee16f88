"""Installed packages that add methods, operators, layouts and hubs of their own.

A package says so in its metadata:

    [project.entry-points."adaptcompose.methods"]
    gain = "my_package.gain"            # a module whose classes stand under @method

The groups are `adaptcompose.methods`, `adaptcompose.operators`, `adaptcompose.layouts` and
`adaptcompose.hubs`. The first three name modules (or what is in one) that register themselves when
they are imported; an entry of the last one is called like the scheme it opens (`s3` for
`hub: s3://…`) and names a function of the hub's address and the spec's folder.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

PluginGroup = Literal["methods", "operators", "layouts", "hubs"]
PLUGIN_GROUPS: tuple[PluginGroup, ...] = ("methods", "operators", "layouts", "hubs")


@dataclass(frozen=True)
class Plugin:
    """One entry of a package: what it names, or why that cannot be imported."""

    group: PluginGroup
    name: str
    package: str
    target: Any = None
    error: str | None = None


_LOADED: dict[PluginGroup, list[Plugin]] = {}


def load_plugins(group: PluginGroup) -> list[Plugin]:
    """The entries of a kind; the first call imports them.

    A package that cannot be imported takes nothing from the others: its entry keeps the error.
    """
    if group not in _LOADED:
        _LOADED[group] = []  # a package that asks for the list while it is imported is not in it
        _LOADED[group] += [_load(group, entry) for entry in _entries(group)]
    return _LOADED[group]


def broken_plugins() -> list[Plugin]:
    """The entries that could not be imported so far."""
    return [one for found in _LOADED.values() for one in found if one.error is not None]


def _entries(group: PluginGroup) -> list[Any]:
    if os.environ.get("ADAPTCOMPOSE_PLUGINS") == "0" or not _is_any_installed():
        return []
    from importlib.metadata import entry_points

    return sorted(entry_points(group=f"adaptcompose.{group}"), key=lambda entry: entry.name)


def _load(group: PluginGroup, entry: Any) -> Plugin:
    package = entry.dist.name if entry.dist is not None else entry.module
    try:
        return Plugin(group, entry.name, package, entry.load())
    except Exception as error:  # whatever the code of others raises
        why = str(error).split("\n")[0]
        return Plugin(group, entry.name, package, error=f"{type(error).__name__}: {why}")


@cache
def _is_any_installed() -> bool:
    """Whether any installed package has an entry for us.

    Reading these small files takes a tenth of what importing importlib.metadata does, and nearly
    always the answer is no.
    """
    for folder in dict.fromkeys(sys.path):
        for metadata in Path(folder or ".").glob("*-info/entry_points.txt"):
            try:
                if "[adaptcompose." in metadata.read_text("utf-8", "replace"):
                    return True
            except OSError:
                continue
    return False
