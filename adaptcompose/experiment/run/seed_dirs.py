"""The folders of the seeds of a run: a finished seed is reused, an interrupted one resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.graph import Head
from adaptcompose.composition.operators import parts_of
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.hub.lock import hash_plain
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.version import __version__

STATE_FILE, RESULT_FILE, DIGEST_FILE = "trained.safetensors", "done.json", "digest"
_KEYS_WITHOUT_EFFECT = {"seeds", "budget", "device"}  # on the training of one seed


@dataclass(frozen=True)
class SeedResult:
    """The result of training a seed to its end.

    `score` is on validation, `curve` the log of the Trainer: one entry per logged step.
    """

    score: float | None
    steps: int
    seconds: float
    curve: list[dict[str, Any]]


@dataclass(frozen=True)
class SeedDir:
    """`runs/<name>/seed-<n>`. `digest` is the hash of everything that decides the result."""

    path: Path
    digest: str

    def read_result(self) -> SeedResult | None:
        """The stored result, if the seed is finished and its digest is the same."""
        try:
            entry = json.loads((self.path / RESULT_FILE).read_text("utf-8"))
            if entry.pop("digest") == self.digest and (self.path / STATE_FILE).is_file():
                return SeedResult(**entry)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return None

    def start(self, *, fresh: bool) -> None:
        """Create the folder. Checkpoints stay if the digest is the same, unless `fresh`."""
        if fresh or self._stored_digest() != self.digest:
            shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / DIGEST_FILE, self.digest)

    def write_result(self, result: SeedResult) -> None:
        """Store the result, and delete the checkpoints. The state must be saved before."""
        write_atomically(
            self.path / RESULT_FILE, json.dumps({"digest": self.digest} | vars(result), indent=2)
        )
        for checkpoint in self.path.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _stored_digest(self) -> str | None:
        path = self.path / DIGEST_FILE
        return path.read_text("utf-8", "replace") if path.is_file() else None


def seed_digest(prepared: PreparedRun) -> str:
    """The hash of everything that decides how a seed is trained, but not how it is evaluated."""
    spec, train = prepared.spec, prepared.spec.train
    assert train is not None and spec.task is not None and prepared.task is not None
    lock, head = prepared.lock.as_plain(), prepared.head
    refs = [ref for ref in (train.data, train.validation) if ref is not None]
    data = {str(ref): [lock["data"][str(ref)], spec.data[ref.name].as_plain()] for ref in refs}
    adapters = {str(ref): lock.get("adapters", {}).get(str(ref)) for ref in _adapter_refs(prepared)}
    training = {
        name: value for name, value in train.as_plain().items() if name not in _KEYS_WITHOUT_EFFECT
    }
    return hash_plain(
        {
            "version": __version__,
            "backbone": [lock["backbone"].get("files"), spec.backbone.as_plain()],
            "tokenizer": lock.get("tokenizer", {}).get("files"),
            "adapters": adapters,
            "graph": format_canonical(prepared.graph),
            "head": head.config if isinstance(head, Head) else head,
            "task": [spec.task.as_plain(), prepared.task.labels],
            "trained": sorted(prepared.trained_parts),
            "data": data,
            "train": training,
        }
    )


def _adapter_refs(prepared: PreparedRun) -> list[str]:
    return [str(part.ref) for part in parts_of(prepared.graph).values() if part.ref is not None]
