"""A reference to a published composition: it stands for its expression, under its own lock.

Its own parts are folders beside its manifest, everything else is pinned by its lock, so that it
means the same wherever it is used.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.check import Context, check
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Head,
    Published,
    transform,
)
from adaptcompose.composition.operators import Fuse, Prune, slots
from adaptcompose.composition.operators.prune import FILE as ACTIVATIONS
from adaptcompose.composition.operators.prune import read_activations
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapterhub_setup import SETUP, expression
from adaptcompose.hub.lock import Lock, Locked
from adaptcompose.resolution.resolve import Resolved, Sources, resolve
from adaptcompose.resources import resource
from adaptcompose.syntax.references import Ref, is_safe_path, parse_ref

if TYPE_CHECKING:
    from adaptcompose.resolution.manifest import Manifest

DEEPEST = 8  # compositions may refer to compositions; more than this is a circle


def expand(
    leaf: Adapter, pin: Locked, facts: Facts, sources: Sources
) -> tuple[Published, Resolved]:
    """The composition that a reference means, resolved, and what there is to say about it."""
    from adaptcompose.resolution.manifest import FILE, LOCK, Manifest

    assert leaf.ref is not None
    title = str(leaf.ref)
    if sources.depth >= DEEPEST:
        raise Failed(codes.AC108.at(leaf.span, name=title, cycle=f"{title} → … → {title}"))
    folder = sources.fetch(leaf.ref, pin, [FILE, LOCK, ACTIVATIONS])
    manifest, lock = Manifest.open(folder, title), Lock.open(folder / LOCK)
    if lock is None:
        raise Failed(codes.AC418.at(leaf.span, name=title, missing=LOCK))
    source = Source(manifest.expression, f"{title}: {FILE}")
    cards = Catalogue.open(resource("hub_cards"))
    graph = check(source, Context(cards, facts)).raise_errors()
    place = _Place(leaf.ref, pin, title, folder)
    graph = transform(graph, place.inside)
    pins = {str(place.forced(text)): found for text, found in lock.adapters.items()}
    known = {**sources.pins, **pins}
    own = Sources(sources.hub, sources.root, known, sources.depth + 1, sources.ask)
    resolved = resolve(graph, facts, own)
    head = _head(manifest, place, own)
    graph, named = resolved.graph, tuple(slots(resolved.graph))
    return Published(leaf.ref, graph, pin, head, named, span=leaf.span), resolved


def expand_setup(leaf: Adapter, pin: Locked, facts: Facts, sources: Sources) -> Resolved:
    """What a setup of AdapterHub composes, of the folders below it at the setup's revision."""
    assert leaf.ref is not None
    title = str(leaf.ref)
    folder = sources.fetch(leaf.ref, pin, [SETUP])
    try:
        text = expression(json.loads((folder / SETUP).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        known = "setups of Stack, Fuse, Average, Parallel and Split"
        method = f"a setup that is no composition here: {error}"
        raise Failed(codes.AC407.at(leaf.span, name=title, method=method, known=known)) from None
    context = Context(Catalogue.open(resource("hub_cards")), facts)
    graph = check(Source(text, f"{title}: {SETUP}"), context).raise_errors()
    graph = transform(graph, _Place(leaf.ref, pin, title, folder).inside)
    return resolve(graph, facts, sources)


def _head(manifest: Manifest, place: _Place, sources: Sources) -> Adapter | None:
    """What carries the head where that is in a folder of its own."""
    said = manifest.heads().get("", "")
    if not said.startswith("./"):
        return None
    ref = place.own(said)
    pin = sources.pin(ref)
    found = adapterhub.describe(sources.fetch(ref, pin), adapterhub.HEAD, str(ref))
    if found is None or not found.config:
        missing = f"{said[2:]}/{adapterhub.HEAD}"
        raise Failed(codes.AC418.at(name=place.title, missing=missing))
    return Adapter(str(ref), ref=ref, pin=pin, head=Head(str(ref), found.config))


class _Place:
    """Where a composition lies, and what its references mean from outside."""

    def __init__(self, ref: Ref, pin: Locked, title: str, folder: Path) -> None:
        self.ref, self.pin, self.title, self.folder = ref, pin, title, folder
        self.renamed: dict[str, str] = {}

    def inside(self, block: Block) -> Block:
        """A block of the expression with references that hold everywhere."""
        if isinstance(block, Adapter) and block.ref is not None:
            ref = self._ref(block.ref)
            return replace(block, ref=ref, name=str(ref))
        if isinstance(block, Fuse) and block.ref is not None:
            ref = self._ref(block.ref)
            self.renamed[block.name] = str(ref)
            return replace(block, ref=ref, load=str(ref), name=str(ref))
        if isinstance(block, Prune):
            measured = read_activations(self.folder / ACTIVATIONS, f"{self.title}: {ACTIVATIONS}")
            named = {self.renamed.get(name, name): found for name, found in measured.items()}
            return block.fitted(named, self.title)
        if isinstance(block, Adapter | Fuse):
            why = f"`{block}` has no weights there"
            raise Failed(codes.AC413.at(file=self.title, why=why))
        return block

    def _ref(self, ref: Ref) -> Ref:
        if ref.kind == "local":
            return self.own(ref.path or "")
        return self.forced(str(ref)) if ref.kind == "hub" else ref

    def own(self, path: str) -> Ref:
        """A folder of the composition's own, as a reference from outside."""
        name = path.removeprefix("./")
        if not path.startswith("./") or not is_safe_path(name):
            why = f"`{path}` is not in its folder"
            raise Failed(codes.AC413.at(file=self.title, why=why))
        if self.pin.path is not None:
            return Ref("local", path=f"{self.pin.path.rstrip('/')}/{name}")
        below = "/".join(filter(None, [self.pin.subfolder, name]))
        repo, revision = self.pin.repo, self.pin.revision
        return Ref("hub", repo=repo, revision=revision, subfolder=below, forced=self.ref.forced)

    def forced(self, text: str) -> Ref:
        """What comes from the Hugging Face Hub by force refers to it by force."""
        ref = parse_ref(text, ())
        return replace(ref, forced=ref.forced or self.ref.forced)
