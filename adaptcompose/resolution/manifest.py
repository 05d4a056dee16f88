"""composition.yaml: the expression, the backbone, the task and the head of a saved composition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptcompose.composition.fusion_activations import ACTIVATIONS_FILE
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml, read_source

FILE, LOCK = "composition.yaml", "composition.lock"
COMPOSITION_FILES = (FILE, LOCK, ACTIVATIONS_FILE)
"""The files that describe a saved or published composition."""

LOCAL_PATHS_FILE = ".here.yaml"
"""The folders of the hub and the backbone on this machine; hidden, so that no push includes it."""

VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The content of composition.yaml.

    `head` is "backbone", "none", `./folder`, or the reference of the adapter that brings it; None
    if the last part of the expression brings it. Several compositions have one head each, by name.
    `card` is the author's metadata: license, languages, datasets, tags.
    """

    expression: str
    backbone: Mapping[str, str]
    head: str | Mapping[str, str] | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    description: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    def heads(self) -> dict[str, str]:
        """The head of each composition by name; the name is "" if there is only one."""
        if self.head is None:
            return {}
        return {"": self.head} if isinstance(self.head, str) else dict(self.head)

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        present = {name: value for name, value in values.items() if value not in (None, "", {})}
        return dump_yaml({"composition": VERSION} | present)

    @classmethod
    def load(cls, folder: Path, title: str) -> Manifest:
        """The manifest in a folder; Failed with AC426 if it has none, AC413 if it is invalid."""
        path = folder / FILE
        if not path.is_file():
            raise Failed(codes.AC426.at(name=title))
        data = load_yaml(read_source(path, f"{title}: {FILE}").text, f"{title}: {FILE}")
        try:
            if not isinstance(data, dict) or data.pop("composition", None) != VERSION:
                raise ValueError(f"its version is not {VERSION}")
            return cls(**_checked(data))
        except (TypeError, ValueError) as error:
            raise Failed(codes.AC413.at(file=f"{title}: {FILE}", why=str(error))) from None


_HOW = {
    "dtype": ("float32", "bfloat16", "float16", "float64"),
    "attention": ("sdpa", "eager", "flash_attention_2"),
}
_TEXTS = ("expression", "name", "description")


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    if unknown := data.keys() - Manifest.__dataclass_fields__.keys():
        raise ValueError(f"it has an unknown key `{min(map(str, unknown))}`")
    for name in ("expression", "backbone"):
        if name not in data:
            raise ValueError(f"it has no {name}")
    if wrong := [name for name in _TEXTS if not isinstance(data.get(name, ""), str)]:
        raise ValueError(f"its {wrong[0]} is not a string")
    if wrong := [n for n in ("backbone", "task", "card") if not isinstance(data.get(n, {}), dict)]:
        raise ValueError(f"its {wrong[0]} is not a mapping")
    head = data.get("head", "")
    if not all(isinstance(h, str) for h in (head.values() if isinstance(head, dict) else [head])):
        raise ValueError("its head is not a string")
    if not all(isinstance(value, str) for value in data["backbone"].values()):
        raise ValueError("its backbone has values that are not strings")
    for name, known in _HOW.items():
        if data["backbone"].get(name, known[0]) not in known:
            raise ValueError(f"its {name} is not one of {', '.join(known)}")
    return data


def read_local_paths(folder: Path) -> dict[str, str]:
    """The hub and the backbone on this machine that a composition was saved with."""
    path = folder / LOCAL_PATHS_FILE
    if not path.is_file():
        return {}
    data = load_yaml(read_source(path).text, str(path))
    return {str(name): str(path) for name, path in data.items()} if isinstance(data, dict) else {}
