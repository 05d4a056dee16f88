"""Pushing: everything of a composition goes to a hub in one commit, or in one pull request."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from adaptcompose.diagnostics.codes import AC413, AC420, AC432
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.report import report
from adaptcompose.experiment.report.report import Score
from adaptcompose.experiment.share.model_card import (
    README_FILE,
    SCORES_FILE,
    EvalResults,
    ModelCard,
)
from adaptcompose.experiment.share.push_diff import PushDiff, diff_files, remote_files
from adaptcompose.formats import adapterhub
from adaptcompose.hub.lock import Pin
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.store import Store, walk_files
from adaptcompose.resolution.manifest import Manifest
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.loader import composition_folder, load
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.syntax.references import Ref, is_repo_name

CONFIG_FILES = (adapterhub.ADAPTER, adapterhub.HEAD, adapterhub.FUSION)


@dataclass(frozen=True)
class PushTarget:
    """Where a push goes, and how."""

    repo: str
    branch: str = "main"
    as_pull_request: bool = False
    private: bool = True
    includes_pinned: bool = False
    message: str = ""

    def check(self) -> None:
        if not is_repo_name(self.repo) or self.repo.count("/") != 1:
            raise Failed(AC420.at(name=self.repo))


@dataclass(frozen=True)
class PushResult:
    """A push that arrived: its revision, and the pull request if it is one."""

    repo: str
    revision: str
    number: int | None = None
    url: str | None = None

    def __str__(self) -> str:
        return self.url or f"{self.repo}@{self.revision[:7]}"


@dataclass(frozen=True)
class Push:
    """A push that is ready: every file, as it would lie in the repository."""

    target: PushTarget
    store: Store
    files: Mapping[str, Path] = field(repr=False)

    @property
    def card(self) -> str:
        return self.files[README_FILE].read_text("utf-8")

    def obsolete_files(self) -> set[str]:
        """Parts of an earlier push that this one has no more; what else is there stays."""
        old = remote_files(self.store, self.target.repo, self.target.branch) or {}
        parts = {str(PurePosixPath(path).parent) for path in old if path.endswith(CONFIG_FILES)}
        gone = {path for path in old if str(PurePosixPath(path).parent) in parts}
        own = {SCORES_FILE} & old.keys()
        return (gone | own) - self.files.keys()

    def diff(self) -> PushDiff:
        """What it would change; nothing is written."""
        target = self.target
        gone = self.obsolete_files()
        return diff_files(self.store, target.repo, target.branch, self.files, gone)

    def send(self) -> PushResult:
        """One commit, or one pull request; the hub is old or new, never between."""
        target, gone = self.target, self.obsolete_files()
        message = target.message or f"{target.repo.split('/')[-1]}, by adaptcompose"
        if target.as_pull_request:
            made = self.store.open_pull_request(
                target.repo, self.files, message=message, delete=gone
            )
            return PushResult(target.repo, made.revision, made.number, made.url)
        revision = self.store.commit(
            target.repo,
            self.files,
            message=message,
            delete=gone,
            branch=target.branch,
            private=target.private,
        )
        return PushResult(target.repo, revision)


@contextmanager
def prepare_push(
    model: ComposedModel,
    manifest_fields: Mapping[str, Any],
    eval_results: EvalResults,
    target: PushTarget,
    store: Store,
) -> Iterator[Push]:
    """The push of a model; `manifest_fields` is what composition.yaml says beside the composition."""
    target.check()
    if not target.private and not (manifest_fields.get("card") or {}).get("license"):
        raise Failed(AC432.at(repo=target.repo))
    with tempfile.TemporaryDirectory(prefix="adaptcompose-") as name:
        folder = Path(name)
        folders = save_composition(
            model,
            folder,
            everything=target.includes_pinned,
            manifest=manifest_fields,
            public=_make_is_public(model, store),
        )
        if eval_results.scores:
            text = json.dumps(eval_results.as_plain(), indent=2, ensure_ascii=False)
            write_atomically(folder / SCORES_FILE, f"{text}\n")
        subject = ModelCard(model, Manifest.load(folder, target.repo), target.repo, eval_results)
        write_atomically(folder / README_FILE, subject.render(folders))
        yield Push(target, store, {path: folder / path for path in walk_files(folder)})


def _make_is_public(model: ComposedModel, store: Store) -> Any:
    """Whether who has the target's hub can fetch what is pinned: asked once a repository."""
    sources = model.composition.sources
    known: dict[tuple[str, str], bool] = {}

    def is_public(pin: Pin, ref: Ref | None) -> bool:
        assert pin.repo is not None
        source = sources.store(ref)
        key = (source.name, pin.repo)
        if key not in known:
            reachable = source.name == "hf" or _is_same_hub(source, store)
            known[key] = reachable and source.is_public(pin.repo)
        return known[key]

    return is_public


def _is_same_hub(one: Store, other: Store) -> bool:
    """Whether two hubs are one, whatever their folder is called."""
    places = [Path(getattr(store, "root", store.name)) for store in (one, other)]
    return type(one) is type(other) and places[0].resolve() == places[1].resolve()


def push(  # noqa: PLR0913 - a public function: its arguments have names
    model: ComposedModel | str | Path,
    repo: str,
    *,
    hub: str | None = None,
    revision: str | None = None,
    private: bool = True,
    pr: bool = False,
    license: str | None = None,
    backbone: Any = None,
) -> PushResult:
    """Publish a model, a run or a saved folder in one commit, or as a pull request.

    `revision` is a branch; `private` counts for a repository that does not exist yet. What is
    public needs a `license`, unless the run's spec has one.
    """
    target = PushTarget(repo, revision or "main", pr, private)
    store = open_store(hub or "hf", Path())
    with open_push(model, target, store, license=license, backbone=backbone) as ready:
        return ready.send()


@contextmanager
def open_push(
    source: ComposedModel | str | Path,
    target: PushTarget,
    store: Store,
    *,
    license: str | None = None,
    backbone: Any = None,
) -> Iterator[Push]:
    """The push of a model, of the best composition of a run, or of a saved or pulled one."""
    target.check()
    if isinstance(source, ComposedModel):
        told: dict[str, Any] = {"name": target.repo.split("/")[-1]}
        model, findings = source, EvalResults()
    else:
        folder = composition_folder(Path(source))
        manifest = Manifest.load(folder, str(source))
        told = {name: getattr(manifest, name) for name in ("name", "description", "task", "card")}
        findings = _read_eval_results(Path(source), folder)
        model = load(Path(source), backbone)
    if license:
        told["card"] = {**(told.get("card") or {}), "license": license}
    with prepare_push(model, told, findings, target, store) as ready:
        yield ready


def _read_eval_results(source: Path, folder: Path) -> EvalResults:
    """What was measured: by the run, or what a published folder says itself."""
    path = source / report.REPORT_FILE
    if folder == source or not path.is_file():
        return EvalResults.read(folder / SCORES_FILE)
    try:
        data = json.loads(path.read_bytes())
        scores = tuple(Score(**score) for score in data["scores"])
        own = tuple(data.get("own", ()))
        counted = data["plan"]["parameters"]
        return EvalResults(str(data["expression"]), scores, own, data["best_seed"], counted)
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(AC413.at(file=path, why=str(error))) from None
