"""Pull a published composition into a folder, completely or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from adaptcompose.diagnostics.codes import AC420, AC422, AC425, AC426
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.opening import open_store
from adaptcompose.resolution.manifest import FILE, LOCAL_PATHS_FILE
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.storage.yaml_source import dump_yaml
from adaptcompose.syntax.references import parse_ref


def pull(ref: str, folder: Path | None, hub: str = "hf") -> Path:
    """Download a composition and verify every file; return its folder.

    The folder appears when all files are complete; its default name is that of the repository.
    Raises Failed with AC422 if it exists already, AC426 if there is no composition in `ref`.
    """
    parsed = parse_ref(ref, ())
    if parsed.kind != "hub" or parsed.repo is None:
        raise Failed(AC420.at(name=ref))
    target = folder or Path((parsed.subfolder or parsed.repo).split("/")[-1])
    if target.exists():
        raise Failed(AC422.at(path=target))
    store = open_store("hf" if parsed.has_hub_prefix else hub, Path())
    revision = store.resolve(parsed.repo, parsed.revision)
    start = f"{parsed.subfolder}/" if parsed.subfolder else ""
    listed = [path for path in store.list_files(parsed.repo, revision) if path.startswith(start)]
    if f"{start}{FILE}" not in listed:
        raise Failed(AC426.at(name=ref))
    fetched = store.fetch(parsed.repo, revision, listed) / start
    inside = (path.removeprefix(start) for path in listed)
    paths = [path for path in inside if not path.startswith(".") and "/." not in path]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pull-") as name:
            draft = Path(name) / "draft"
            for path in paths:
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(fetched / path, draft / path)
            if hub != "hf" and not parsed.has_hub_prefix:
                where = hub if "://" in hub else str(Path(hub).expanduser().resolve())
                write_atomically(draft / LOCAL_PATHS_FILE, dump_yaml({"hub": where}))
            draft.replace(target)
    except OSError as error:
        raise Failed(AC425.at(path=target, why=error.strerror or error)) from None
    return target
