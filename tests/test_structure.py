"""What holds the package in shape: the direction of imports, what is heavy, and sizes."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "adaptcompose"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("."))

LAYERS = """
    version resources plugins files
    language.diagnostics language.codes
    documents language.explanations
    language.literals language.nodes language.scanner language.syntax_messages
    language.syntax_errors language.syntax language.formatting
    hub.refs hub.cards
    backbones
    language.signature
    compiler.recipe compiler.program compiler.combination compiler.linear
    compiler.prefix compiler.tokens
    methods
    hub.store hub.pieces hub.front hub.layouts hub.folder hub.refusals hub.pushing
    hub.huggingface hub.search hub.extension hub.formats hub.lock
    language.graph language.operator language.operators language.heads language.names
    language.naming language.writing language.extent language.verify language.check
    language.reference language.completion
    language.draw language.mermaid language.picture
    language.dot language.svg
    hub.resolve hub.published hub.datasets hub.tokenizer hub.backbone hub.shelves hub.contents
    compiler.lower compiler.passes compiler.trunk compiler.plan compiler.plan_text compiler.changes
    language.public
    runtime
    work
    terminal targets commands cli __main__
"""
ORDER = LAYERS.split()
"""Every module or package, each importing only from those before it (packages also from inside).

The text comes before the hub's references, the backbones before the methods, because references
are written in the language and methods ask a backbone for its sites. Signatures come before
methods, whose fields they read. The graph comes behind the hub, because its leaves hold what a
reference was resolved to.
"""

HEAVY = {"torch", "transformers", "huggingface_hub", "rich", "accelerate", "datasets", "numpy"}
HEAVY |= {"safetensors", "matplotlib", "seqeval", "sklearn", "jinja2", "typer"}

AT_THE_TOP = {
    "runtime": {"torch", "transformers"},
    "work.encode": {"torch", "transformers"},
    "work.train": {"torch", "transformers", "safetensors"},
    "work.run": {"transformers"},
    "work.evaluate": {"torch", "transformers"},
    "work.predict": {"torch", "transformers"},
    "cli": {"typer"},
    "commands": {"typer"},
}
"""Where what is heavy may be imported at the top of a module."""

MOST_LINES, MOST_OF_A_FUNCTION = 400, 40


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def unit(module: str) -> str | None:
    """The entry of ORDER that a module belongs to."""
    found = [entry for entry in ORDER if module == entry or module.startswith(f"{entry}.")]
    return max(found, key=len) if found else None


def statements(nodes: list[ast.stmt], *, everywhere: bool) -> Iterator[ast.stmt]:
    """Statements, outside of functions unless `everywhere`; never those for type checkers only."""
    for node in nodes:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
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


def own_imports(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports at its top."""
    known = {name_of(module) for module in MODULES}
    for full in imports(path):
        inside = full.removeprefix("adaptcompose.")
        if inside != full:
            yield inside if inside in known else inside.rpartition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_in_one_direction(path: Path) -> None:
    here = name_of(path)
    if not here or (path.name == "__init__.py" and here not in ORDER):
        pytest.skip("a folder's own face")
    mine = unit(here)
    assert mine is not None, f"{here} has no place in ORDER"
    for imported in own_imports(path):
        other = unit(imported)
        assert other is not None, f"{here} imports {imported}, which has no place in ORDER"
        assert ORDER.index(other) <= ORDER.index(mine), f"{here} imports {imported}"


def test_every_place_in_the_order_is_taken() -> None:
    assert len(ORDER) == len(set(ORDER))
    for entry in ORDER:
        path = PACKAGE / entry.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), entry


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
    client = {"hub.huggingface", "hub.pushing", "hub.refusals", "hub.extension"}
    doors = {"yaml": {"documents"}, "huggingface_hub": client}
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
        "from adaptcompose import cli; cli.main(['check', 'stack(./a, ./b)'])",
        "from adaptcompose import cli; cli.main(['check', 'examples/quickstart.yaml'])",
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
