"""Opening a hub by its name: `hf`, an endpoint, a folder, or the scheme of a plug-in."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from adaptcompose.diagnostics.codes import AC419
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.store import RepoType, Store
from adaptcompose.plugins import load_plugins


def open_store(hub: str | Path, root: Path, repo_type: RepoType = "model") -> Store:
    """The hub of a spec: `hf`, the Hugging Face Hub or another endpoint, or a folder below root.

    The hub of an installed package is written with its scheme: `s3://…`; it holds data sets beside
    the rest. In a folder they are below `datasets/`.
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

    folder, below = (
        Path(root) / Path(hub).expanduser(),
        "datasets" if repo_type == "dataset" else "",
    )
    return FolderStore(folder / below, f"{text}/{below}" if below else text)
