"""List the adapters, heads, fusions, setups, compositions and models in a folder or a repository.

Only configurations and the headers of weights are read: those in the folder itself and in the
folders directly below it.
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
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import AdapterFile, open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD, WEIGHTS
from adaptcompose.formats.adapterhub_setup import SETUP, setup_expression
from adaptcompose.formats.adapterhub_versions import modern_key, unusual_settings
from adaptcompose.formats.stored_object import StoredObject
from adaptcompose.formats.tensor_summary import TensorGroup, group_tensors, layers_in, parameters
from adaptcompose.formats.tensors import Shapes
from adaptcompose.formats.transformers_heads import flexible_config
from adaptcompose.resolution.file_listing import FileListing
from adaptcompose.resolution.manifest import FILE
from adaptcompose.storage.yaml_source import load_yaml

INTERFACE = "adapter_interface.json"
_TYPES = {ADAPTER: "adapter", HEAD: "head", FUSION: "fusion"}


@dataclass(frozen=True)
class Content:
    """One object in a folder or a repository.

    `calls` is its method or composition as an expression, `why` the reason why it cannot be used.
    `groups` are its tensors, `type` and `width` those of its backbone, `written` the version of
    the software that wrote it, and `files` the sizes of its files in bytes.
    """

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
        """The JSON form, without fields that are unknown."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["groups"] = [group.as_plain() for group in self.groups]
        plain["files"] = dict(self.files)
        return {name: value for name, value in plain.items() if value not in ("", None, (), {}, [])}


def inspect_files(listing: FileListing, facts: Facts | None = None) -> list[Content]:
    """Everything in a folder or a repository, first what is at its top.

    `facts` are those of the backbone that it is meant for, which makes more known about adapters.
    """
    contents: list[Content] = []
    for subfolder in listing.folders():
        contents += _contents(listing, subfolder, facts)
    return contents


def _contents(listing: FileListing, subfolder: str, facts: Facts | None) -> Iterator[Content]:
    files = listing.files_in(subfolder)
    if FILE in files:
        yield _composition(listing, subfolder)
    if SETUP in files:
        yield _setup(listing, subfolder)
    for kind in (ADAPTER, FUSION, HEAD):
        if kind in files:
            try:
                yield _object(listing, subfolder, kind, facts)
            except Failed as failed:
                why = "; ".join(diagnostic.message for diagnostic in failed.diagnostics)
                own_files = _object_files(files, kind)
                yield Content(_TYPES[kind], subfolder, why=why, files=own_files)
    if "config.json" in files and not set(files) & {ADAPTER, FUSION, SETUP, FILE}:
        yield _model(listing, subfolder)


def _file(listing: FileListing, subfolder: str, name: str) -> Path:
    return listing.path(f"{subfolder}/{name}" if subfolder else name)


def _object(listing: FileListing, subfolder: str, kind: str, facts: Facts | None) -> Content:
    path = _file(listing, subfolder, kind)
    title = f"{listing.title}/{subfolder}".rstrip("/")
    if kind == ADAPTER:
        file = open_adapter_folder(path.parent, title)
        if file.is_peft:
            return _peft(listing, subfolder, file, facts)
        stored: StoredObject | None = file.adapter
    else:
        stored = adapterhub.read_config(path.parent, kind, title)
    assert stored is not None
    files = _object_files(listing.files_in(subfolder), kind)
    shapes = _shapes(listing, subfolder, [name for name in WEIGHTS[kind] if name in files])
    document = stored.document
    width = document.get("hidden_size")
    content = Content(
        _TYPES[kind],
        subfolder,
        stored.name,
        base=stored.base or "",
        type=str(document.get("model_type") or ""),
        width=width if isinstance(width, int) else None,
        written=str(document.get("version") or ""),
        files=files,
        parameters=None if shapes is None else parameters(shapes),
        groups=tuple(group_tensors(shapes or {})),
    )
    if kind == HEAD:
        return _head(content, stored)
    if kind == FUSION:
        names = [str(name) for name in document.get("adapter_names") or ()]
        return replace(content, method="AdapterFusion", calls=f"fuse({', '.join(names)}, load=…)")
    return _adapter(content, file, shapes, facts, INTERFACE in listing.files_in(subfolder))


def _adapter(
    content: Content,
    file: AdapterFile,
    shapes: Shapes | None,
    facts: Facts | None,
    has_interface: bool,
) -> Content:
    """`content` with the call that means the adapter's method in an expression.

    Without `facts` the call is the one for the smallest backbone that the file fits.
    """
    stored = file.adapter
    unusual = [*unusual_settings(stored.document), *_missing_fields(stored)]
    if has_interface:
        unusual.append(f"was made through a plug-in interface, {INTERFACE}")
    safetensors, pickle = file.weight_files
    if pickle in content.files and safetensors not in content.files:
        unusual.append("has its weights only as a pickle, which is read without running any code")
    content = replace(content, method=adapterhub.family_label(stored.config))
    assumed = facts or _guess_facts(stored.document, shapes or {})
    if assumed is None and content.type and content.type not in registered_layouts():
        why = f"backbones of type `{content.type}` are not supported"
        return replace(content, why=why, unusual=tuple(unusual))
    if assumed is None:
        lacking = "width" if content.type else "type"
        unusual.append(f"does not record the {lacking} of its backbone; add --backbone to see more")
        return replace(content, unusual=tuple(unusual))
    is_guess = facts is None
    content = _with_call(content, file, shapes, assumed, is_guess=is_guess)
    return replace(content, unusual=tuple(unusual))


def _with_call(
    content: Content, file: AdapterFile, shapes: Shapes | None, facts: Facts, *, is_guess: bool
) -> Content:
    """`content` with the call of its method, or with the reason why it cannot run.

    Shapes that do not fit a guessed backbone show a wrong guess, not a fault of the file.
    """
    try:
        method = file.on(facts, shapes).method
    except Failed as failed:
        first = failed.diagnostics[0]
        is_wrong_guess = is_guess and first.code == "AC408"
        return content if is_wrong_guess else replace(content, why=first.message)
    # counted from the method, since a file may have a tensor twice
    return replace(content, calls=str(method), parameters=method.parameter_count(facts))


def _missing_fields(stored: StoredObject) -> Iterator[str]:
    if not stored.name:
        yield "has no name"
    if not stored.base:
        yield "does not record which backbone it was trained on"


def _guess_facts(document: Mapping[str, Any], shapes: Shapes) -> Facts | None:
    """The smallest backbone that fits a file; None if the file does not record type and width.

    It has as many layers as the file has weights for.
    """
    decoder = {key: shape for key, shape in shapes.items() if ".decoder." in f".{key}"}
    encoder = {key: shape for key, shape in shapes.items() if key not in decoder}
    width, count = document.get("hidden_size"), max(1, layers_in(encoder) or layers_in(decoder))
    if not isinstance(width, int):
        return None
    # an invertible part works on the halves of an embedding, whose size may differ from the width
    halves = [
        shape[-1]
        for ending in (("F.0.weight", "G.0.weight"), ("s1.0.weight", "s2.0.weight"))
        for key, shape in shapes.items()
        if key.endswith(ending)
    ]
    config = _GuessedConfig(
        {"model_type": document.get("model_type"), "embedding_size": sum(halves) or width}
    )
    config |= dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head"), 1)
    config |= dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), count)
    config["num_decoder_layers"] = layers_in(decoder) or count
    config.size = width
    try:
        return read_facts(config, str(document.get("model_name") or "") or None)
    except Failed:
        return None


class _GuessedConfig(dict[str, Any]):
    """A config.json in which every missing size is the width.

    A file of weights records no other size of its backbone. Which keys a layout reads is known
    only to the functions of the layout, so the missing ones cannot be filled in beforehand.
    """

    size = 0

    def __missing__(self, key: str) -> int:
        return self.size


def _head(content: Content, stored: StoredObject) -> Content:
    config = stored.config
    labels = Head("", config).labels if config.get("label2id") or config.get("num_labels") else ()
    unusual = []
    if flexible_config(stored.document) is not None:
        unusual.append(f"was saved from {stored.document.get('model_class')}")
    layers = f", {config['layers']} layers" if "layers" in config else ""
    kind = str(config.get("head_type") or "of an unknown class")
    return replace(content, method=f"{kind}{layers}", labels=labels, unusual=tuple(unusual))


_PEFT_SETTINGS = (
    "r",
    "lora_alpha",
    "use_dora",
    "use_rslora",
    "num_virtual_tokens",
    "target_modules",
)
_UNUSUAL_PEFT_SETTINGS = (
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
)


def _peft(listing: FileListing, subfolder: str, file: AdapterFile, facts: Facts | None) -> Content:
    """An adapter in PEFT's format; its method only with `facts`.

    These files do not record the type of the backbone, so there is nothing to guess from.
    """
    document = file.adapter.document
    present = listing.files_in(subfolder)
    files = {name: present[name] for name in present if name in (ADAPTER, *file.weight_files)}
    shapes = _shapes(listing, subfolder, [name for name in file.weight_files if name in files])
    settings = [f"{key}={document[key]}" for key in _PEFT_SETTINGS if document.get(key)]
    content = Content(
        "adapter",
        subfolder,
        method=f"{document['peft_type']} {' '.join(settings)}".strip(),
        base=file.adapter.backbone_name,
        groups=tuple(group_tensors(shapes or {})),
        parameters=None if shapes is None else parameters(shapes),
        written=f"PEFT {document.get('peft_version') or ''}".strip(),
        files=files,
        unusual=tuple(f"{k}: {document[k]}" for k in _UNUSUAL_PEFT_SETTINGS if document.get(k)),
    )
    if facts is None or shapes is None:
        return content
    return _with_call(content, file, shapes, facts, is_guess=False)


def _setup(listing: FileListing, subfolder: str) -> Content:
    files = {SETUP: listing.files_in(subfolder)[SETUP]}
    try:
        document = json.loads(_file(listing, subfolder, SETUP).read_bytes())
        expression = setup_expression(document, f"./{subfolder}" if subfolder else ".")
        written = str(document.get("version") or "")
        return Content("setup", subfolder, calls=expression, written=written, files=files)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return Content("setup", subfolder, why=str(error), files=files)


def _composition(listing: FileListing, subfolder: str) -> Content:
    files = {FILE: listing.files_in(subfolder)[FILE]}
    data = load_yaml(_file(listing, subfolder, FILE).read_text("utf-8"), FILE)
    fields = data if isinstance(data, dict) else {}
    entry = fields.get("backbone")
    backbone = entry if isinstance(entry, dict) else {}
    base = str(backbone.get("as") or backbone.get("model") or "")
    expression = str(fields.get("expression", ""))
    return Content("composition", subfolder, calls=expression, base=base, files=files)


def _model(listing: FileListing, subfolder: str) -> Content:
    try:
        config = json.loads(_file(listing, subfolder, "config.json").read_bytes())
        facts = read_facts(config)
    except Failed as failed:
        return Content("model", subfolder, why=failed.diagnostics[0].message)
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        return Content("model", subfolder, why=f"config.json: {error}")
    count = facts.parameters
    return Content(
        "backbone", subfolder, type=facts.model_type, width=facts.width, parameters=count
    )


def _object_files(files: Mapping[str, int], kind: str) -> dict[str, int]:
    return {name: files[name] for name in (kind, *WEIGHTS[kind]) if name in files}


def _shapes(listing: FileListing, subfolder: str, names: list[str]) -> Shapes | None:
    """The shapes in the first of the files, by modern keys; None without files or a download."""
    if not names:
        return None
    shapes = listing.shapes(f"{subfolder}/{names[0]}" if subfolder else names[0])
    return None if shapes is None else {modern_key(key): shape for key, shape in shapes.items()}
