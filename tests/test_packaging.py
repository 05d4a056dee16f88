"""What is installed: by a wheel, and by `pip install -e` in a checkout."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from adaptcompose.version import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    built = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package(wheel: set[str]) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "adaptcompose").rglob("*.py")}
    assert sources <= wheel
    assert {"adaptcompose/py.typed", "adaptcompose/experiment/report/report.html.jinja"} <= wheel
    assert f"adaptcompose-{__version__}.dist-info/licenses/LICENSE" in wheel


def test_the_wheel_holds_grammar_and_catalogue_inside_the_package(wheel: set[str]) -> None:
    for folder in ("grammar", "hub_cards"):
        files = {path for path in (ROOT / folder).rglob("*") if path.suffix in (".lark", ".md")}
        assert files
        assert {f"adaptcompose/{path.relative_to(ROOT)}" for path in files} <= wheel
    assert "adaptcompose/hub_cards/_card.md.jinja" in wheel


def test_the_wheel_holds_nothing_else(wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {"adaptcompose", f"adaptcompose-{__version__}.dist-info"}
    assert "adaptcompose/hub_cards/build.py" not in wheel
    kinds = {Path(name).suffix for name in wheel if name.startswith("adaptcompose/")}
    assert kinds == {".py", ".typed", ".lark", ".md", ".jinja", ".yaml"}


def test_an_editable_install_sees_the_folders_beside_the_package(tmp_path: Path) -> None:
    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"]))
    with zipfile.ZipFile(built) as archive:
        paths = [name for name in archive.namelist() if name.endswith(".pth")]
        added = archive.read(paths[0]).decode().split()
    assert [Path(line).resolve() for line in added] == [ROOT.resolve()]


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [re.split(r"[<>=!~\[ ]", line)[0].lower().replace("_", "-") for line in listed]


def test_every_dependency_has_a_known_good_version() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert pinned[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pinned}
    assert set(requirements()) <= names
