"""Reading a composition from its folder, with the outputs of the model that was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.graph import Head
from adaptcompose.composition.heads import NEW_HEAD_NAME, HeadChoice
from adaptcompose.composition.structure import structural_problems
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed, Source, select_errors
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import HEAD
from adaptcompose.hub.lock import Lock, Pin
from adaptcompose.resolution.backbone import Backbone, find_backbone
from adaptcompose.resolution.manifest import FILE, LOCK, Manifest, read_local_paths
from adaptcompose.resolution.resolve import resolve
from adaptcompose.resolution.sources import Sources
from adaptcompose.resolution.tokenizer import Tokenizer, find_tokenizer
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.build import build, facts_of_model, load_backbone
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.syntax.references import is_path, is_safe_path, parse_repository_ref


@dataclass(frozen=True)
class SavedComposition:
    """A folder with a composition. `here` is what a note of this machine says."""

    folder: Path
    title: str
    manifest: Manifest
    lock: Lock
    local_sources: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path, title: str, *, trusted: bool) -> SavedComposition:
        """Read manifest and lock; local sources are trusted only in a folder of the user's own."""
        manifest, lock = Manifest.load(folder, title), Lock.load(folder / LOCK)
        if lock is None:
            raise Failed(codes.AC418.at(name=title, missing=LOCK))
        return cls(folder, title, manifest, lock, read_local_paths(folder) if trusted else {})

    def sources(self, hub: str | None) -> Sources:
        """The hub of the composition's references; `./` is its own folder."""
        sources = Sources(
            hub or self.local_sources.get("hub", "hf"), self.folder, self.lock.adapters
        )
        if not sources.is_remote:
            sources.hub = str(Path(sources.hub).expanduser().resolve())
        return sources

    def pins(self, backbone: Any) -> dict[str, Pin]:
        """The pins of everything to fetch; the recorded backbone only if none is given."""
        own = {} if backbone is not None else {"backbone": self.lock.backbone}
        return own | dict(self.lock.adapters)

    def tokenizer(self, sources: Sources) -> Tokenizer | None:
        """The tokenizer, if the composition was trained with another than the backbone's own."""
        text = self.manifest.backbone.get("tokenizer")
        if text is None:
            return None
        if parse_repository_ref(text).kind == "hub":
            return find_tokenizer(text, sources, pin=self.lock.tokenizer)
        if not text.startswith("./") or not is_safe_path(text[2:]):
            why = "its tokenizer is outside its folder"
            raise Failed(codes.AC413.at(file=f"{self.title}: {FILE}", why=why))
        return find_tokenizer(str((self.folder / text[2:]).resolve()), sources)

    def find_backbone(self, backbone: str | None, sources: Sources) -> Backbone:
        """The given backbone, or exactly the recorded one."""
        known_as, pin = self.manifest.backbone.get("as"), self.lock.backbone
        if backbone is not None:
            local = is_path(backbone) or Path(backbone).is_dir()
            text = str(Path(backbone).expanduser().resolve()) if local else backbone
            return find_backbone(text, sources, known_as=known_as if local else None)
        if "model" in self.manifest.backbone:
            return find_backbone(self.manifest.backbone["model"], sources, pin=pin)
        place = self.local_sources.get("backbone", "")
        if not Path(place).is_dir() or not place:
            name = known_as or "a folder without a name"
            raise Failed(codes.AC424.at(name=self.title, backbone=name))
        found = find_backbone(place, sources, known_as=known_as)
        for path, file in pin.files.items():
            if found.pin.files.get(path) != file:
                raise Failed(
                    codes.AC411.at(
                        file=path, repo=place, help="pass the right backbone: `backbone=…`"
                    )
                )
        return found


def load_composition(
    folder: Path, title: str, *, backbone: Any = None, hub: str | None = None, trusted: bool = True
) -> ComposedModel:
    """Load the model from a folder that `save_composition` wrote; every hash is verified."""
    saved = SavedComposition.open(folder, title, trusted=trusted)
    sources = saved.sources(hub)
    manifest = saved.manifest
    sources.check_offline(saved.pins(backbone))
    base: Backbone | None = None
    if isinstance(backbone, PreTrainedModel):
        facts, stock = facts_of_model(backbone), backbone
    else:
        base = saved.find_backbone(None if backbone is None else str(backbone), sources)
        how = {name: manifest.backbone[name] for name in _HOW if name in manifest.backbone}
        facts = base.facts
        stock = load_backbone(
            base.folder(), with_head="backbone" in manifest.heads().values(), **how
        )
    source = Source(manifest.expression, f"{title}: {FILE}")
    checked = check_source(
        source, CheckContext(Catalogue.open(resource_folder("hub_cards")), facts)
    )
    graph = resolve(checked.raise_errors(), facts, sources).graph
    if problems := select_errors(structural_problems(graph, facts)):
        raise Failed(problems)
    found = {
        name: _read_head(text, folder, title, facts) for name, text in manifest.heads().items()
    }
    choices = {name: head for name, (head, _) in found.items()}
    if branches := graph.branches:
        head: HeadChoice = {name: choices.get(name, "auto") for name in branches}
    else:
        head = choices.get("", "auto")
    model = build(graph, facts, stock, sources, head=head)
    made = replace(model.composition, tokenizer=saved.tokenizer(sources))
    model.composition = replace(made, backbone_pin=base.pin if base else None)
    for name, (_, tensors) in found.items():
        flex = model.head_of(name)
        if tensors is not None and flex is not None:
            flex.load_tensors(tensors)
            flex.slots.requires_grad_(False)
    return model


_HOW = ("dtype", "attention")


def _read_head(text: str, folder: Path, title: str, facts: Facts) -> tuple[HeadChoice, Any]:
    """The head choice for `build`, and the tensors of a head in the folder."""
    if text == "none":
        return None, None
    if not text.startswith("./"):
        return text, None
    place = text[2:]
    if not is_safe_path(place):
        raise Failed(codes.AC413.at(file=f"{title}: {FILE}", why="its head is outside its folder"))
    stored = open_adapter_folder(folder / place, f"{title}: {place}").on(facts)
    if stored.head is None:
        raise Failed(codes.AC418.at(name=title, missing=f"{place}/{HEAD}"))
    return Head(NEW_HEAD_NAME, stored.head), stored.head_tensors()
