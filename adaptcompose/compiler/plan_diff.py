"""The differences between two plans: `+` for a new part, `~` for a changed, `-` for a removed one.

>>> before = {"expression": "a", "items": [{"name": "ner", "mark": "+", "parameters": 10}]}
>>> after = {"expression": "a", "items": [{"name": "ner", "mark": "+", "parameters": 20}]}
>>> [str(change) for change in diff_plans(before, after)]
['~ ner  parameters 10 to 20']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_COMPARED_KEYS = ("method", "reference", "pin", "trained", "parameters", "sites", "layers", "slots")


@dataclass(frozen=True)
class PlanChange:
    """One part, or key of a plan, that differs from the earlier plan."""

    mark: Literal["+", "~", "-"]
    name: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.mark} {self.name}  {self.what}".rstrip()


def diff_plans(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[PlanChange]:
    """The differences between two plans in JSON form; without `before`, all parts are new."""
    return list(_changes(before or {}, after))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[PlanChange]:
    old, new = _items(before), _items(after)
    for name, item in new.items():
        if name not in old:
            yield PlanChange("+", name, str(item.get("method", "")))
        elif differences := "; ".join(_differences(old[name], item)):
            yield PlanChange("~", name, differences)
    yield from (PlanChange("-", name) for name in old if name not in new)
    for key in ("expression", "backbone"):
        if before and before.get(key) != after.get(key):
            yield PlanChange("~", key, f"{_short(before.get(key))} to {_short(after.get(key))}")


def _items(plan: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    prefixes = {"head": "head of "}
    items = plan.get("items") or ()
    return {f"{prefixes.get(item.get('kind', ''), '')}{item['name']}": item for item in items}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in _COMPARED_KEYS:
        if old.get(key) != new.get(key):
            yield f"{key} {_short(old.get(key))} to {_short(new.get(key))}"


def _short(value: Any) -> str:
    if isinstance(value, dict) and "repo" in value:
        return f"{value['repo']}@{str(value.get('revision'))[:7]}"
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return str(value)
