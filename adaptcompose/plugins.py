"""Installed packages that add methods, operators, layouts and hubs of their own.

A package declares them as entry points:

    [project.entry-points."adaptcompose.methods"]
    gain = "my_package.gain"            # a module whose classes are decorated with @register_method

The groups are `adaptcompose.methods`, `adaptcompose.operators`, `adaptcompose.layouts` and
`adaptcompose.hubs`. Entries of the first three name a module, or an object in one, that registers
itself when it is imported. An entry of `adaptcompose.hubs` has the name of the scheme that it opens
(`s3` for `hub: s3://…`), and its target is a function of the hub's address and the spec's folder.

Set ADAPTCOMPOSE_PLUGINS=0 to load none of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

PluginGroup = Literal["methods", "operators", "layouts", "hubs"]
PLUGIN_GROUPS: tuple[PluginGroup, ...] = ("methods", "operators", "layouts", "hubs")


@dataclass(frozen=True)
class Plugin:
    """An entry point: its target, or the error that importing it raised."""

    group: PluginGroup
    name: str
    package: str
    target: Any = None
    error: str | None = None


_LOADED: dict[PluginGroup, list[Plugin]] = {}


def load_plugins(group: PluginGroup) -> list[Plugin]:
    """The plug-ins of a group, sorted by name; the first call imports them.

    A plug-in that cannot be imported does not affect the others: it is in the list with its error.
    """
    if group not in _LOADED:
        _LOADED[group] = []  # a plug-in may call this function while it is being imported
        _LOADED[group] += [_load(group, entry) for entry in _entries(group)]
    return _LOADED[group]


def broken_plugins() -> list[Plugin]:
    """The plug-ins of the groups loaded so far that could not be imported."""
    return [plugin for group in _LOADED.values() for plugin in group if plugin.error is not None]


def _entries(group: PluginGroup) -> list[Any]:
    if os.environ.get("ADAPTCOMPOSE_PLUGINS") == "0":
        return []
    from importlib.metadata import entry_points  # 20 ms that `import adaptcompose` does not need

    return sorted(entry_points(group=f"adaptcompose.{group}"), key=lambda entry: entry.name)


def _load(group: PluginGroup, entry: Any) -> Plugin:
    package = entry.dist.name if entry.dist is not None else entry.module
    try:
        return Plugin(group, entry.name, package, entry.load())
    except Exception as error:  # code of other people can raise anything
        why = str(error).split("\n")[0]
        return Plugin(group, entry.name, package, error=f"{type(error).__name__}: {why}")
