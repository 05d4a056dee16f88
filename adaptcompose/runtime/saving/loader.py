"""Loading a whole composition: `ac.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptcompose.diagnostics.codes import AC412, AC426
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.store import Store
from adaptcompose.resolution.manifest import FILE, LOCK
from adaptcompose.resolution.sources import relevant_files
from adaptcompose.resolution.tokenizer import TOKENIZER_FILES
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.reader import load_composition
from adaptcompose.storage.yaml_source import read_source
from adaptcompose.syntax.references import Ref, parse_ref


def fetch_composition(ref: str, hub: str | None = None) -> Path:
    """Fetch the needed files of a published composition, verify them, and return the folder."""
    if Path(ref).is_dir():
        return Path(ref)
    parsed = parse_ref(ref, ())
    if parsed.kind != "hub" or parsed.repo is None:
        raise Failed(AC412.at(path=ref, root=Path.cwd()))
    return _fetch_needed_files(
        parsed, open_store("hf" if parsed.has_hub_prefix else hub or "hf", Path())
    )


def _fetch_needed_files(ref: Ref, store: Store) -> Path:
    """Fetch the manifest first, then the folders it names: safetensors only."""
    assert ref.repo is not None
    revision = store.resolve(ref.repo, ref.revision)
    start = f"{ref.subfolder}/" if ref.subfolder else ""
    listed = store.list_files(ref.repo, revision)
    if f"{start}{FILE}" not in listed:
        raise Failed(AC426.at(name=ref))
    described = [path for path in (f"{start}{FILE}", f"{start}{LOCK}") if path in listed]
    folder = store.fetch(ref.repo, revision, described) / start
    text = read_source(folder / FILE).text
    inside = {path.removeprefix(start) for path in listed if path.startswith(start)}
    tops = sorted({path.split("/")[0] for path in inside if "/" in path})
    parts = [
        f"{start}{top}/{name}"
        for top in tops
        if f"./{top}" in text
        for name in relevant_files(listed, f"{start}{top}")
    ]
    if "./tokenizer" in text:
        parts += [
            p for p in sorted(f"{start}tokenizer/{one}" for one in TOKENIZER_FILES) if p in listed
        ]
    store.fetch(ref.repo, revision, [*described, *parts])
    return folder


def load(ref_or_dir: str | Path, backbone: Any = None, hub: str | None = None) -> ComposedModel:
    """Load a published or saved composition; outputs are bit-equal to those that were saved.

    `ref_or_dir` is `user/repo@revision` or a folder; `backbone` replaces the recorded one; `hub`
    is "hf" or the folder of a hub, without which a saved composition looks where it was saved.
    """
    own = Path(ref_or_dir).is_dir()
    folder = (
        composition_folder(Path(ref_or_dir)) if own else fetch_composition(str(ref_or_dir), hub)
    )
    return load_composition(folder, str(ref_or_dir), backbone=backbone, hub=hub, trusted=own)


def composition_folder(folder: Path) -> Path:
    """The folder of a composition: the folder itself, or the best one of a run."""
    best = folder / "best"
    return best if not (folder / FILE).is_file() and (best / FILE).is_file() else folder
