"""Write the tables of these pages that the code knows best.

    python docs/build.py          rewrite what stands between the marks
    python docs/build.py --check  say which pages are out of date

A page has `<!-- table: keys -->`, the table, and `<!-- end -->`. The JSON Schema of spec.yaml lies
beside the examples.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from adaptcompose.compiler.passes import PASSES
from adaptcompose.composition.explanations import Explanation, load_explanations, show_placeholders
from adaptcompose.composition.word_docs import WordDoc, describe_all_words, describe_type
from adaptcompose.diagnostics.codes import CODES
from adaptcompose.experiment.spec.schema import SCHEMA_FILE, build_schema
from adaptcompose.experiment.spec.section_reader import KeyDoc
from adaptcompose.experiment.spec.spec import spec_keys
from adaptcompose.syntax.signature import Parameter, format_value

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

SECTIONS = {
    "0": "Syntax",
    "1": "Names",
    "2": "Arguments",
    "3": "Structure",
    "4": "Hub, files and backbones",
    "5": "Training and heads",
    "6": "spec.yaml and data",
    "9": "Limits",
}


def operator_table() -> Iterator[str]:
    """Every operator: what it means, its laws, arguments and examples."""
    for page in describe_all_words():
        if page.kind in ("block", "modifier"):
            yield from described(page)


def method_table() -> Iterator[str]:
    """Every family with its arguments, then the named settings."""
    known = describe_all_words()
    for page in known:
        if page.kind == "method":
            yield from described(page)
    yield "Settings with a name of their own:"
    yield ""
    yield "| call | means |"
    yield "|---|---|"
    for page in known:
        if page.kind == "setting":
            yield f"| `{page.word}()` | `{page.means}` |"
    yield ""


def described(page: WordDoc) -> Iterator[str]:
    """One word of the language, from its class's docstring and fields."""
    yield f"### `{page.word}`"
    yield ""
    takes = f", takes {page.takes}" if page.takes else ""
    kind = "" if page.kind == "method" else f"*{page.kind}{takes}.* "
    yield f"{kind}{escaped(page.summary)}"
    yield ""
    for paragraph in page.text:
        yield escaped(paragraph)
        yield ""
    if page.laws:
        yield "Laws:"
        yield ""
        yield from (f"- `{law}`" if "=" in law else f"- {escaped(law)}" for law in page.laws)
        yield ""
    yield from arguments(page.arguments)
    if page.examples:
        yield "```compose"
        yield from page.examples
        yield "```"
        yield ""


def escaped(text: str) -> str:
    """A paragraph in which stars and underscores of formulas are no marks."""
    pieces = text.split("`")
    return "`".join(p if n % 2 else re.sub(r"([*_<])", r"\\\1", p) for n, p in enumerate(pieces))


def arguments(known: tuple[Parameter, ...]) -> Iterator[str]:
    if not known:
        return
    yield "| argument | is | without it | |"
    yield "|---|---|---|---|"
    for one in known:
        default = "no layer" if one.default == frozenset() else f"`{format_value(one.default)}`"
        yield f"| `{one.name}` | {describe_type(one)} | {default} | {cell(one.doc)} |"
    yield ""


def key_table() -> Iterator[str]:
    """Every key of spec.yaml, as `adaptcompose.experiment.spec.spec.keys` tells them."""
    yield "| key | is | without it | |"
    yield "|---|---|---|---|"
    for one in spec_keys():
        yield f"| `{one.path}` | {one.kind} | {absent(one)} | {one.doc} |"


def absent(one: KeyDoc) -> str:
    """What stands in the table where a key is left out."""
    if not one.supported:
        return "*not yet*"
    if one.required:
        return "**needed**"
    if one.default in (None, "", (), {}):
        return ""
    if isinstance(one.default, tuple):
        return f"`[{', '.join(map(str, one.default))}]`"
    return f"`{format_value(one.default)}`"


def code_table() -> Iterator[str]:
    """Every diagnostic by its first digit: a table, then the pages that `explain` prints."""
    for section, name in SECTIONS.items():
        known = sorted(code for code in CODES if code[2] == section)
        yield f"## AC{section}xx: {name}"
        yield ""
        yield "| code | message | help |"
        yield "|---|---|---|"
        for code in map(CODES.__getitem__, known):
            warning = "" if code.severity == "error" else f" *({code.severity})*"
            linked = f"[{code.id}](#{code.id.lower()}){warning}"
            texts = (show_placeholders(text) for text in (code.message, code.help or ""))
            yield f"| {linked} | {' | '.join(map(cell, texts))} |"
        yield ""
        for page in (load_explanations()[code] for code in known if code in load_explanations()):
            yield from page_of(page)


def page_of(page: Explanation) -> Iterator[str]:
    """What a code means, with its examples as blocks that are not told apart from text."""
    yield f"### {page.code.id}"
    yield ""
    yield page.about
    yield ""
    for heading, example in page.examples():
        yield f"*{heading}*"
        yield ""
        yield from (f"    {line}".rstrip() for line in example.lines())
        yield ""


def pass_table() -> Iterator[str]:
    """Every pass with its condition and its law, as its module says them."""
    yield "| pass | what it does | condition | law |"
    yield "|---|---|---|---|"
    for one in PASSES:
        text = sys.modules[one.__module__].__doc__ or ""
        said = " ".join(text.split("\nCondition", 1)[1].split())
        condition, _, law = said.partition(" Law: ")
        condition = condition.partition(": ")[2]
        cells = map(cell, (f"`{one.__name__}`", text.splitlines()[0], condition, law))
        yield f"| {' | '.join(cells)} |"


def folder_table() -> Iterator[str]:
    """Every folder of the package with the first line of its docstring, floor by floor."""
    package = ROOT / "adaptcompose"
    yield "| floor | what is there |"
    yield "|---|---|"
    for floor in reversed(floors()):
        for name in (name for name in floor if not name.startswith("__")):
            path = package / name / "__init__.py"
            path = path if path.is_file() else package / f"{name}.py"
            text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            yield f"| `{name}` | {cell(text.splitlines()[0])} |"


def floors() -> list[list[str]]:
    """The folders from the ground up, as the structure test holds imports to them."""
    text: str = runpy.run_path(str(ROOT / "tests" / "test_structure.py"))["FLOORS"]
    return [line.split() for line in text.splitlines() if line.strip()]


def cell(text: str) -> str:
    r"""A text in a table; what a message fills in stays in braces.

    >>> cell("separate stages with `|`")
    'separate stages with `\\|`'
    """
    text = text.replace("{{", "{").replace("}}", "}").replace("|", "\\|")
    pieces = text.split("`")  # every second one is code, where < is no tag
    return "`".join(p if n % 2 else p.replace("<", "&lt;") for n, p in enumerate(pieces))


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "passes": pass_table,
    "operators": operator_table,
    "methods": method_table,
    "keys": key_table,
    "codes": code_table,
    "folders": folder_table,
}


def renew(text: str) -> str:
    """A page with its tables as they are now."""

    def table(found: re.Match[str]) -> str:
        lines = "\n".join(TABLES[found[2]]())
        return f"{found[1]}\n{lines.strip()}\n\n{found[3]}"

    return BLOCK.sub(table, text)


def main(arguments: list[str]) -> int:
    stale = []
    for page in PAGES:
        text = page.read_text("utf-8")
        if (new := renew(text)) != text:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(new, "utf-8")
    beside, told = (
        ROOT / "examples" / SCHEMA_FILE,
        json.dumps(build_schema(), indent=2, ensure_ascii=False),
    )
    if beside.read_text("utf-8") != f"{told}\n":
        stale.append(beside)
        if "--check" not in arguments:
            beside.write_text(f"{told}\n", "utf-8")
    for page in stale:
        print(f"{page.name} {'is out of date' if '--check' in arguments else 'rewritten'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
