"""Find a tokenizer other than the backbone's own, in a repository or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptcompose.diagnostics.codes import AC418
from adaptcompose.diagnostics.diagnostic import Failed, Span
from adaptcompose.hub.lock import Pin
from adaptcompose.resolution.sources import Sources
from adaptcompose.syntax.references import Ref, parse_repository_ref

VOCABULARY_FILES = {
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
}
TOKENIZER_FILES = VOCABULARY_FILES | {
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "config.json",
}
"""The files of a tokenizer that transformers opens; some have their class only in config.json."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that is not loaded yet."""

    ref: Ref
    pin: Pin
    sources: Sources

    def folder(self) -> Path:
        """The folder with its files, each with its pinned hash."""
        return self.sources.fetch(self.ref, self.pin)


def find_tokenizer(
    text: str, sources: Sources, *, pin: Pin | None = None, span: Span | None = None
) -> Tokenizer:
    """The tokenizer in a repository or a folder; no file is fetched yet."""
    ref = parse_repository_ref(text, span)
    # a folder is always read as it is now
    known = pin if ref.kind == "hub" else None
    pin = known or sources.pin_checkpoint(ref, TOKENIZER_FILES.__contains__, span)
    if not VOCABULARY_FILES & pin.files.keys():
        help = "name a folder or repository with a tokenizer of transformers"
        raise Failed(AC418.at(span, name=text, missing="tokenizer.json", help=help))
    return Tokenizer(ref, pin, sources)
