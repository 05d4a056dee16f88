"""Another tokenizer than the backbone's own: its pinned files, in a repository or a folder."""

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
"""What transformers opens of a tokenizer; `config.json` says its class where nothing else does."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that is not opened yet."""

    ref: Ref
    pin: Pin
    sources: Sources

    def folder(self) -> Path:
        """The folder with its files, each verified where it is pinned."""
        return self.sources.fetch(self.ref, self.pin)


def find_tokenizer(
    text: str, sources: Sources, *, pin: Pin | None = None, span: Span | None = None
) -> Tokenizer:
    """The tokenizer of a repository or folder; nothing of it is fetched yet."""
    ref = parse_repository_ref(text, span)
    # a folder is what it holds now
    known = pin if ref.kind == "hub" else None
    found = known or sources.pin_checkpoint(ref, TOKENIZER_FILES.__contains__, span)
    if not VOCABULARY_FILES & found.files.keys():
        help = "name a folder or repository with a tokenizer of transformers"
        raise Failed(AC418.at(span, name=text, missing="tokenizer.json", help=help))
    return Tokenizer(ref, found, sources)
