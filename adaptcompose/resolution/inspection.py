"""What a folder or a repository holds: adapters, heads, fusions, setups, compositions, models.

Read from configurations and the headers of weights alone. The folder itself and those right below
it are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptcompose.backbones.layout import Facts, read_facts, registered_layouts
from adaptcompose.composition.graph import Head
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats import adapter_folder as adapters
from adaptcompose.formats import adapterhub, peft
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD, WEIGHTS, StoredObject
from adaptcompose.formats.adapterhub_setup import SETUP, setup_expression
from adaptcompose.formats.adapterhub_versions import modern_key, unusual_settings
from adaptcompose.formats.tensor_summary import TensorGroup, group_tensors, layers_in, parameters
from adaptcompose.formats.tensors import Shapes
from adaptcompose.formats.transformers_heads import flexible_config
from adaptcompose.resolution.file_listing import FileListing
from adaptcompose.storage.yaml_source import load_yaml

INTERFACE = "adapter_interface.json"
COMPOSITION_FILE = "composition.yaml"
_TYPES = {ADAPTER: "adapter", HEAD: "head", FUSION: "fusion"}


@dataclass(frozen=True)
class Content:
    """One object of a shelf. `calls` is how the language says its method; `why` it cannot run."""

    kind: str
    place: str = ""
    name: str = ""
    method: str = ""
    calls: str = ""
    why: str = ""
    groups: tuple[TensorGroup, ...] = ()
    parameters: int | None = None
    base: str = ""
    type: str = ""
    width: int | None = None
    labels: tuple[str, ...] = ()
    written: str = ""
    files: Mapping[str, int] = field(default_factory=dict)
    unusual: tuple[str, ...] = ()

    def as_plain(self) -> dict[str, Any]:
        """The JSON form, without what is not known."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["groups"] = [group.as_plain() for group in self.groups]
        plain["files"] = dict(self.files)
        return {name: value for name, value in plain.items() if value not in ("", None, (), {}, [])}


def inspect_files(shelf: FileListing, facts: Facts | None = None) -> list[Content]:
    """Everything that is known, the shelf itself first; `facts` of the backbone it is meant for."""
    found: list[Content] = []
    for place in shelf.folders():
        found += _objects(shelf, place, facts)
    return found


def _objects(shelf: FileListing, place: str, facts: Facts | None) -> Iterator[Content]:
    files = shelf.files_in(place)
    if COMPOSITION_FILE in files:
        yield _composition(shelf, place)
    if SETUP in files:
        yield _setup(shelf, place)
    for kind in (ADAPTER, FUSION, HEAD):
        if kind in files:
            try:
                yield _object(shelf, place, kind, facts)
            except Failed as failed:
                why = "; ".join(one.message for one in failed.diagnostics)
                yield Content(_TYPES[kind], place, why=why, files=_object_files(files, kind))
    if "config.json" in files and not set(files) & {ADAPTER, FUSION, SETUP, COMPOSITION_FILE}:
        yield _model(shelf, place)


def _file(shelf: FileListing, place: str, name: str) -> Path:
    return shelf.path(f"{place}/{name}" if place else name)


def _object(shelf: FileListing, place: str, kind: str, facts: Facts | None) -> Content:
    path = _file(shelf, place, kind)
    title = f"{shelf.title}/{place}".rstrip("/")
    described = adapterhub.read_config(path.parent, kind, title)
    assert described is not None
    if peft.is_peft(described):
        return _peft(shelf, place, described, facts)
    files = _object_files(shelf.files_in(place), kind)
    shapes = _shapes(shelf, place, [name for name in WEIGHTS[kind] if name in files])
    outer = described.document
    content = Content(
        _TYPES[kind],
        place,
        described.name,
        base=described.base or "",
        type=str(outer.get("model_type") or ""),
        width=outer.get("hidden_size") if isinstance(outer.get("hidden_size"), int) else None,
        written=str(outer.get("version") or ""),
        files=files,
        parameters=None if shapes is None else parameters(shapes),
        groups=tuple(group_tensors(shapes or {})),
    )
    if kind == HEAD:
        return _head(content, described)
    if kind == FUSION:
        names = [str(name) for name in outer.get("adapter_names") or ()]
        return replace(content, method="AdapterFusion", calls=f"fuse({', '.join(names)}, load=…)")
    return _adapter(content, described, shapes, facts, INTERFACE in shelf.files_in(place))


def _adapter(
    content: Content,
    described: StoredObject,
    shapes: Shapes | None,
    facts: Facts | None,
    plugged: bool,
) -> Content:
    """With the method as the language says it, on the backbone or on one that fits the file."""
    unusual = [*unusual_settings(described.document), *_missing(described)]
    if plugged:
        unusual.append(f"was made through a plug-in interface, {INTERFACE}")
    if set(content.files) & {WEIGHTS[ADAPTER][1]} and WEIGHTS[ADAPTER][0] not in content.files:
        unusual.append("has its weights only as a pickle, which is read without running any code")
    content = replace(content, method=adapterhub.family_label(described.config))
    assumed = facts or _assumed(described.document, shapes or {})
    if assumed is None and content.type and content.type not in registered_layouts():
        why = f"backbones of type `{content.type}` are not supported"
        return replace(content, why=why, unusual=tuple(unusual))
    if assumed is None:
        lacking = "width" if content.type else "type"
        unusual.append(f"does not record the {lacking} of its backbone; add --backbone to see more")
        return replace(content, unusual=tuple(unusual))
    return replace(_read(content, described, shapes, assumed, facts), unusual=tuple(unusual))


def _read(
    content: Content,
    described: StoredObject,
    shapes: Shapes | None,
    assumed: Facts,
    facts: Facts | None,
) -> Content:
    """With the call of the language; what does not fit a backbone that was guessed is no fault."""
    try:
        method = adapters.read_adapter(described, assumed, shapes).method
    except Failed as failed:
        first = failed.diagnostics[0]
        guessed = facts is None and first.code == "AC408"
        return content if guessed else replace(content, why=first.message)
    count = method.parameter_count(assumed)  # a file may have a tensor twice
    return replace(content, calls=str(method), parameters=count)


def _missing(described: StoredObject) -> Iterator[str]:
    if not described.name:
        yield "has no name"
    if not described.base:
        yield "does not record which backbone it was trained on"


def _assumed(outer: Mapping[str, Any], shapes: Shapes) -> Facts | None:
    """A backbone that fits what the file says: as many layers as it has weights for."""
    above = {key: shape for key, shape in shapes.items() if ".decoder." in f".{key}"}
    below = {key: shape for key, shape in shapes.items() if key not in above}
    width, count = outer.get("hidden_size"), max(1, layers_in(below) or layers_in(above))
    if not isinstance(width, int):
        return None
    halves = [
        shape[-1] for key, shape in shapes.items() if key.endswith(("F.0.weight", "G.0.weight"))
    ]
    halves += [s[-1] for key, s in shapes.items() if key.endswith(("s1.0.weight", "s2.0.weight"))]
    config = _Guess({"model_type": outer.get("model_type"), "embedding_size": sum(halves) or width})
    config |= dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head"), 1)
    config |= dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), count)
    config["num_decoder_layers"] = layers_in(above) or count
    config.size = width
    try:
        return read_facts(config, str(outer.get("model_name") or "") or None)
    except Failed:
        return None


class _Guess(dict[str, Any]):
    """A config.json in which every size that is asked for is the width.

    A file of weights names no other size of its backbone, and which keys a layout reads is known to
    its functions alone, so there is no list of keys to fill. What is read with a guess may not fit
    it, which is no fault of the file.
    """

    size = 0

    def __missing__(self, key: str) -> int:
        return self.size


def _head(content: Content, described: StoredObject) -> Content:
    config = described.config
    labels = Head("", config).labels if config.get("label2id") or config.get("num_labels") else ()
    unusual = []
    if flexible_config(described.document) is not None:
        unusual.append(f"was saved from {described.document.get('model_class')}")
    layers = f", {config['layers']} layers" if "layers" in config else ""
    kind = str(config.get("head_type") or "of an unknown class")
    return replace(content, method=f"{kind}{layers}", labels=labels, unusual=tuple(unusual))


def _peft(shelf: FileListing, place: str, described: StoredObject, facts: Facts | None) -> Content:
    outer = described.document
    files = {n: s for n, s in shelf.files_in(place).items() if n in (ADAPTER, *peft.WEIGHTS)}
    shapes = _shapes(shelf, place, [name for name in peft.WEIGHTS if name in files])
    told = ("r", "lora_alpha", "use_dora", "use_rslora", "num_virtual_tokens", "target_modules")
    given = [f"{key}={outer[key]}" for key in told if outer.get(key)]
    odd = ("rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform")
    base = outer.get("base_model_name_or_path")
    version = outer.get("peft_version")
    content = Content(
        "adapter",
        place,
        method=f"{outer['peft_type']} {' '.join(given)}".strip(),
        base=str(base or ""),
        groups=tuple(group_tensors(shapes or {})),
        parameters=None if shapes is None else parameters(shapes),
        written=f"PEFT {version or ''}".strip(),
        files=files,
        unusual=tuple(f"{key}: {outer[key]}" for key in odd if outer.get(key)),
    )
    if facts is None or shapes is None:  # these files do not say which kind of backbone they fit
        return content
    return _read(content, described, shapes, facts, facts)


def _setup(shelf: FileListing, place: str) -> Content:
    files = {SETUP: shelf.files_in(place)[SETUP]}
    try:
        outer = json.loads(_file(shelf, place, SETUP).read_bytes())
        found = setup_expression(outer, f"./{place}".rstrip("/") if place else ".")
        written = str(outer.get("version") or "")
        return Content("setup", place, calls=found, written=written, files=files)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return Content("setup", place, why=str(error), files=files)


def _composition(shelf: FileListing, place: str) -> Content:
    files = {COMPOSITION_FILE: shelf.files_in(place)[COMPOSITION_FILE]}
    data = load_yaml(_file(shelf, place, COMPOSITION_FILE).read_text("utf-8"), COMPOSITION_FILE)
    told = data if isinstance(data, dict) else {}
    named = told.get("backbone")
    backbone = named if isinstance(named, dict) else {}
    base = str(backbone.get("as") or backbone.get("model") or "")
    return Content(
        "composition", place, calls=str(told.get("expression", "")), base=base, files=files
    )


def _model(shelf: FileListing, place: str) -> Content:
    try:
        config = json.loads(_file(shelf, place, "config.json").read_bytes())
        facts = read_facts(config)
    except Failed as failed:
        return Content("model", place, why=failed.diagnostics[0].message)
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        return Content("model", place, why=f"config.json: {error}")
    count = facts.parameters
    return Content("backbone", place, type=facts.model_type, width=facts.width, parameters=count)


def _object_files(files: Mapping[str, int], kind: str) -> dict[str, int]:
    return {name: files[name] for name in (kind, *WEIGHTS[kind]) if name in files}


def _shapes(shelf: FileListing, place: str, names: list[str]) -> Shapes | None:
    if not names:
        return None
    found = shelf.shapes(f"{place}/{names[0]}" if place else names[0])
    return None if found is None else {modern_key(key): shape for key, shape in found.items()}
