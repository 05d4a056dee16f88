"""What holds the package in shape: the direction of imports, what is heavy, and sizes."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "adaptcompose"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("."))

FLOORS = """
    version resources plugins registration
    diagnostics
    syntax storage
    backbones hub
    ir catalogue
    methods
    composition formats
    compiler resolution
    runtime
    tasks
    experiment
    api doctor
    cli __init__
    __main__
"""
"""From the ground up. A folder imports from the floors below it, and from nothing beside it."""

HEAVY = {"torch", "transformers", "huggingface_hub", "rich", "accelerate", "datasets", "numpy"}
HEAVY |= {"safetensors", "matplotlib", "seqeval", "sklearn", "jinja2", "typer"}

AT_THE_TOP = {
    "runtime": {"torch", "transformers"},
    "experiment.data.encoding": {"torch", "transformers"},
    "experiment.run.seed_training": {"torch", "transformers", "safetensors"},
    "experiment.run.run": {"transformers"},
    "experiment.run.prediction": {"torch", "transformers"},
    "cli": {"typer"},
}
"""Where what is heavy may be imported at the top of a module."""

MOST_LINES, MOST_OF_A_FUNCTION = 600, 60


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def statements(nodes: list[ast.stmt], *, everywhere: bool) -> Iterator[ast.stmt]:
    """Statements, outside of functions unless `everywhere`; never those for type checkers only."""
    for node in nodes:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            if everywhere:
                yield from node.body
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, name, []), everywhere=everywhere)
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body, everywhere=everywhere)


def imports(path: Path, *, everywhere: bool = False) -> Iterator[str]:
    for node in statements(tree_of(path).body, everywhere=everywhere):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a module imports anywhere, for type checkers included."""
    known = {name_of(module) for module in MODULES}
    every = (full.split(".", 1) for full in imports(path, everywhere=True))
    inner = [rest[0] for top, *rest in every if top == "adaptcompose" and rest]
    found = {name if name in known else name.rpartition(".")[0] for name in inner}
    return (found & known) - {name_of(path)}


def test_imports_run_downwards() -> None:
    floors = [line.split() for line in FLOORS.split("\n") if line.strip()]
    floor_of = {folder: number for number, floor in enumerate(floors) for folder in floor}
    here = {path: (name_of(path) or "__init__").partition(".")[0] for path in MODULES}
    assert set(floor_of) == set(here.values())
    for path, folder in here.items():
        for imported in own_imports(path):
            other = imported.partition(".")[0]
            down = floor_of[other] < floor_of[folder]
            assert other == folder or down, f"{name_of(path)} imports {imported}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name_of(path): own_imports(path) for path in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_heavy_is_imported_where_it_is_needed(path: Path) -> None:
    here = name_of(path)
    names = [entry for entry in AT_THE_TOP if here == entry or here.startswith(f"{entry}.")]
    allowed = set().union(*(AT_THE_TOP[name] for name in names))
    found = {full.partition(".")[0] for full in imports(path)} & HEAVY
    assert found <= allowed, here


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_documents_read_yaml_and_few_modules_know_the_hubs_client(
    path: Path,
) -> None:
    client = {"hub.huggingface", "hub.hf_commit", "hub.hf_errors", "cli.hf_extension_install"}
    doors = {"yaml": {"storage.yaml_source"}, "huggingface_hub": client}
    for full in imports(path, everywhere=True):
        top = full.partition(".")[0]
        assert name_of(path) in doors.get(top, {name_of(path)}), full


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sizes(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_starts_by_saying_what_it_is(path: Path) -> None:
    text = ast.get_docstring(tree_of(path))
    assert text
    assert len(text.splitlines()[0]) <= 100


@pytest.mark.parametrize(
    "code",
    [
        "import adaptcompose",
        "import adaptcompose; adaptcompose.check('stack(./a, ./b) | drop(bottom=1)')",
        "import adaptcompose; adaptcompose.parse('stack(./a, ./b)')",
        "from adaptcompose.cli.main import main; main(['check', 'stack(./a, ./b)'])",
        "from adaptcompose.cli.main import main; main(['check', 'examples/quickstart.yaml'])",
        "import adaptcompose.compiler.lower, adaptcompose.compiler.passes, adaptcompose.methods",
        "import adaptcompose.resolution.resolve, adaptcompose.formats.adapterhub",
    ],
)
def test_text_is_answered_without_torch(code: str) -> None:
    script = f"import sys; {code}; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "adaptcompose" in loaded
    assert not loaded & HEAVY
