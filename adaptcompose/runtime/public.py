"""Loading and pushing whole compositions: `ac.load`, `ac.push`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from adaptcompose.hub.refs import parse_ref
from adaptcompose.hub.store import listed, open_store
from adaptcompose.language.codes import AC412
from adaptcompose.language.diagnostics import Failed
from adaptcompose.runtime.manifest import FILE
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.reload import load_composition
from adaptcompose.runtime.saved import save_composition


def fetch(ref: str, hub: str | None = None) -> Path:
    """The verified folder of a published composition, or a local one."""
    if Path(ref).is_dir():
        return Path(ref)
    parsed = parse_ref(ref, ())
    if parsed.kind != "hub" or parsed.repo is None:
        raise Failed(AC412.at(path=ref, root=Path.cwd()))
    store = open_store("hf" if parsed.forced else hub or "hf", Path())
    folder = store.fetch(parsed.repo, store.resolve(parsed.repo, parsed.revision))
    return folder / parsed.subfolder if parsed.subfolder else folder


def load(ref_or_dir: str | Path, backbone: Any = None, hub: str | None = None) -> ComposedModel:
    """The running model of a published composition or a saved one, bit-equal to what was saved.

    `ref_or_dir` is `user/repo@revision` or a folder; `backbone` replaces the recorded one; `hub`
    is "hf" or the folder of a hub, without which a saved composition looks where it was saved.
    """
    own = Path(ref_or_dir).is_dir()
    folder = fetch(str(ref_or_dir), hub)
    if not (folder / FILE).is_file() and (folder / "best" / FILE).is_file():
        folder = folder / "best"  # the folder of a run
    return load_composition(folder, str(ref_or_dir), backbone=backbone, hub=hub, trusted=own)


def push(
    model: ComposedModel | str | Path,
    repo: str,
    *,
    hub: str | None = None,
    revision: str | None = None,
    private: bool = True,
) -> str:
    """Publish a model, or a folder that was saved, in one commit; returns the new revision."""
    store = open_store(hub or "hf", Path())
    with tempfile.TemporaryDirectory(prefix="adaptcompose-") as name:
        folder = Path(name)
        if isinstance(model, ComposedModel):
            save_composition(model, folder)
        else:
            folder = Path(model)
        files: dict[str, Path | bytes] = {path: folder / path for path in listed(folder)}
        return store.commit(
            repo, files, message="by adaptcompose", branch=revision or "main", private=private
        )
