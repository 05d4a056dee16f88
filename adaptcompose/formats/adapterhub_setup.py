"""AdapterHub's setups: a composition, with its adapters, fusions and heads in subfolders.

A setup becomes the expression that you would write for the same composition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from adaptcompose.syntax.literals import quote
from adaptcompose.syntax.references import is_safe_path
from adaptcompose.syntax.signature import format_value

SETUP = "adapter_setup.json"
_DEEPEST = 20


def setup_expression(outer: Mapping[str, Any], place: str = ".") -> str:
    """The composition of adapter_setup.json; ValueError for blocks that the language does not have.

    References start with `place`, the folder of the setup.

    >>> leaf = lambda name: {"type": "single", "children": [name]}
    >>> fused = {"type": "Fuse", "children": [leaf("a"), leaf("b")]}
    >>> tree = {"type": "Stack", "children": [leaf("en"), fused]}
    >>> print(setup_expression({"adapter_setup": tree}))
    stack(./en, fuse(./a, ./b, load="./a,b"))
    """
    return _written(outer.get("adapter_setup"), place, 0)


def _written(node: Any, place: str, depth: int) -> str:
    kind, children, settings = _parts(node)
    if depth > _DEEPEST:
        raise ValueError("its blocks are nested too deeply")
    if kind == "single":
        return _reference(f"{place}/{_name(children)}")
    inner = [_written(child, place, depth + 1) for child in children]
    if kind == "Stack":
        return f"stack({', '.join(inner)})"
    if kind == "Fuse":
        names = [_last(child) for child in children]
        load = _reference(f"{place}/{','.join(names)}")
        return f"fuse({', '.join(inner)}, load={load})"
    if kind == "Average":
        return f"average({', '.join(_weighted(inner, settings.get('weights')))})"
    if kind == "Parallel":
        names = [_last(child) for child in children]
        return f"parallel({', '.join(f'{n}={e}' for n, e in zip(names, inner, strict=True))})"
    if kind == "Split":
        return f"split({', '.join(inner)}, at={_starts(settings.get('splits'), len(inner))})"
    raise ValueError(f"it uses {kind}")


def _parts(node: Any) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
    if not isinstance(node, Mapping) or not isinstance(children := node.get("children"), list):
        raise ValueError("adapter_setup is not a block")
    settings = node.get("kwargs") or {}
    if not children or not isinstance(settings, Mapping):
        raise ValueError("adapter_setup is not a block")
    return str(node.get("type")), children, settings


def _name(children: Sequence[Any]) -> str:
    (name,) = children if len(children) == 1 else (None,)
    if not isinstance(name, str) or not is_safe_path(name) or "/" in name:
        raise ValueError(f"{name!r} is not the name of an adapter")
    return name


def _last(node: Any) -> str:
    """The name of a member in the name of a fusion: that of its last adapter."""
    kind, children, _ = _parts(node)
    return _name(children) if kind == "single" else _last(children[-1])


def _reference(path: str) -> str:
    return path if all(char.isalnum() or char in "./_-" for char in path) else quote(path)


def _weighted(inner: Sequence[str], weights: Any) -> list[str]:
    if not isinstance(weights, list) or len(weights) != len(inner):
        return list(inner)
    return [f"{member}:{format_value(float(w))}" for member, w in zip(inner, weights, strict=True)]


def _starts(splits: Any, count: int) -> str:
    """The lengths of ranges as `at`: the first token of each range but the first."""
    lengths = [splits] * count if isinstance(splits, int) else splits
    if not isinstance(lengths, list) or len(lengths) != count:
        raise ValueError("its splits do not match its members")
    starts = list(accumulate(int(length) for length in lengths[:-1]))
    return str(starts[0]) if len(starts) == 1 else format_value(tuple(starts))
