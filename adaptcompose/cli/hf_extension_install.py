"""`hf compose …`: adaptcompose as an extension of the command line of huggingface_hub.

Extensions of `hf` come from GitHub; a tool that is installed already can only register itself, by
the file that `hf` keeps of each. That file is the client's own affair and may change, so whatever
is not as expected ends here in a message, and adaptcompose itself needs none of it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptcompose.diagnostics.codes import AC434
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.version import __version__

NAME = "compose"
OWNER = "adaptcompose.local"
"""No user of GitHub can be called so: an update never fetches from somebody else."""


def install() -> Path:
    """Register; the folder that says so. An extension of another kind of that name stays."""
    with _extension_module() as layout:
        folder = _folder(layout)
        if folder.exists() and not _is_ours(layout, folder):
            raise Failed(AC434.at(why=f"`hf` already has another extension `{NAME}`, in {folder}"))
        layout.ExtensionManifest(
            owner=OWNER,
            repo=f"hf-{NAME}",
            repo_id=f"{OWNER}/hf-{NAME}",
            short_name=NAME,
            executable_path=str(_command()),
            type="binary",
            installed_at=datetime.now(UTC),
            description="Compose adapters on a frozen language model",
            commit_sha=__version__,
        ).save(folder)
        layout.ExtensionManifest.load(folder)
    return folder


def remove() -> bool:
    """Take the registration away; whether there was one."""
    with _extension_module() as layout:
        folder = _folder(layout)
        if not folder.exists() or not _is_ours(layout, folder):
            return False
        shutil.rmtree(folder)
    return True


@contextlib.contextmanager
def _extension_module() -> Iterator[Any]:
    """The client's module for extensions; what is not as it was is told."""
    try:
        from huggingface_hub.cli import extensions

        yield extensions
    except Failed:
        raise
    except Exception as error:  # another version of the client can fail in any way
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise Failed(AC434.at(why=why)) from None


def _folder(layout: Any) -> Path:
    return Path(layout.EXTENSIONS_ROOT).expanduser() / f"hf-{NAME}"


def _is_ours(layout: Any, folder: Path) -> bool:
    return bool(layout.ExtensionManifest.load(folder).owner == OWNER)


def _command() -> Path:
    """The installed command: beside this Python, or where the shell finds it."""
    beside = Path(sys.executable).parent / "adaptcompose"
    found = str(beside) if beside.is_file() else shutil.which("adaptcompose")
    if found is None:
        raise Failed(AC434.at(why="the command `adaptcompose` is not installed"))
    return Path(found)
