"""The backbone of a composition: its name, its pinned files, and the facts of its config.json."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.backbones.layout import Facts, read_config, read_facts
from adaptcompose.diagnostics.codes import AC418
from adaptcompose.diagnostics.diagnostic import Failed, Span, default_span
from adaptcompose.hub.lock import Pin
from adaptcompose.resolution.sources import Sources
from adaptcompose.resolution.tokenizer import VOCABULARY_FILES, Tokenizer
from adaptcompose.syntax.references import Ref, parse_repository_ref


@dataclass(frozen=True)
class Backbone:
    """A checkpoint that is not loaded yet, and the tokenizer if it is not its own."""

    ref: Ref
    pin: Pin
    facts: Facts
    sources: Sources
    tokenizer: Tokenizer | None = None

    @property
    def pins(self) -> dict[str, Pin]:
        """What a lock says of it and of another tokenizer."""
        return {"backbone": self.pin} | (
            {} if self.tokenizer is None else {"tokenizer": self.tokenizer.pin}
        )

    def tokenizer_folder(self) -> Path:
        """The folder with the files of the tokenizer that texts go through."""
        return self.folder() if self.tokenizer is None else self.tokenizer.folder()

    def folder(self) -> Path:
        """The folder with every file of the checkpoint, each verified where it is pinned."""
        self.check_files(tokenizer=False)
        return self.sources.fetch(self.ref, self.pin)

    def loaded_in(self, dtype: str) -> Backbone:
        """The same, with weights in another type."""
        config = {**self.facts.config, "dtype": dtype}
        return replace(self, facts=replace(self.facts, config=config))

    def check_files(self, span: Span | None = None, *, tokenizer: bool = True) -> None:
        """AC418 unless weights and tokenizer are there: transformers would make up the latter."""
        names = self.pin.files.keys()
        weights = any(name.endswith(".safetensors") for name in names)
        needed = tokenizer and self.tokenizer is None
        if not weights or (needed and not VOCABULARY_FILES & names):
            missing = "tokenizer.json" if weights else "model.safetensors"
            help = "name a complete checkpoint, with safetensors and a tokenizer"
            raise Failed(AC418.at(span, name=str(self.ref), missing=missing, help=help))


def find_backbone(
    text: str,
    sources: Sources,
    *,
    known_as: str | None = None,
    pin: Pin | None = None,
    span: Span | None = None,
) -> Backbone:
    """The backbone of a repository or folder; only config.json is read."""
    ref = parse_repository_ref(text, span)
    # a folder is what it holds now; a lock that says otherwise is out of date
    known = pin if ref.kind == "hub" else None
    pin = known or sources.pin_checkpoint(ref, _is_of_backbone, span)
    if "config.json" not in pin.files:
        help = "name a checkpoint of transformers"
        raise Failed(AC418.at(span, name=text, missing="config.json", help=help))
    folder = sources.fetch(ref, pin, ["config.json"])
    name = known_as or (ref.repo if ref.kind == "hub" else None)
    with default_span(span):
        return Backbone(ref, pin, read_facts(read_config(folder), name), sources)


def as_folder_or_name(text: str, root: Path) -> str:
    """What a person means who types a folder's name without `./`, as one does outside a spec."""
    folder = root / text
    return str(folder.resolve()) if (folder / "config.json").is_file() else text


def _is_of_backbone(name: str) -> bool:
    """Configuration, safetensors weights, tokenizer: what transformers opens; no pickles."""
    return "/" not in name and name.endswith((".json", ".safetensors", ".model", ".txt"))
