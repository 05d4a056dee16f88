"""Push a composition to a hub, in one commit or as one pull request."""

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
    """The repository that a push goes to, and how.

    `branch` is ignored for a pull request; `private` counts only for a new repository. With
    `includes_pinned`, the weights of pinned adapters are copied, not only referenced.
    """

    repo: str
    branch: str = "main"
    as_pull_request: bool = False
    private: bool = True
    includes_pinned: bool = False
    message: str = ""

    def check(self) -> None:
        """Raise AC420 if `repo` is not `user/name`."""
        if not is_repo_name(self.repo) or self.repo.count("/") != 1:
            raise Failed(AC420.at(name=self.repo))


@dataclass(frozen=True)
class PushResult:
    """A completed push: its revision, and the number and URL of a pull request."""

    repo: str
    revision: str
    number: int | None = None
    url: str | None = None

    def __str__(self) -> str:
        return self.url or f"{self.repo}@{self.revision[:7]}"


@dataclass(frozen=True)
class Push:
    """A push that is ready to send. `files` maps paths in the repository to local files."""

    target: PushTarget
    store: Store
    files: Mapping[str, Path] = field(repr=False)

    @property
    def card(self) -> str:
        return self.files[README_FILE].read_text("utf-8")

    def obsolete_files(self) -> set[str]:
        """The files to delete: those of parts that an earlier push wrote and this one lacks.

        Files that other people added stay.
        """
        old = remote_files(self.store, self.target.repo, self.target.branch) or {}
        parts = {str(PurePosixPath(path).parent) for path in old if path.endswith(CONFIG_FILES)}
        part_files = {path for path in old if str(PurePosixPath(path).parent) in parts}
        scores_file = {SCORES_FILE} & old.keys()
        return (part_files | scores_file) - self.files.keys()

    def diff(self) -> PushDiff:
        """The changes that the push would make. Nothing is written."""
        target, obsolete = self.target, self.obsolete_files()
        return diff_files(self.store, target.repo, target.branch, self.files, obsolete)

    def send(self) -> PushResult:
        """Send everything in one commit, so that the repository never has half of a push."""
        target, obsolete = self.target, self.obsolete_files()
        message = target.message or f"{target.repo.split('/')[-1]}, by adaptcompose"
        if target.as_pull_request:
            request = self.store.open_pull_request(
                target.repo, self.files, message=message, delete=obsolete
            )
            return PushResult(target.repo, request.revision, request.number, request.url)
        revision = self.store.commit(
            target.repo,
            self.files,
            message=message,
            delete=obsolete,
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
    """Write a model to a temporary folder and yield its push.

    `manifest_fields` are the entries of composition.yaml besides the composition: name,
    description, task, card. Raises AC432 if the repository is public and has no license.
    """
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
        card = ModelCard(model, Manifest.load(folder, target.repo), target.repo, eval_results)
        write_atomically(folder / README_FILE, card.render(folders))
        yield Push(target, store, {path: folder / path for path in walk_files(folder)})


def _make_is_public(model: ComposedModel, store: Store) -> Any:
    """A predicate: can everyone who uses the target's hub download a pin?

    Each repository is looked up once.
    """
    sources = model.composition.sources
    is_public_repo: dict[tuple[str, str], bool] = {}

    def is_public(pin: Pin, ref: Ref | None) -> bool:
        assert pin.repo is not None
        source = sources.store(ref)
        key = (source.name, pin.repo)
        if key not in is_public_repo:
            is_reachable = source.name == "hf" or _is_same_hub(source, store)
            is_public_repo[key] = is_reachable and source.is_public(pin.repo)
        return is_public_repo[key]

    return is_public


def _is_same_hub(one: Store, other: Store) -> bool:
    """Whether two stores are the same hub, even if their folders are written differently."""
    roots = [Path(getattr(store, "root", store.name)) for store in (one, other)]
    return type(one) is type(other) and roots[0].resolve() == roots[1].resolve()


@contextmanager
def open_push(
    source: ComposedModel | str | Path,
    target: PushTarget,
    store: Store,
    *,
    license: str | None = None,
    backbone: Any = None,
) -> Iterator[Push]:
    """Yield the push of a model, of the best composition of a run, or of a saved composition."""
    target.check()
    if isinstance(source, ComposedModel):
        fields: dict[str, Any] = {"name": target.repo.split("/")[-1]}
        model, eval_results = source, EvalResults()
    else:
        folder = composition_folder(Path(source))
        manifest = Manifest.load(folder, str(source))
        fields = {name: getattr(manifest, name) for name in ("name", "description", "task", "card")}
        eval_results = _read_eval_results(Path(source), folder)
        model = load(Path(source), backbone)
    if license:
        fields["card"] = {**(fields.get("card") or {}), "license": license}
    with prepare_push(model, fields, eval_results, target, store) as ready_push:
        yield ready_push


def _read_eval_results(source: Path, folder: Path) -> EvalResults:
    """The results in the report of a run, or in the scores.json of a saved composition."""
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
