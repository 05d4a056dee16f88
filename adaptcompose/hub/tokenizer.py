"""Another tokenizer than the backbone's own: its pinned files, in a repository or a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from adaptcompose.hub.lock import Locked
from adaptcompose.hub.refs import Ref, local_ref, parse_ref
from adaptcompose.hub.resolve import Sources
from adaptcompose.hub.store import records
from adaptcompose.language.codes import AC418, AC420
from adaptcompose.language.diagnostics import Failed, Span

TOKENIZERS = {
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
}
FILES = TOKENIZERS | {
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
    pin: Locked
    sources: Sources

    def folder(self) -> Path:
        """The folder with its files, each verified where it is pinned."""
        return self.sources.fetch(self.ref, self.pin)


def checkpoint_ref(text: str, span: Span | None) -> Ref:
    """What `backbone.model` or `backbone.tokenizer` means: a repository or a folder."""
    if Path(text).is_absolute():
        return local_ref(text)
    ref = parse_ref(text, (), span)
    # the early models of the Hub have one-word names
    return Ref("hub", repo=ref.name) if ref.kind == "bare" else ref


def find_tokenizer(
    text: str, sources: Sources, *, pin: Locked | None = None, span: Span | None = None
) -> Tokenizer:
    """The tokenizer of a repository or folder; nothing of it is fetched yet."""
    ref = checkpoint_ref(text, span)
    try:
        found = _local(ref, sources) if ref.kind == "local" else pin or _of_hub(ref, sources)
    except Failed as failed:
        raise Failed([replace(f, span=f.span or span) for f in failed.diagnostics]) from None
    if not TOKENIZERS & found.files.keys():
        help = "name a repository or a folder with a tokenizer of transformers"
        raise Failed(AC418.at(span, name=text, missing="tokenizer.json", help=help))
    return Tokenizer(ref, found, sources)


def _local(ref: Ref, sources: Sources) -> Locked:
    assert ref.path is not None
    folder = sources.local(ref.path)
    inside = _of_tokenizer(path.name for path in folder.iterdir() if path.is_file())
    return Locked(path=ref.path, files=records(folder, inside))


def _of_hub(ref: Ref, sources: Sources) -> Locked:
    if ref.repo is None or ref.glob or ref.subfolder:
        raise Failed(AC420.at(name=str(ref)))
    store = sources.store(ref)
    revision = store.resolve(ref.repo, ref.revision)
    files = store.files(ref.repo, revision)
    return Locked(ref.repo, revision, files={name: files[name] for name in _of_tokenizer(files)})


def _of_tokenizer(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name in FILES)
