"""The folders of runs under `runs/`: their names, their owner, and the plan of an earlier run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptcompose.diagnostics.codes import AC423
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.report.report import REPORT_FILE
from adaptcompose.experiment.spec.sections import Spec

BEST_DIR, OWNER_FILE = "best", ".spec"
_UNSAFE = re.compile(r"[^\w.+=,@-]+")


def run_dirs(runs: Sequence[PreparedRun]) -> list[Path]:
    """The folder of every run: `runs/<name>`, or `runs/<name>/<combination>` in a sweep."""
    folder = Path("runs") / runs[0].spec.name
    if not runs[0].spec.each:
        return [folder]
    return [folder / name for name in combination_dirs([run.spec for run in runs])]


def combination_dirs(specs: Sequence[Spec]) -> list[str]:
    """The folder names of the combinations of a sweep, made unique by a number."""
    names: list[str] = []
    for spec in specs:
        name = combination_dir(spec.variables)
        count = sum(other == name or other.startswith(f"{name}~") for other in names)
        names.append(f"{name}~{count + 1}" if count else name)
    return names


def combination_dir(variables: Mapping[str, str]) -> str:
    """The folder name of one combination, without characters that a file system may refuse.

    >>> combination_dir({"lr": "1e-4", "lang": "hf://x/y"})
    'lr=1e-4,lang=hf_x_y'
    """
    text = ",".join(f"{name}={value}" for name, value in variables.items())
    return _UNSAFE.sub("_", text).replace("..", "_")[:200]


def previous_plan(folder: Path) -> Mapping[str, Any] | None:
    """The plan that the last complete run in a folder followed; None if there is none."""
    try:
        plan = json.loads((folder / REPORT_FILE).read_text("utf-8"))["plan"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return plan if isinstance(plan, dict) else None


def check_owner(folder: Path, spec_path: Path) -> None:
    """Raise AC423 if the folder belongs to another spec, and that spec still exists."""
    note = folder / OWNER_FILE
    owner = Path(note.read_text("utf-8").strip()) if note.is_file() else spec_path.resolve()
    if owner != spec_path.resolve() and owner.is_file():
        raise Failed(AC423.at(path=folder, other=owner))


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; once it is complete, it replaces the old one."""
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    yield draft
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)
