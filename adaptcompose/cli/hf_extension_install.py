"""`hf compose …`: adaptcompose as an extension of `hf`, the command line of huggingface_hub.

`hf` installs extensions from GitHub. A tool that is already installed can only register itself, by
writing the manifest that `hf` has for each extension. The format of that manifest is internal to
huggingface_hub and may change: any failure becomes AC434, and nothing else depends on it.
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
"""Not a valid user name on GitHub, so that an update cannot fetch code of somebody else."""


def install() -> Path:
    """Register adaptcompose with `hf`, and return the folder of the registration.

    Raises AC434 if that fails, or if `hf` has another extension of that name.
    """
    with _extension_module() as extensions:
        folder = _folder(extensions)
        if folder.exists() and not _is_ours(extensions, folder):
            raise Failed(AC434.at(why=f"`hf` already has another extension `{NAME}`, in {folder}"))
        extensions.ExtensionManifest(
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
        extensions.ExtensionManifest.load(folder)
    return folder


def remove() -> bool:
    """Remove the registration, and return whether there was one."""
    with _extension_module() as extensions:
        folder = _folder(extensions)
        if not folder.exists() or not _is_ours(extensions, folder):
            return False
        shutil.rmtree(folder)
    return True


@contextlib.contextmanager
def _extension_module() -> Iterator[Any]:
    """The extensions module of huggingface_hub; any exception while it is used becomes AC434."""
    try:
        from huggingface_hub.cli import extensions

        yield extensions
    except Failed:
        raise
    except Exception as error:  # another version of huggingface_hub can fail in any way
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise Failed(AC434.at(why=why)) from None


def _folder(extensions: Any) -> Path:
    return Path(extensions.EXTENSIONS_ROOT).expanduser() / f"hf-{NAME}"


def _is_ours(extensions: Any, folder: Path) -> bool:
    return bool(extensions.ExtensionManifest.load(folder).owner == OWNER)


def _command() -> Path:
    """The path of the installed command: next to this Python, or on PATH."""
    sibling = Path(sys.executable).parent / "adaptcompose"
    path = str(sibling) if sibling.is_file() else shutil.which("adaptcompose")
    if path is None:
        raise Failed(AC434.at(why="the command `adaptcompose` is not installed"))
    return Path(path)
