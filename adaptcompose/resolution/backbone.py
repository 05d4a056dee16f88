"""Find the backbone of a composition: its pinned files, and the facts in its config.json."""

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
    """A checkpoint that is not loaded yet; `tokenizer` is set if it is not the checkpoint's."""

    ref: Ref
    pin: Pin
    facts: Facts
    sources: Sources
    tokenizer: Tokenizer | None = None

    @property
    def pins(self) -> dict[str, Pin]:
        """The pins in a lock: of the backbone, and of the tokenizer if it is another."""
        return {"backbone": self.pin} | (
            {} if self.tokenizer is None else {"tokenizer": self.tokenizer.pin}
        )

    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer in use."""
        return self.folder() if self.tokenizer is None else self.tokenizer.folder()

    def folder(self) -> Path:
        """The folder with all files of the checkpoint, each with its pinned hash."""
        self.check_files(tokenizer=False)
        return self.sources.fetch(self.ref, self.pin)

    def loaded_in(self, dtype: str) -> Backbone:
        """The same backbone, loaded in another dtype."""
        config = {**self.facts.config, "dtype": dtype}
        return replace(self, facts=replace(self.facts, config=config))

    def check_files(self, span: Span | None = None, *, tokenizer: bool = True) -> None:
        """Raise Failed with AC418 unless there are weights and a tokenizer.

        Without vocabulary files, transformers may create an empty tokenizer and raise no error.
        """
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
    """The backbone in a repository or a folder; only config.json is read."""
    ref = parse_repository_ref(text, span)
    # a folder is always read as it is now; a lock with other hashes is out of date
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
    """The path of a folder with a checkpoint, which needs no `./` here, or else `text` itself."""
    folder = root / text
    return str(folder.resolve()) if (folder / "config.json").is_file() else text


def _is_of_backbone(name: str) -> bool:
    """Whether a file belongs to a backbone: configuration, safetensors or tokenizer, no pickle."""
    return "/" not in name and name.endswith((".json", ".safetensors", ".model", ".txt"))
