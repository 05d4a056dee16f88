from __future__ import annotations

import runpy
import shutil
from typing import TYPE_CHECKING

import pytest

from adaptcompose import resources

if TYPE_CHECKING:
    from pathlib import Path


def test_in_a_checkout_and_in_a_wheel(tmp_path: Path) -> None:
    (tmp_path / "adaptcompose").mkdir()
    script = shutil.copy(resources.__file__, tmp_path / "adaptcompose" / "resources.py")
    resource = runpy.run_path(str(script))["resource_folder"]
    beside, inside = tmp_path / "grammar", tmp_path / "adaptcompose" / "grammar"
    with pytest.raises(FileNotFoundError, match="grammar"):
        resource("grammar")
    beside.mkdir()
    assert resource("grammar") == beside
    inside.mkdir()
    assert resource("grammar") == inside


def test_both_are_here() -> None:
    assert (resources.resource_folder("grammar") / "compose.lark").is_file()
    assert (resources.resource_folder("hub_cards") / "lang" / "sw.md").is_file()
