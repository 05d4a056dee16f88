"""A composition as a folder: what is new as AdapterHub folders, the rest by pinned reference.

    composition.yaml     the expression, the backbone, the task, the head
    composition.lock     every pin with its hashes
    <part>/              adapter, head or fusion, as `adapters` reads them
    README.md            the card (of what is published)

Such a folder is complete: `load` rebuilds a model with bit-equal outputs from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptcompose.documents import dump, load, write_atomically
from adaptcompose.hub.backbone import find_backbone
from adaptcompose.hub.cards import Catalogue
from adaptcompose.hub.formats import adapterhub
from adaptcompose.hub.lock import Lock, Locked
from adaptcompose.hub.refs import Ref
from adaptcompose.hub.resolve import Sources, resolve
from adaptcompose.language import codes
from adaptcompose.language.check import Context, check, verify
from adaptcompose.language.diagnostics import Failed, Source, errors
from adaptcompose.language.graph import Adapter, Block, Head, adapters, transform
from adaptcompose.language.heads import NEW, head_of
from adaptcompose.language.operators import Fuse, fusions
from adaptcompose.methods.fusion import Fusion
from adaptcompose.resources import resource
from adaptcompose.runtime.compose import build, load_backbone
from adaptcompose.runtime.model import ComposedModel

FILE, LOCK = "composition.yaml", "composition.lock"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """composition.yaml: what a folder composes, on which backbone, for which task."""

    expression: str
    backbone: Mapping[str, str]
    head: str | None = None
    task: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        kept = {name: value for name, value in given.items() if value not in (None, "")}
        return dump({"composition": VERSION} | kept)

    @classmethod
    def open(cls, folder: Path, title: str) -> Manifest:
        """The manifest of a folder, or AC406 if it has none."""
        path = folder / FILE
        if not path.is_file():
            raise Failed(codes.AC406.at(name=title, what="no composition", help=f"it needs {FILE}"))
        data = load(path.read_text("utf-8"), f"{title}: {FILE}")
        known = set(cls.__dataclass_fields__)
        try:
            if not isinstance(data, dict) or data.pop("composition", None) != VERSION:
                raise ValueError(f"it is not of version {VERSION}")
            if unknown := data.keys() - known:
                raise ValueError(f"it has an unknown key `{min(unknown)}`")
            found = cls(**data)
            if not isinstance(found.expression, str) or not isinstance(found.backbone, dict):
                raise ValueError("expression or backbone is missing")
        except (TypeError, ValueError) as error:
            raise Failed(codes.AC413.at(file=f"{title}: {FILE}", why=str(error))) from None
        return found


def save_composition(
    model: ComposedModel,
    folder: Path,
    *,
    everything: bool = False,
    manifest: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write a model's composition; returns the folder of each part that was written.

    New parts, trained parts and parts without a pinned public source are written; with
    `everything` all are.
    """
    made = model.composition
    names = _folders(model, everything=everything)
    writer = adapterhub.Writer(made.facts)
    for name, place in names.items():
        if name in model.parts:
            _write_part(model, name, folder / place, writer, names)
    head = _write_head(model, folder, writer, names)
    graph = _pinned(made.graph, names)
    backbone = _backbone_entry(model)
    text = str(Manifest(str(graph), backbone, head, **(manifest or {})))
    lock = Lock(
        "composition",
        made.backbone_pin or Locked(),
        made.sources.hub,
        adapters={
            str(leaf.ref): leaf.pin
            for leaf in adapters(graph).values()
            if leaf.ref is not None and leaf.ref.kind == "hub" and leaf.pin is not None
        },
    )
    write_atomically(folder / LOCK, str(lock))
    write_atomically(folder / FILE, text)
    return names


def _folders(model: ComposedModel, *, everything: bool) -> dict[str, str]:
    """Which parts are written, and where: new, trained, or not to be had from a public place."""
    graph = model.composition.graph
    taken: set[str] = set()
    folders: dict[str, str] = {}
    blocks: list[Adapter | Fuse] = [*adapters(graph).values(), *fusions(graph).values()]
    for block in blocks:
        public = block.pin is not None and block.pin.repo is not None
        trained = model.parts[block.name].trained
        if everything or trained or not public:
            folders[block.name] = _folder_name(block.name, taken)
    return folders


def _folder_name(part: str, taken: set[str]) -> str:
    """A name that is a folder and a key in the peer's files: letters, digits, `_` and `-`."""
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
    writer: adapterhub.Writer,
    names: Mapping[str, str],
) -> None:
    part = model.parts[name]
    if not isinstance(part.method, Fusion):
        writer.adapter(folder, folder.name, part.method, part.tensors())
        return
    block = fusions(model.composition.graph)[name]
    taken = set(names.values())
    members = [
        names.get(slot_name) or _folder_name(slot_name, taken)
        for slot_name in (_member_name(slot.block) for slot in block.members)
    ]
    writer.fusion(folder, members, part.method, part.tensors())


def _member_name(block: Block) -> str:
    leaves = list(adapters(block))
    return leaves[-1] if leaves else "member"


def _write_head(
    model: ComposedModel, folder: Path, writer: adapterhub.Writer, names: Mapping[str, str]
) -> str | None:
    """Where the head is: `./folder` of an own head, None where the expression brings it."""
    head, flex = model.composition.head, model.head
    if head == "backbone":
        return "backbone"
    if head is None or flex is None:
        return None
    owner = _owner(model, names)
    place = names[owner] if owner is not None else None
    if place is None and head.part != NEW and not _head_trained(model):
        brought = head_of(model.composition.graph)
        return None if brought is not None and brought.part == head.part else head.part
    place = place or _folder_name(NEW, set(names.values()))
    writer.head(folder / place, place, head.config, flex.tensors())
    return None if owner is not None else f"./{place}"


def _head_trained(model: ComposedModel) -> bool:
    return model.head is not None and any(p.requires_grad for p in model.head.slots.parameters())


def _owner(model: ComposedModel, names: Mapping[str, str]) -> str | None:
    """The adapter that a head goes with: the topmost of the composition, if it is written."""
    from adaptcompose.language.operators import Modifier, Stack

    block: Block = model.composition.graph
    while isinstance(block, Modifier | Stack):
        block = block.body if isinstance(block, Modifier) else block.members[-1].block
    return block.name if isinstance(block, Adapter) and block.name in names else None


def _pinned(graph: Block, names: Mapping[str, str]) -> Block:
    """The graph with own parts as `./folder` and all others as repository@revision."""

    def change(block: Block) -> Block:
        if isinstance(block, Fuse):
            load_from = names.get(block.name)
            reference = f"./{load_from}" if load_from else str(_exact(block.pin))
            return replace(block, load=reference, dropout=0.0, pull=0.01, temperature=False)
        if not isinstance(block, Adapter):
            return block
        if block.name in names:
            return replace(block, ref=Ref("local", path=f"./{names[block.name]}"))
        return replace(block, ref=_exact(block.pin))

    return transform(graph, change)


def _exact(pin: Locked | None) -> Ref:
    assert pin is not None and pin.repo is not None
    return Ref("hub", repo=pin.repo, revision=pin.revision, subfolder=pin.subfolder)


def _backbone_entry(model: ComposedModel) -> dict[str, str]:
    made = model.composition
    pin = made.backbone_pin
    entry: dict[str, str] = {}
    if pin is not None and pin.repo is not None:
        entry["model"] = f"{pin.repo}@{pin.revision}"
    elif pin is not None and pin.path is not None:
        entry["model"] = str((made.sources.root / pin.path).resolve())
    if made.facts.name:
        entry["as"] = made.facts.name
    return entry


def load_composition(
    folder: Path, title: str, *, backbone: Any = None, hub: str | None = None, root: Path = Path()
) -> ComposedModel:
    """The model of a folder that `save_composition` wrote, with every hash verified."""
    manifest = Manifest.open(folder, title)
    lock = Lock.open(folder / LOCK)
    pins = dict(lock.adapters) if lock is not None else {}
    place = root / Path(hub or "hf").expanduser() if hub and hub != "hf" else None
    sources = Sources(str(place.resolve()) if place else "hf", folder, pins)
    facts, stock, pin = _stock(manifest, lock, sources, backbone, title)
    checked = check(
        Source(manifest.expression, f"{title}: {FILE}"),
        Context(Catalogue.open(resource("hub_cards")), facts),
    )
    graph = resolve(checked.raise_errors(), facts, sources).graph
    if problems := errors(verify(graph, facts)):
        raise Failed(problems)
    head, tensors = _stored_head(manifest, folder, graph)
    model = build(graph, facts, stock, sources, head=head)
    model.composition = replace(model.composition, backbone_pin=pin)
    if tensors is not None and model.head is not None:
        model.head.fill(tensors)
        model.head.slots.requires_grad_(False)
    return model


def _stock(
    manifest: Manifest, lock: Lock | None, sources: Sources, backbone: Any, title: str
) -> tuple[Any, Any, Locked | None]:
    from transformers import PreTrainedModel

    from adaptcompose.runtime.compose import loaded_facts

    if isinstance(backbone, PreTrainedModel):
        return loaded_facts(backbone), backbone, None
    wanted = str(backbone) if backbone is not None else manifest.backbone.get("model")
    if not wanted:
        help = "say which: load(…, backbone=…)"
        raise Failed(codes.AC418.at(name=title, missing="the name of its backbone", help=help))
    pin = lock.backbone if lock is not None and backbone is None and lock.backbone.repo else None
    found = find_backbone(wanted, sources, known_as=manifest.backbone.get("as"), pin=pin)
    stock = load_backbone(found.folder(), with_head=manifest.head == "backbone")
    return found.facts, stock, found.pin


def _stored_head(manifest: Manifest, folder: Path, graph: Block) -> tuple[Any, Any]:
    """The head choice for `build`, and the tensors of an own head."""
    if manifest.head is None:
        return "auto", None
    if not manifest.head.startswith("./"):
        return manifest.head, None
    place = manifest.head[2:]
    if "/" in place or place.startswith("."):
        raise Failed(codes.AC413.at(file=FILE, why="its head is not in its folder"))
    found = adapterhub.describe(folder / place, adapterhub.HEAD, place)
    if found is None:
        raise Failed(codes.AC418.at(name=FILE, missing=f"{place}/{adapterhub.HEAD}"))
    return Head(NEW, found.config), adapterhub.read_head(found)
