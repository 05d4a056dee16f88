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
from adaptcompose.experiment.share.model_card import README, SCORES, Findings, Subject
from adaptcompose.experiment.share.push_diff import Difference, difference, held
from adaptcompose.formats import adapterhub
from adaptcompose.hub.lock import Locked
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.store import Store, listed
from adaptcompose.resolution.manifest import Manifest
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.loading import load, saved_folder
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.syntax.references import Ref, is_repo_name

CONFIGURATIONS = (adapterhub.ADAPTER, adapterhub.HEAD, adapterhub.FUSION)


@dataclass(frozen=True)
class Target:
    """Where a push goes, and how."""

    repo: str
    branch: str = "main"
    pr: bool = False
    private: bool = True
    everything: bool = False
    message: str = ""

    def check(self) -> None:
        if not is_repo_name(self.repo) or self.repo.count("/") != 1:
            raise Failed(AC420.at(name=self.repo))


@dataclass(frozen=True)
class Pushed:
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

    target: Target
    store: Store
    files: Mapping[str, Path] = field(repr=False)

    @property
    def card(self) -> str:
        return self.files[README].read_text("utf-8")

    def outdated(self) -> set[str]:
        """Parts of an earlier push that this one has no more; what else is there stays."""
        old = held(self.store, self.target.repo, self.target.branch) or {}
        parts = {str(PurePosixPath(path).parent) for path in old if path.endswith(CONFIGURATIONS)}
        gone = {path for path in old if str(PurePosixPath(path).parent) in parts}
        own = {SCORES} & old.keys()
        return (gone | own) - self.files.keys()

    def difference(self) -> Difference:
        """What it would change; nothing is written."""
        target = self.target
        gone = self.outdated()
        return difference(self.store, target.repo, target.branch, self.files, gone)

    def send(self) -> Pushed:
        """One commit, or one pull request; the hub is old or new, never between."""
        target, gone = self.target, self.outdated()
        message = target.message or f"{target.repo.split('/')[-1]}, by adaptcompose"
        if target.pr:
            made = self.store.propose(target.repo, self.files, message=message, delete=gone)
            return Pushed(target.repo, made.revision, made.number, made.url)
        revision = self.store.commit(
            target.repo,
            self.files,
            message=message,
            delete=gone,
            branch=target.branch,
            private=target.private,
        )
        return Pushed(target.repo, revision)


@contextmanager
def prepared(
    model: ComposedModel,
    told: Mapping[str, Any],
    findings: Findings,
    target: Target,
    store: Store,
) -> Iterator[Push]:
    """The push of a model; `told` is what composition.yaml says beside the composition."""
    target.check()
    if not target.private and not (told.get("card") or {}).get("license"):
        raise Failed(AC432.at(repo=target.repo))
    with tempfile.TemporaryDirectory(prefix="adaptcompose-") as name:
        folder = Path(name)
        folders = save_composition(
            model,
            folder,
            everything=target.everything,
            manifest=told,
            public=_public(model, store),
        )
        if findings.scores:
            text = json.dumps(findings.as_plain(), indent=2, ensure_ascii=False)
            write_atomically(folder / SCORES, f"{text}\n")
        subject = Subject(model, Manifest.open(folder, target.repo), target.repo, findings)
        write_atomically(folder / README, subject.page(folders))
        yield Push(target, store, {path: folder / path for path in listed(folder)})


def _public(model: ComposedModel, store: Store) -> Any:
    """Whether who has the target's hub can fetch what is pinned: asked once a repository."""
    sources = model.composition.sources
    known: dict[tuple[str, str], bool] = {}

    def is_public(pin: Locked, ref: Ref | None) -> bool:
        assert pin.repo is not None
        source = sources.store(ref)
        key = (source.name, pin.repo)
        if key not in known:
            reachable = source.name == "hf" or _same(source, store)
            known[key] = reachable and source.is_public(pin.repo)
        return known[key]

    return is_public


def _same(one: Store, other: Store) -> bool:
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
) -> Pushed:
    """Publish a model, a run or a saved folder in one commit, or as a pull request.

    `revision` is a branch; `private` counts for a repository that does not exist yet. What is
    public needs a `license`, unless the run's spec has one.
    """
    target = Target(repo, revision or "main", pr, private)
    store = open_store(hub or "hf", Path())
    with opened(model, target, store, license=license, backbone=backbone) as ready:
        return ready.send()


@contextmanager
def opened(
    source: ComposedModel | str | Path,
    target: Target,
    store: Store,
    *,
    license: str | None = None,
    backbone: Any = None,
) -> Iterator[Push]:
    """The push of a model, of the best composition of a run, or of a saved or pulled one."""
    target.check()
    if isinstance(source, ComposedModel):
        told: dict[str, Any] = {"name": target.repo.split("/")[-1]}
        model, findings = source, Findings()
    else:
        folder = saved_folder(Path(source))
        manifest = Manifest.open(folder, str(source))
        told = {name: getattr(manifest, name) for name in ("name", "description", "task", "card")}
        findings = _found(Path(source), folder)
        model = load(Path(source), backbone)
    if license:
        told["card"] = {**(told.get("card") or {}), "license": license}
    with prepared(model, told, findings, target, store) as ready:
        yield ready


def _found(source: Path, folder: Path) -> Findings:
    """What was measured: by the run, or what a published folder says itself."""
    path = source / report.FILE
    if folder == source or not path.is_file():
        return Findings.read(folder / SCORES)
    try:
        data = json.loads(path.read_bytes())
        scores = tuple(Score(**score) for score in data["scores"])
        own = tuple(data.get("own", ()))
        counted = data["plan"]["parameters"]
        return Findings(str(data["expression"]), scores, own, data["best_seed"], counted)
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(AC413.at(file=path, why=str(error))) from None
