"""Resolve references to pinned files, methods and heads, before any weight is downloaded.

A reference to a published composition means its expression under its own lock: its own parts are
folders next to its manifest, and its lock pins everything else. So it means the same wherever it is
used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.fusion_activations import (
    ACTIVATIONS_FILE,
    Activations,
    read_activations,
)
from adaptcompose.composition.graph import Adapter, Block, Head, Published, WeightedPart, transform
from adaptcompose.composition.operators import Fuse, Prune, slot_names
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, Span, select_errors
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import AdapterFile, open_adapter_folder
from adaptcompose.formats.adapterhub_setup import SETUP, setup_expression
from adaptcompose.formats.tensors import Shapes
from adaptcompose.hub.lock import Lock, Pin
from adaptcompose.resolution.manifest import FILE, LOCK, Manifest
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource_folder
from adaptcompose.syntax.references import Ref, is_safe_path, parse_ref

DEEPEST = 8  # levels of compositions in compositions; more than that is taken as a cycle


@dataclass
class ResolvedGraph:
    """The graph with pins, methods and heads, and the diagnostics about it."""

    graph: Block
    diagnostics: list[Diagnostic]


def resolve(graph: Block, facts: Facts, sources: Sources) -> ResolvedGraph:
    """Pin every reference and read its configuration; raise all errors of all adapters at once."""
    read = resolve_where_known(graph, facts, sources)
    if select_errors(read.diagnostics):
        raise Failed(read.diagnostics)
    return read


def resolve_where_known(graph: Block, facts: Facts | None, sources: Sources) -> ResolvedGraph:
    """Resolve every reference that can be read; the others become diagnostics.

    Without a backbone, references are only checked and stay in the graph as they are.
    """
    diagnostics: list[Diagnostic] = []

    def read_run(path: str, span: Span | None) -> Activations:
        return read_activations(sources.root / Path(path).expanduser(), path, span)

    def pin(block: Block) -> Block:
        try:
            ref = block.ref if isinstance(block, WeightedPart) and not block.pin else None
            if ref is not None and not (sources.may_read(ref) and _has_variant(block, ref)):
                return block
            if ref is not None and facts is None:
                _probe(block, ref, sources)
            elif isinstance(block, Adapter) and ref is not None and facts is not None:
                return _resolve_cached(block, facts, sources, diagnostics)
            elif isinstance(block, Fuse) and ref is not None and facts is not None:
                return _fusion(block, facts, sources, diagnostics)
            return block.resolved(read_run)
        except Failed as failed:
            diagnostics.extend(failed.with_default_span(block.span).diagnostics)
        return block

    return ResolvedGraph(transform(graph, pin), list(dict.fromkeys(diagnostics)))


def _has_variant(block: Block, ref: Ref) -> bool:
    """Whether a reference leads to a place: a name of the catalogue does so on a known backbone."""
    if ref.kind in ("hub", "local"):
        return True
    if isinstance(block, Fuse):
        help = "set `load` to a folder or a repository"
        what = {"what": "an adapter", "wanted": "a fusion"}
        raise Failed(codes.AC406.at(block.span, name=str(ref), **what, help=help))
    return isinstance(block, Adapter) and block.variant is not None


def _probe(block: Block, ref: Ref, sources: Sources) -> None:
    """Raise Failed if a reference leads to nothing, or that of an adapter to something else."""
    if isinstance(block, Adapter) and block.variant is not None:
        return
    pin = sources.pin(ref, None, block.span)
    if isinstance(block, Adapter) and not {FILE, SETUP} & pin.files.keys():
        _open_adapter(block, pin, sources)


def _resolve_cached(
    leaf: Adapter, facts: Facts, sources: Sources, notes: list[Diagnostic]
) -> Block:
    """The block that a reference means; every reference is read once."""
    key = (leaf.ref, leaf.variant, facts.title, facts.layers, facts.width)
    if key not in sources._leaves:
        sources._leaves[key] = _resolve_reference(leaf, facts, sources, notes)
    block = sources._leaves[key]
    return replace(block, span=leaf.span) if isinstance(block, Adapter) else block


def _resolve_reference(
    leaf: Adapter, facts: Facts, sources: Sources, notes: list[Diagnostic]
) -> Block:
    """The block that a reference means: an adapter, a composition, or a setup of AdapterHub."""
    assert leaf.ref is not None
    pin = sources.pin(leaf.ref, leaf.variant, leaf.span)
    if FILE not in pin.files and SETUP not in pin.files:
        return _adapter(leaf, pin, facts, sources, notes)
    if FILE not in pin.files:
        setup = expand_setup(leaf, pin, facts, sources)
        notes += setup.diagnostics
        return setup.graph
    block, resolved = expand_published(leaf, pin, facts, sources)
    notes += resolved.diagnostics
    return block


def _adapter(
    leaf: Adapter, pin: Pin, facts: Facts, sources: Sources, notes: list[Diagnostic]
) -> Adapter:
    assert leaf.ref is not None
    file = _open_adapter(leaf, pin, sources)
    safetensors, pickle = file.weight_files
    if safetensors not in pin.files and pickle in pin.files:
        notes.append(codes.AC409.at(leaf.span, name=str(leaf.ref)))
    shapes = _shapes(leaf.ref, pin, file.weight_files, sources, leaf.span)
    if shapes is None and file.needs_tensors:
        sources.fetch(leaf.ref, pin)
    stored = file.on(facts, shapes)
    method = stored.method
    head = None if stored.head is None else Head(leaf.name, stored.head)
    pin = replace(pin, method=str(method))
    base = file.adapter.base
    return replace(leaf, pin=pin, declared_backbone=base, method=method, head=head)


def _open_adapter(leaf: Adapter, pin: Pin, sources: Sources) -> AdapterFile:
    """The configuration of an adapter; raises Failed with AC406 if it is something else."""
    assert leaf.ref is not None
    configurations = [adapterhub.ADAPTER, adapterhub.HEAD, adapterhub.FUSION]
    folder = sources.fetch(leaf.ref, pin, configurations)
    file = open_adapter_folder(folder, str(leaf.ref), leaf.span)
    if file.adapter.document.get("adapter_names") is not None:
        what = {"what": "a fusion", "wanted": "an adapter"}
        help = f"load it: `fuse(…, load={leaf.ref})`"
        raise Failed(codes.AC406.at(leaf.span, name=str(leaf.ref), **what, help=help))
    return file


def _shapes(
    ref: Ref, pin: Pin, names: Sequence[str], sources: Sources, span: Span | None
) -> Shapes | None:
    """The shapes of an object's weights; None if they cannot be read without a download."""
    for name in names:
        if name in pin.files:
            return sources.shapes(ref, pin, name)
    raise Failed(codes.AC418.at(span, name=str(ref), missing=" or ".join(names)))


def _fusion(block: Fuse, facts: Facts, sources: Sources, notes: list[Diagnostic]) -> Fuse:
    assert block.ref is not None
    title = str(block.ref)
    pin = sources.pin(block.ref, None, block.span)
    folder = sources.fetch(block.ref, pin, [adapterhub.FUSION])
    described = adapterhub.read_config(folder, adapterhub.FUSION, title, block.span)
    if described is None:
        what = {"what": "other files", "wanted": "a fusion"}
        help = f"set `load` to a folder or repository with {adapterhub.FUSION}"
        raise Failed(codes.AC406.at(block.span, name=title, **what, help=help))
    trained = described.document.get("adapter_names")
    members = [str(getattr(slot.block, "ref", slot.block)).split("/")[-1] for slot in block.members]
    if isinstance(trained, list) and len(trained) != len(members):
        notes.append(
            codes.AC506.at(
                block.span,
                name=title,
                trained=", ".join(map(str, trained)),
                given=", ".join(members),
            )
        )
    shapes = _shapes(block.ref, pin, adapterhub.WEIGHTS[adapterhub.FUSION], sources, block.span)
    if shapes is None:
        described = replace(described, folder=sources.fetch(block.ref, pin))
    loaded = adapterhub.read_fusion(described, facts, shapes)
    problems = adapterhub.shape_problems(described, loaded, facts, shapes or {})
    if shapes and (diagnostics := list(problems)):
        raise Failed(diagnostics)
    return replace(block, pin=pin, loaded_fusion=loaded)


def expand_published(
    leaf: Adapter, pin: Pin, facts: Facts, sources: Sources
) -> tuple[Published, ResolvedGraph]:
    """The published composition that a reference means, resolved, and its diagnostics."""
    assert leaf.ref is not None
    title = str(leaf.ref)
    if sources.depth >= DEEPEST:
        raise Failed(codes.AC108.at(leaf.span, name=title, cycle=f"{title} → … → {title}"))
    folder = sources.fetch(leaf.ref, pin, [FILE, LOCK, ACTIVATIONS_FILE])
    manifest, lock = Manifest.load(folder, title), Lock.load(folder / LOCK)
    if lock is None:
        raise Failed(codes.AC418.at(leaf.span, name=title, missing=LOCK))
    source = Source(manifest.expression, f"{title}: {FILE}")
    cards = Catalogue.open(resource_folder("hub_cards"))
    graph = check_source(source, CheckContext(cards, facts)).raise_errors()
    place = _PublishedContext(leaf.ref, pin, title, folder)
    graph = transform(graph, place.qualify_block)
    pins = {str(place.hub_ref(text)): pin for text, pin in lock.adapters.items()}
    all_pins = {**sources.pins, **pins}
    own = Sources(sources.hub, sources.root, all_pins, sources.depth + 1, sources.may_query)
    resolved = resolve(graph, facts, own)
    head = _head(manifest, place, own)
    graph, named = resolved.graph, tuple(slot_names(resolved.graph))
    return Published(leaf.ref, graph, pin, head, named, span=leaf.span), resolved


def expand_setup(leaf: Adapter, pin: Pin, facts: Facts, sources: Sources) -> ResolvedGraph:
    """The composition of a setup of AdapterHub, with its subfolders at the same revision."""
    assert leaf.ref is not None
    title = str(leaf.ref)
    folder = sources.fetch(leaf.ref, pin, [SETUP])
    try:
        text = setup_expression(json.loads((folder / SETUP).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        known = "setups of Stack, Fuse, Average, Parallel and Split"
        method = f"an AdapterHub setup ({error})"
        raise Failed(codes.AC407.at(leaf.span, name=title, method=method, known=known)) from None
    context = CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    graph = check_source(Source(text, f"{title}: {SETUP}"), context).raise_errors()
    graph = transform(graph, _PublishedContext(leaf.ref, pin, title, folder).qualify_block)
    return resolve(graph, facts, sources)


def _head(manifest: Manifest, place: _PublishedContext, sources: Sources) -> Adapter | None:
    """The folder with the head of a composition, as an adapter; None if a part brings the head."""
    folder = manifest.heads().get("", "")
    if not folder.startswith("./"):
        return None
    ref = place.part_ref(folder)
    pin = sources.pin(ref)
    head = open_adapter_folder(sources.fetch(ref, pin), str(ref)).adapterhub_head
    if head is None:
        missing = f"{folder[2:]}/{adapterhub.HEAD}"
        raise Failed(codes.AC418.at(name=place.title, missing=missing))
    return Adapter(str(ref), ref=ref, pin=pin, head=Head(str(ref), head.config))


class _PublishedContext:
    """A published composition, for whose references it gives those that mean the same outside."""

    def __init__(self, ref: Ref, pin: Pin, title: str, folder: Path) -> None:
        self.ref, self.pin, self.title, self.folder = ref, pin, title, folder
        self.fusion_names: dict[str, str] = {}

    def qualify_block(self, block: Block) -> Block:
        """A block of the expression with references that do not depend on its folder."""
        if isinstance(block, Adapter) and block.ref is not None:
            ref = self._ref(block.ref)
            return replace(block, ref=ref, name=str(ref))
        if isinstance(block, Fuse) and block.ref is not None:
            ref = self._ref(block.ref)
            self.fusion_names[block.name] = str(ref)
            return replace(block, ref=ref, load=str(ref), name=str(ref))
        if isinstance(block, Prune):
            measured = read_activations(
                self.folder / ACTIVATIONS_FILE, f"{self.title}: {ACTIVATIONS_FILE}"
            )
            renamed = {self.fusion_names.get(name, name): means for name, means in measured.items()}
            return block.with_activations(renamed, self.title)
        if isinstance(block, WeightedPart):
            why = f"it has no weights for `{block}`"
            raise Failed(codes.AC413.at(file=self.title, why=why))
        return block

    def _ref(self, ref: Ref) -> Ref:
        if ref.kind == "local":
            return self.part_ref(ref.path or "")
        return self.hub_ref(str(ref)) if ref.kind == "hub" else ref

    def part_ref(self, path: str) -> Ref:
        """The reference to one of the composition's own folders."""
        name = path.removeprefix("./")
        if not path.startswith("./") or not is_safe_path(name):
            why = f"`{path}` is outside its folder"
            raise Failed(codes.AC413.at(file=self.title, why=why))
        if self.pin.path is not None:
            return Ref("local", path=f"{self.pin.path.rstrip('/')}/{name}")
        below = "/".join(filter(None, [self.pin.subfolder, name]))
        repo, revision = self.pin.repo, self.pin.revision
        return Ref(
            "hub",
            repo=repo,
            revision=revision,
            subfolder=below,
            has_hub_prefix=self.ref.has_hub_prefix,
        )

    def hub_ref(self, text: str) -> Ref:
        """A reference to a repository; with `hf://` if the composition was referred to with it."""
        ref = parse_ref(text, ())
        return replace(ref, has_hub_prefix=ref.has_hub_prefix or self.ref.has_hub_prefix)
