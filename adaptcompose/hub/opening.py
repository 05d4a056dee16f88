"""Open a hub by its name: `hf`, an endpoint, a folder, or the scheme of a plug-in."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from adaptcompose.diagnostics.codes import AC419
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.store import RepoType, Store
from adaptcompose.plugins import load_plugins


def open_store(hub: str | Path, root: Path, repo_type: RepoType = "model") -> Store:
    """The hub called `hf`, the one at an endpoint, or one in a folder relative to `root`.

    A hub of an installed package is named with its scheme (`s3://…`); it holds data sets next to
    everything else. A folder holds data sets in `datasets/`. Raises Failed with AC419 if the name
    is not a valid URL.
    """
    text = str(hub)
    try:
        urlsplit(text)
    except ValueError as error:
        raise Failed(AC419.at(hub=text, why=str(error))) from None
    scheme, mark, _ = text.partition("://")
    for plugin in load_plugins("hubs") if mark else ():
        if plugin.name == scheme and plugin.target is not None:
            store: Store = plugin.target(text, Path(root))
            return store
    if text == "hf" or text.startswith(("https://", "http://")):
        from adaptcompose.hub.huggingface import HuggingFaceStore

        return HuggingFaceStore(None if text == "hf" else text, repo_type)
    from adaptcompose.hub.folder import FolderStore

    folder = Path(root) / Path(hub).expanduser()
    if repo_type == "dataset":
        return FolderStore(folder / "datasets", f"{text}/datasets")
    return FolderStore(folder, text)
