"""Pulling a published composition into a folder, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from adaptcompose.documents import dump, write_atomically
from adaptcompose.hub.refs import parse_ref
from adaptcompose.hub.store import listed, open_store
from adaptcompose.language.codes import AC420, AC422, AC425, AC426
from adaptcompose.language.diagnostics import Failed
from adaptcompose.runtime.manifest import FILE, HERE


def pull(ref: str, folder: Path | None, hub: str = "hf") -> Path:
    """Fetch every file of a revision, each verified; `folder` appears when all are there."""
    parsed = parse_ref(ref, ())
    if parsed.kind != "hub" or parsed.repo is None:
        raise Failed(AC420.at(name=ref))
    place = folder or Path(parsed.repo.split("/")[-1])
    if place.exists():
        raise Failed(AC422.at(path=place))
    store = open_store("hf" if parsed.forced else hub, Path())
    revision = store.resolve(parsed.repo, parsed.revision)
    fetched = store.fetch(parsed.repo, revision)
    if not (fetched / FILE).is_file():
        raise Failed(AC426.at(name=ref))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".pull-") as name:
            whole = Path(name) / "whole"
            for path in listed(fetched):
                (whole / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(fetched / path, whole / path)
            if hub != "hf" and not parsed.forced:
                where = str(Path(hub).expanduser().resolve())
                write_atomically(whole / HERE, dump({"hub": where}))
            whole.replace(place)
    except OSError as error:
        raise Failed(AC425.at(path=place, why=error.strerror or error)) from None
    return place
