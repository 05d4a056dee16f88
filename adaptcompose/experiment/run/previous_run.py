"""What earlier runs left: where they lie, and the plan that they followed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.report.report import REPORT_FILE
from adaptcompose.experiment.run.labels import combination_dirs


def run_folders(prepared: Sequence[PreparedRun]) -> list[Path]:
    """`runs/<name>`, or one folder in it for each combination of a sweep."""
    folder = Path("runs") / prepared[0].spec.name
    if not prepared[0].spec.each:
        return [folder]
    return [folder / label for label in combination_dirs([one.spec for one in prepared])]


def previous_plan(folder: Path) -> Mapping[str, Any] | None:
    """The plan of the run in a folder, if one has come to its end there."""
    try:
        found = json.loads((folder / REPORT_FILE).read_text("utf-8"))["plan"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None
