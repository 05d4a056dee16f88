"""References become pinned files, methods and heads, all before a weight moves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Variant
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Head,
    complete,
    transform,
)
from adaptcompose.composition.operators import Fuse, Prune, Swap
from adaptcompose.composition.operators.prune import FILE, read_activations
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import (
    Diagnostic,
    Failed,
    Span,
    errors,
    standing,
)
from adaptcompose.formats import adapter_folder as adapters
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapterhub_setup import SETUP
from adaptcompose.formats.tensors import Shapes, read_header, read_shapes
from adaptcompose.hub.lock import Locked
from adaptcompose.hub.pieces import InPieces
from adaptcompose.hub.store import FileRecord, Store, not_cached, open_store, records, verify
from adaptcompose.syntax.references import Ref

COMPOSITION = ("composition.yaml", "composition.lock", FILE)
"""What a folder with a published composition holds, and an adapter's does not."""


@dataclass
class Sources:
    """Where references lead: the hub, the folder that `./` starts from, and earlier pins.

    A pinned reference never moves: its revision comes from the pin, and its files must have the
    hashes that the pin records. `depth` counts the published compositions around. Where it does
    not `ask`, nothing but folders of this machine is read, whatever a cache holds.
    """

    hub: str = "hf"
    root: Path = Path()
    pins: Mapping[str, Locked] = field(default_factory=dict)
    depth: int = 0
    ask: bool = True
    _pinned: dict[tuple[Ref, Variant | None], Locked] = field(default_factory=dict, repr=False)
    _leaves: dict[tuple[Any, ...], Block] = field(default_factory=dict, repr=False)
    """What references were found to mean: the compositions of a run share most of them."""

    def __post_init__(self) -> None:
        self.root = Path(self.root).absolute()  # whoever changes the directory later

    @property
    def remote(self) -> bool:
        """Whether the hub is another machine."""
        return self.hub == "hf" or self.hub.startswith(("https://", "http://"))

    def reads(self, ref: Ref) -> bool:
        """Whether what a reference leads to may be looked at."""
        return self.ask or ref.kind == "local" or not (self.remote or ref.forced)

    def store(self, ref: Ref | None = None) -> Store:
        """`hf://` always means the Hugging Face Hub, everything else the spec's hub."""
        return open_store("hf" if ref is not None and ref.forced else self.hub, self.root)

    def repositories(self, glob: str) -> list[str]:
        """The repositories of the Hugging Face Hub that fit a glob over one author's."""
        return open_store("hf", self.root).repositories(glob)

    def local(self, path: str, span: Span | None = None) -> Path:
        with suppress(OSError, ValueError, RuntimeError):  # too long, with U+0000, of nobody
            folder = (self.root / Path(path).expanduser()).resolve()
            if folder.is_dir():
                return folder
        raise Failed(codes.AC412.at(span, path=path, root=self.root.resolve()))

    def pin(self, ref: Ref, variant: Variant | None = None, span: Span | None = None) -> Locked:
        """The pin of a reference: an earlier one, or the newest revision now."""
        if ref.kind == "local":
            # what the folder holds now; a lock that says otherwise is out of date
            assert ref.path is not None
            folder = self.local(ref.path, span)
            here = (path.name for path in folder.iterdir() if path.is_file())
            own = own_files(dict.fromkeys(here, FileRecord(0)), "")
            return Locked(path=ref.path, files=records(folder, own))
        known = self.pins.get(str(ref)) or self._pinned.get((ref, variant))
        if known is not None:
            return known
        repo, revision, subfolder = _place(ref, variant)
        with standing(span):
            store = self.store(ref)
            exact = store.resolve(repo, revision)
            files = store.files(repo, exact)
        found = Locked(repo, exact, subfolder, files=own_files(files, subfolder or ""))
        self._pinned[ref, variant] = found
        return found

    def checkpoint(self, ref: Ref, wanted: Callable[[str], bool], span: Span | None) -> Locked:
        """The pin of a repository or a folder of transformers: those of its files that are wanted.

        It is asked anew each time; who has an earlier pin does not ask.
        """
        if ref.kind == "local":
            folder = self.local(ref.path or "", span)
            here = [path.name for path in folder.iterdir() if path.is_file()]
            return Locked(path=ref.path, files=records(folder, filter(wanted, here)))
        assert ref.repo is not None
        with standing(span):
            store = self.store(ref)
            revision = store.resolve(ref.repo, ref.revision)
            files = store.files(ref.repo, revision)
        return Locked(ref.repo, revision, files={n: f for n, f in files.items() if wanted(n)})

    def composed(self, ref: Ref) -> bool:
        """Whether a reference may be a published composition, as far as that is known by now."""
        if ref.kind == "local":
            with suppress(Failed):
                return (self.local(ref.path or "") / COMPOSITION[0]).is_file()
            return False
        pin = self.pins.get(str(ref))
        return ref.kind == "hub" and (pin is None or COMPOSITION[0] in pin.files)

    def near(self, ref: Ref | None, pin: Locked | None) -> bool:
        """Whether all files of a pin are on this machine."""
        if ref is None or pin is None or pin.path is not None:
            return True
        assert pin.repo is not None and pin.revision is not None
        inside = [pin.within(name) for name in pin.files]
        return not self.store(ref).uncached(pin.repo, pin.revision, inside)

    def fetch(self, ref: Ref, pin: Locked, names: Collection[str] | None = None) -> Path:
        """The folder with the pin's files (or those named), each with the hash of the pin."""
        wanted = [name for name in pin.files if names is None or name in names]
        if pin.path is not None:
            folder = self.local(pin.path)
        else:
            assert pin.repo is not None
            inside = [pin.within(name) for name in wanted]
            folder = self.store(ref).fetch(pin.repo, pin.revision, inside)
            folder = folder / pin.subfolder if pin.subfolder else folder
        for name in wanted:
            verify(folder, name, pin.files[name], pin.repo or pin.path or "")
        return folder

    def check_at_hand(self, pins: Mapping[str, Locked]) -> None:
        """AC405 for every file of the pins that is missing while offline mode is on, all at once.

        A pin's name is the reference, which tells whose it is.
        """
        missing = []
        for name, pin in pins.items():
            if pin.repo is None or pin.revision is None:
                continue
            store = open_store("hf", self.root) if name.startswith("hf://") else self.store()
            inside = [pin.within(path) for path in pin.files]
            if paths := store.absent(pin.repo, pin.revision, inside):
                missing.append(not_cached(pin.repo, pin.revision, paths))
        if missing:
            raise Failed(dict.fromkeys(missing))

    def shapes(self, ref: Ref, pin: Locked, name: str) -> Shapes | None:
        """The shapes of the tensors in a file; None where only a download would tell.

        Of a file that is not on this machine the header is read, a few kilobytes.
        """
        label = f"{ref}: {name}"
        if pin.path is not None or not isinstance(store := self.store(ref), InPieces):
            return read_shapes(self.fetch(ref, pin, [name]) / name, label)
        repo, revision = pin.repo, pin.revision
        assert repo is not None and revision is not None
        path = pin.within(name)
        if not name.endswith(".safetensors") or store.absent(repo, revision, [path]):
            return None

        def piece(start: int, stop: int) -> bytes:
            return store.piece(repo, revision, path, start, stop)

        return read_header(piece, pin.files[name].size, label)


def _place(ref: Ref, variant: Variant | None) -> tuple[str, str | None, str | None]:
    """Repository, revision and subfolder: of the reference itself, or of the card's variant."""
    if ref.kind == "hub":
        assert ref.repo is not None
        return ref.repo, ref.revision, ref.subfolder
    assert variant is not None, "the checker has chosen a variant"
    return variant.repo, variant.revision, variant.subfolder


def own_files(files: Mapping[str, FileRecord], subfolder: str) -> dict[str, FileRecord]:
    """The files that matter: configurations and weights directly in the folder."""
    prefix = f"{subfolder}/" if subfolder else ""
    own = {path[len(prefix) :]: found for path, found in files.items() if path.startswith(prefix)}
    names = adapters.FILES | (set() if adapterhub.ADAPTER in own else set(COMPOSITION))
    kept = {name: own[name] for name in sorted(own) if name in names}
    twins = {pickle for pickle, safe in adapters.TWINS.items() if safe in own}
    return {name: found for name, found in kept.items() if name not in twins}


@dataclass
class Resolved:
    """The graph with pins, methods and heads, and what there is to say about it."""

    graph: Block
    notes: list[Diagnostic]


def resolve(graph: Block, facts: Facts, sources: Sources) -> Resolved:
    """Locked every reference and read its configuration; all problems of all adapters at once."""
    read = look_up(graph, facts, sources)
    if errors(read.notes):
        raise Failed(read.notes)
    return read


def look_up(graph: Block, facts: Facts | None, sources: Sources) -> Resolved:
    """The graph with every reference that can be read; what cannot is among the notes.

    Without a backbone references stay as they are, and what is wrong with them is told.
    """
    found: list[Diagnostic] = []

    def pin(block: Block) -> Block:
        try:
            ref = block.ref if isinstance(block, Adapter | Fuse) and not block.pin else None
            if ref is not None and not (sources.reads(ref) and _chosen(block, ref)):
                return block
            if ref is not None and facts is None:
                _glance(block, ref, sources)
            elif isinstance(block, Adapter) and ref is not None and facts is not None:
                return _known(block, facts, sources, found)
            elif isinstance(block, Fuse) and ref is not None and facts is not None:
                return _fusion(block, facts, sources, found)
            if isinstance(block, Prune) and block.by is not None and block.measured is None:
                place = sources.root / Path(block.by).expanduser()
                return block.fitted(read_activations(place, block.by, block.span), block.by)
            if isinstance(block, Swap) and complete(block.body):
                return block.applied()
        except Failed as failed:
            found.extend(failed.at(block.span).diagnostics)
        return block

    return Resolved(transform(graph, pin), list(dict.fromkeys(found)))


def _chosen(block: Block, ref: Ref) -> bool:
    """Whether it is known what a name of the catalogue is; without a backbone it is not."""
    if ref.kind in ("hub", "local"):
        return True
    if isinstance(block, Fuse):
        help = "load= names a folder or a repository"
        raise Failed(codes.AC406.at(block.span, name=str(ref), what="no fusion", help=help))
    return isinstance(block, Adapter) and block.variant is not None


def _glance(block: Block, ref: Ref, sources: Sources) -> None:
    """Failed if a reference leads to nothing, or an adapter's to something else."""
    if isinstance(block, Adapter) and block.variant is not None:
        return
    pin = sources.pin(ref, None, block.span)
    if isinstance(block, Adapter) and not {COMPOSITION[0], SETUP} & pin.files.keys():
        _described(block, pin, sources)


def _known(leaf: Adapter, facts: Facts, sources: Sources, notes: list[Diagnostic]) -> Block:
    """What a reference means, read once."""
    key = (leaf.ref, leaf.variant, facts.title, facts.layers, facts.width)
    if key not in sources._leaves:
        sources._leaves[key] = _leaf(leaf, facts, sources, notes)
    found = sources._leaves[key]
    return replace(found, span=leaf.span) if isinstance(found, Adapter) else found


def _leaf(leaf: Adapter, facts: Facts, sources: Sources, notes: list[Diagnostic]) -> Block:
    """What a reference means: an adapter, a published composition, or a setup of AdapterHub."""
    assert leaf.ref is not None
    pin = sources.pin(leaf.ref, leaf.variant, leaf.span)
    if COMPOSITION[0] not in pin.files and SETUP not in pin.files:
        return _adapter(leaf, pin, facts, sources, notes)
    from adaptcompose.resolution.published import expand, expand_setup

    if COMPOSITION[0] not in pin.files:
        found = expand_setup(leaf, pin, facts, sources)
        notes += found.notes
        return found.graph
    block, resolved = expand(leaf, pin, facts, sources)
    notes += resolved.notes
    return block


def _adapter(
    leaf: Adapter, pin: Locked, facts: Facts, sources: Sources, notes: list[Diagnostic]
) -> Adapter:
    assert leaf.ref is not None
    described = _described(leaf, pin, sources)
    safe, pickle = adapters.weights_names(described)
    if safe not in pin.files and pickle in pin.files:
        notes.append(codes.AC409.at(leaf.span, name=str(leaf.ref)))
    shapes = _shapes(leaf.ref, pin, (safe, pickle), sources, leaf.span)
    if shapes is None and adapters.told_by_tensors(described):
        sources.fetch(leaf.ref, pin)
    read = adapters.read(described, facts, shapes)
    kept = None if read.head is None else Head(leaf.name, read.head)
    method = read.method
    pin = replace(pin, method=str(method))
    return replace(leaf, pin=pin, base=described.base, method=method, head=kept)


def _described(leaf: Adapter, pin: Locked, sources: Sources) -> adapterhub.Described:
    """What the configuration of an adapter says."""
    assert leaf.ref is not None
    configurations = [adapterhub.ADAPTER, adapterhub.HEAD, adapterhub.FUSION]
    folder = sources.fetch(leaf.ref, pin, configurations)
    described = adapterhub.describe_adapter(folder, str(leaf.ref), leaf.span)
    if described.outer.get("adapter_names") is not None:
        raise Failed(codes.AC406.at(leaf.span, name=str(leaf.ref), what="a fusion"))
    return described


def _shapes(
    ref: Ref, pin: Locked, names: Sequence[str], sources: Sources, span: Span | None
) -> Shapes | None:
    """The shapes of an object's weights, or None where only a download would tell."""
    for name in names:
        if name in pin.files:
            return sources.shapes(ref, pin, name)
    raise Failed(codes.AC418.at(span, name=str(ref), missing=" and ".join(names)))


def _fusion(block: Fuse, facts: Facts, sources: Sources, notes: list[Diagnostic]) -> Fuse:
    assert block.ref is not None
    title = str(block.ref)
    pin = sources.pin(block.ref, None, block.span)
    folder = sources.fetch(block.ref, pin, [adapterhub.FUSION])
    described = adapterhub.describe(folder, adapterhub.FUSION, title, block.span)
    if described is None:
        raise Failed(
            codes.AC406.at(block.span, name=title, what="no fusion", help="load= names one")
        )
    trained = described.outer.get("adapter_names")
    given = [str(getattr(slot.block, "ref", slot.block)).split("/")[-1] for slot in block.members]
    if isinstance(trained, list) and len(trained) != len(given):
        notes.append(
            codes.AC506.at(
                block.span, name=title, trained=", ".join(map(str, trained)), given=", ".join(given)
            )
        )
    shapes = _shapes(block.ref, pin, adapterhub.WEIGHTS[adapterhub.FUSION], sources, block.span)
    if shapes is None:
        described = replace(described, folder=sources.fetch(block.ref, pin))
    loaded = adapterhub.read_fusion(described, facts, shapes)
    if wrong := list(adapterhub.misfits(described, loaded, facts, shapes or {})) if shapes else []:
        raise Failed(wrong)
    return replace(block, pin=pin, loaded=loaded)
