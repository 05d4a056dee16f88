"""A composition as a folder: what is new as AdapterHub folders, the rest by pinned reference.

    composition.yaml     the expression, the backbone, the task, the head
    composition.lock     every pin with its hashes
    scores.json          what was measured (of what was trained here)
    <part>/              adapter, head or fusion, as `adapters` reads them
    tokenizer/           another than the backbone's, if it is in no public place
    <part>/peft/         the same adapter as PEFT reads it, if PEFT has such
    README.md            the card (of what is published)
    .here.yaml           hub and backbone that are folders of this machine; never published

Such a folder is complete: `load` rebuilds a model with bit-equal outputs from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptcompose.composition.fusion_activations import ACTIVATIONS_FILE, format_activations
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Head,
    WeightedPart,
    adapters_of,
    transform,
)
from adaptcompose.composition.heads import NEW_HEAD_NAME, ResolvedHead
from adaptcompose.composition.operators import branch_of, fusions_of, parts_of
from adaptcompose.composition.operators.prune import recorded_activations
from adaptcompose.formats.adapter_folder import write_adapter
from adaptcompose.formats.adapterhub_writer import AdapterHubWriter
from adaptcompose.formats.peft_modules import ModelClass
from adaptcompose.hub.lock import Lock, Pin
from adaptcompose.methods.fusion import Fusion
from adaptcompose.resolution.manifest import FILE, LOCAL_PATHS_FILE, LOCK, Manifest
from adaptcompose.runtime.heads import FlexHead
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.transformers_class import class_for_part
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.storage.yaml_source import dump_yaml
from adaptcompose.syntax.references import Ref

TOKENIZER = "tokenizer"
IsPublic = Callable[[Pin, Ref | None], bool]
"""Whether what is pinned can be had by whoever gets the composition."""


def save_composition(
    model: ComposedModel,
    folder: Path,
    *,
    everything: bool = False,
    manifest: Mapping[str, Any] | None = None,
    public: IsPublic | None = None,
) -> dict[str, str]:
    """Write a model's composition; returns the folder of each part that was written.

    New parts, trained parts and parts without a pinned public source are written; with
    `everything` all are. Unless told otherwise, every repository is public.
    """
    made, more = model.composition, dict(manifest or {})
    public = public or _is_pinned
    names = _part_folders(model, public, everything=everything)
    own = _write_tokenizer(model, folder, public)
    writer = AdapterHubWriter(made.facts)
    head = _write_heads(model, folder, writer, names)
    heads = {place.removeprefix("./"): flex for place, flex in _written_heads(model, head)}
    for name, place in names.items():
        if name in model.parts:
            within = class_for_part(model, heads.get(place))
            _write_part(model, name, folder / place, writer, names, within)
    base = _backbone_entry(model, public) | own
    text = str(Manifest(str(_with_pinned_refs(made.graph, names)), base, head, **more))
    write_atomically(folder / LOCK, str(_lock(model, names)))
    if measured := recorded_activations(made.graph):
        write_atomically(folder / ACTIVATIONS_FILE, format_activations(measured))
    _write_local_sources(model, folder / LOCAL_PATHS_FILE)
    write_atomically(folder / FILE, text)
    return names


def _lock(model: ComposedModel, names: Mapping[str, str]) -> Lock:
    """The pins of what is not written, and what the backbone was; no path of this machine."""
    made = model.composition
    parts = parts_of(made.graph).values()
    pins = {str(_pinned_ref(p)): p.pin for p in parts if p.name not in names and p.pin}
    base = replace(made.backbone_pin or Pin(), path=None)
    hub = made.sources.hub if made.sources.is_remote else "folder"
    other = made.tokenizer.pin if made.tokenizer and made.tokenizer.pin.repo else None
    return Lock("composition", base, hub, adapters=pins, tokenizer=other)


def _write_tokenizer(model: ComposedModel, folder: Path, public: IsPublic) -> dict[str, str]:
    """Write a tokenizer of its own, unless it is public; returns the manifest's entry."""
    tokenizer = model.composition.tokenizer
    if tokenizer is None:
        return {}
    pin = tokenizer.pin
    if pin.repo is not None and public(pin, tokenizer.ref):
        forced = "hf://" if tokenizer.ref.has_hub_prefix else ""
        return {"tokenizer": f"{forced}{pin.repo}@{pin.revision}"}
    source = tokenizer.folder()
    for name in pin.files:
        write_atomically(folder / TOKENIZER / name, (source / name).read_bytes())
    return {"tokenizer": f"./{TOKENIZER}"}


def _write_local_sources(model: ComposedModel, path: Path) -> None:
    """Write where this machine has the folders that the other files name."""
    sources, pin = model.composition.sources, model.composition.backbone_pin
    places = {} if sources.is_remote else {"hub": sources.hub}
    places |= {} if pin is None or pin.path is None else {"backbone": pin.path}
    if places:
        found = {name: (sources.root / Path(p).expanduser()) for name, p in places.items()}
        write_atomically(path, dump_yaml({name: str(p.resolve()) for name, p in found.items()}))


def _is_pinned(pin: Pin, ref: Ref | None) -> bool:
    return pin.repo is not None


def _part_folders(model: ComposedModel, public: IsPublic, *, everything: bool) -> dict[str, str]:
    """The parts to write and their folders: new, trained, or without a public source."""
    graph = model.composition.graph
    taken = {TOKENIZER}
    folders: dict[str, str] = {}
    for block in parts_of(graph).values():
        there = block.pin is not None and block.pin.repo is not None
        if there and block.pin is not None and not everything:
            there = public(block.pin, block.ref)
        if everything or model.parts[block.name].is_trained or not there:
            folders[block.name] = _folder_name(block.name, taken)
    return folders


def _folder_name(part: str, taken: set[str]) -> str:
    """A folder name that is also a key in AdapterHub's files: letters, digits, `_` and `-`."""
    stem = part.rstrip("/").split("/")[-1].partition("@")[0]
    plain = "".join(char if char.isalnum() or char in "_-" else "_" for char in stem) or "part"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}{number}", number + 1
    taken.add(name)
    return name


def _write_part(
    model: ComposedModel,
    name: str,
    folder: Path,
    writer: AdapterHubWriter,
    names: Mapping[str, str],
    within: ModelClass,
) -> None:
    part = model.parts[name]
    if not isinstance(part.method, Fusion):
        write_adapter(writer, folder, folder.name, part.method, part.tensors(), within)
        return
    block = fusions_of(model.composition.graph)[name]
    taken = set(names.values())
    members = [
        names.get(slot_name) or _folder_name(slot_name, taken)
        for slot_name in (_member_name(slot.block) for slot in block.members)
    ]
    writer.fusion(folder, members, part.method, part.tensors())


def _written_heads(
    model: ComposedModel, said: str | Mapping[str, str] | None
) -> Iterator[tuple[str, FlexHead]]:
    """Yield the heads that were written, with their folders."""
    by_branch = {"": said} if isinstance(said, str) else said or {}
    for branch, place in by_branch.items():
        flex = model.head_of(branch)
        if flex is not None:
            yield place, flex


def _member_name(block: Block) -> str:
    leaves = list(adapters_of(block))
    return leaves[-1] if leaves else "member"


def _write_heads(
    model: ComposedModel, folder: Path, writer: AdapterHubWriter, names: Mapping[str, str]
) -> str | dict[str, str] | None:
    """Write the heads; returns the manifest's entry: one head, or heads by composition."""
    made, taken = model.composition, set(names.values())
    said: dict[str, str] = {}
    for branch, head in made.heads.items():
        graph = branch_of(made.graph, branch) if branch else made.graph
        one = _BranchHead(
            graph,
            head,
            model.head_of(branch),
            f"{branch}-{NEW_HEAD_NAME}" if branch else NEW_HEAD_NAME,
        )
        found = one.write(folder, writer, names, taken)
        said |= {} if found is None else {branch: found}
    return said.get("") if "" in made.heads else said or None


@dataclass(frozen=True)
class _BranchHead:
    """One composition with its head, and the folder for a head that belongs to no part."""

    graph: Block
    head: ResolvedHead
    flex: FlexHead | None
    fallback_folder: str

    def write(
        self, folder: Path, writer: AdapterHubWriter, names: Mapping[str, str], taken: set[str]
    ) -> str | None:
        """Write the head unless its source is public; returns the manifest's entry."""
        head = self.head
        if head == "backbone":
            return "backbone"
        brought = self.graph.default_head
        if not isinstance(head, Head) or self.flex is None:
            return None if brought is None else "none"
        leaf = adapters_of(self.graph).get(head.part)
        if leaf is not None and head.part not in names and not self._is_trained():
            return (
                None
                if brought is not None and brought.part == head.part
                else str(_pinned_ref(leaf))
            )
        place = (
            names.get(head.part)
            or self._topmost_adapter_folder(names)
            or _folder_name(self.fallback_folder, taken)
        )
        writer.head(folder / place, place, head.config, self.flex.tensors())
        return f"./{place}"

    def _is_trained(self) -> bool:
        assert self.flex is not None
        return any(parameter.requires_grad for parameter in self.flex.slots.parameters())

    def _topmost_adapter_folder(self, names: Mapping[str, str]) -> str | None:
        """The folder of the topmost adapter, which keeps the head, or None if it is not written."""
        block = self.graph.topmost
        return names.get(block.name) if isinstance(block, Adapter) else None


def _with_pinned_refs(graph: Block, names: Mapping[str, str]) -> Block:
    """The graph with written parts as `./folder` and all others as `repository@revision`."""

    def reference_of(part: WeightedPart) -> Ref:
        folder = names.get(part.name)
        return Ref("local", path=f"./{folder}") if folder else _pinned_ref(part)

    return transform(graph, lambda block: block.pinned(reference_of))


def _pinned_ref(block: WeightedPart) -> Ref:
    """The reference pinned to its commit; the prefix `hf://` is kept."""
    pin, forced = block.pin, block.ref is not None and block.ref.has_hub_prefix
    assert pin is not None and pin.repo is not None
    return Ref(
        "hub", repo=pin.repo, revision=pin.revision, subfolder=pin.subfolder, has_hub_prefix=forced
    )


def _backbone_entry(model: ComposedModel, public: IsPublic) -> dict[str, str]:
    """The manifest's entry of the backbone: repository if public, name, and precision."""
    made = model.composition
    pin, entry = made.backbone_pin, {}
    if pin is not None and pin.repo is not None and public(pin, None):
        entry["model"] = f"{pin.repo}@{pin.revision}"
    if made.facts.name:
        entry["as"] = made.facts.name
    entry["dtype"] = str(made.backbone.dtype).removeprefix("torch.")
    entry["attention"] = str(made.backbone.config._attn_implementation)
    return entry
