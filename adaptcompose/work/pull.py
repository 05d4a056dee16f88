"""Pulling a published composition into a folder, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from adaptcompose.hub.refs import parse_ref
from adaptcompose.hub.store import open_store
from adaptcompose.language.codes import AC406, AC420, AC422
from adaptcompose.language.diagnostics import Failed


def pull(ref: str, folder: Path | None, hub: str) -> Path:
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
    if not (fetched / "composition.yaml").is_file():
        raise Failed(AC406.at(name=ref, what="no composition", help="adapters are used by name"))
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".pull-") as name:
        shutil.copytree(fetched, Path(name) / "whole")
        (Path(name) / "whole").replace(place)
    return place
