"""The syntax of the language: accepted texts, canonical texts, and diagnostics for the rest.

Cases are written in the language, in fixtures/accept.compose and fixtures/reject.txt.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st
from lark import Lark

from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.resources import resource_folder
from adaptcompose.storage.yaml_source import parse_yaml
from adaptcompose.syntax.error_recovery import find_syntax_errors
from adaptcompose.syntax.literals import quote, unquote
from adaptcompose.syntax.nodes import (
    Argument,
    Binding,
    Call,
    Exclusion,
    Flag,
    ListValue,
    Node,
    Number,
    Pipe,
    Range,
    Reference,
    Text,
    Tree,
    walk,
)
from adaptcompose.syntax.parser import format_tree, is_yaml_safe, parse_tree
from tests.sampling import sampled

FIXTURES = Path(__file__).parent / "fixtures"
RULE = "=" * 40 + "\n"


def accepted() -> list[tuple[str, str]]:
    lines = (FIXTURES / "accept.compose").read_text(encoding="utf-8").splitlines()
    cases = []
    for line in lines:
        if line and not line.startswith("##"):
            text, _, canonical = line.partition("  =>  ")
            cases.append((text.replace("↵", "\n").replace("→", "\t"), canonical or text))
    return cases


def rejected() -> list[tuple[str, str]]:
    blocks = (FIXTURES / "reject.txt").read_text(encoding="utf-8").split(RULE)
    parts = (block.partition("\n\n") for block in blocks)
    return [(source, expected.rstrip("\n")) for source, _, expected in parts]


ACCEPTED = accepted()
REJECTED = rejected()


def outcome(text: str) -> Tree | Failed:
    """The tree, or what was said; nothing else may happen to any text."""
    try:
        return parse_tree(text)
    except Failed as failed:
        assert failed.diagnostics
        assert str(failed)
        return failed


@pytest.mark.parametrize(("text", "canonical"), ACCEPTED)
def test_accepted(text: str, canonical: str) -> None:
    tree = parse_tree(text)
    assert str(tree) == canonical
    again = parse_tree(canonical)
    assert again == tree
    assert hash(again) == hash(tree)
    assert str(again) == canonical
    assert not find_syntax_errors(Source(text))


@pytest.mark.parametrize(("text", "expected"), REJECTED)
def test_rejected(text: str, expected: str) -> None:
    with pytest.raises(Failed) as caught:
        parse_tree(text)
    # an editor removes blanks at the ends of lines, and so may the fixture
    lines = [line.rstrip() for line in str(caught.value).splitlines()]
    assert lines == [line.rstrip() for line in expected.splitlines()]


def test_the_fixtures_are_many_and_distinct() -> None:
    assert len({text for text, _ in ACCEPTED}) == len(ACCEPTED) >= 120
    assert len({text for text, _ in REJECTED}) == len(REJECTED) >= 80
    said = "".join(expected for _, expected in REJECTED)
    missing = [code for code in range(1, 17) if f"[AC{code:03}]" not in said]
    assert not missing


@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t", "\u00a0", "# a\n# b"])
def test_nothing_is_an_empty_composition(text: str) -> None:
    with pytest.raises(Failed, match="the expression is empty"):
        parse_tree(text)


@pytest.mark.parametrize(
    ("char", "shown"),
    [("\0", "U+0000"), ("\ud800", "U+D800"), ("\u200f", "U+200F"), ("\ufeff", "U+FEFF")],
)
def test_invisible_characters_are_named(char: str, shown: str) -> None:
    with pytest.raises(Failed) as caught:
        parse_tree(f"stack(a{char})")
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("AC003", f"unexpected character `{shown}`")
    assert found.span is not None
    assert (found.span.start, found.span.end) == (7, 8)


def test_every_kind_of_blank_separates() -> None:
    tree = parse_tree("stack(a,\r\n\tlang\u00a0=\u2003b)\r\n|\x0cdrop(bottom=5)\r\n# end\r\n")
    assert str(tree) == "stack(a, lang=b) | drop(bottom=5)"


def test_spans_are_the_characters_of_each_node() -> None:
    tree = parse_tree("let g = f( a );  # x\n (stack(k = [1, 2] : 0.5, ! x) | b) | 'c'")
    assert [(type(node).__name__, node.span.text) for node in walk(tree)][1:] == [
        ("Binding", "let g = f( a );"),
        ("Call", "f( a )"),
        ("Argument", "a"),
        ("Reference", "a"),
        ("Pipe", "(stack(k = [1, 2] : 0.5, ! x) | b) | 'c'"),
        ("Pipe", "stack(k = [1, 2] : 0.5, ! x) | b"),
        ("Call", "stack(k = [1, 2] : 0.5, ! x)"),
        ("Argument", "k = [1, 2] : 0.5"),
        ("ListValue", "[1, 2]"),
        ("Number", "1"),
        ("Number", "2"),
        ("Exclusion", "! x"),
        ("Reference", "x"),
        ("Reference", "b"),
        ("Text", "'c'"),
    ]
    (binding,) = tree.bindings
    assert binding.name_span.text == "g"
    call = next(node for node in walk(tree.body) if isinstance(node, Call))
    assert call.name_span.text == "stack"
    argument = call.arguments[0]
    assert isinstance(argument, Argument)
    assert argument.name_span is not None
    assert argument.weight_span is not None
    assert (argument.name_span.text, argument.weight_span.text) == ("k", "0.5")


def test_a_pipe_in_brackets_is_another_tree() -> None:
    flat = parse_tree("stack(a) | drop(bottom=5) | fuse(b, c)")
    assert parse_tree("(stack(a) | drop(bottom=5)) | fuse(b, c)") != flat
    assert parse_tree("(stack(a) | drop(bottom=5) | fuse(b, c))") == flat


def test_numbers_that_print_differently_differ() -> None:
    assert len({Number(1), Number(1.0), Text("1"), Reference("1"), Flag(True)}) == 5
    assert Number(1) != 1


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("stack(a)|drop(bottom=5)", 88, "stack(a) | drop(bottom=5)"),
        ("stack(a)|drop(bottom=5)", 20, "stack(a)\n  | drop(bottom=5)"),
        ("(a|b)|drop(bottom=5)|c", 8, "(a | b)\n  | drop(bottom=5)\n  | c"),
        ("let g=fuse(a,b);g|c", 18, "let g = fuse(a, b);\ng | c"),
        ("let g=fuse(a,b)|c;g|c", 12, "let g = fuse(a, b)\n  | c;\ng | c"),
        ("stack(a, b, c)", 5, "stack(a, b, c)"),
    ],
)
def test_long_texts_are_folded(text: str, width: int, expected: str) -> None:
    tree = parse_tree(text)
    assert format_tree(tree, width) == expected
    assert parse_tree(expected) == tree


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    st.sampled_from(
        ["sw", "let", "lang/sw", "glue/*", "a/b@refs/pr/3", "./d", "hf://a/b@x/y", "x-1"]
    )
    | NAMES.filter(lambda name: name not in ("true", "false")),
)
TEXTS = st.builds(Text, st.text(max_size=8) | st.text(st.characters(), max_size=4))
WHOLE = st.integers(-(10**18) + 1, 10**18 - 1)
REAL = st.floats(allow_nan=False, allow_infinity=False)
LITERALS = (
    st.builds(Number, WHOLE | REAL)
    | st.builds(Range, st.integers(0, 99), st.integers(0, 99))
    | TEXTS
    | st.builds(Flag, st.booleans())
)
LEAVES = REFERENCES | LITERALS
LISTS = st.builds(ListValue, st.lists(LEAVES, max_size=3).map(tuple))


def grown(stages: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    weights = st.none() | WHOLE | REAL
    arguments = st.builds(Argument, stages | LISTS, st.none() | NAMES, weights)
    some = st.lists(arguments | st.builds(Exclusion, REFERENCES), max_size=3).map(tuple)
    piped = st.lists(stages, min_size=2, max_size=3).map(tuple)
    return st.builds(Call, NAMES, some) | st.builds(Pipe, piped)


STAGES = st.recursive(LEAVES, grown, max_leaves=12)
BINDINGS = st.lists(st.builds(Binding, NAMES, STAGES), max_size=2).map(tuple)
TREES = st.builds(Tree, BINDINGS, STAGES)


@sampled(300, TREES)
def test_parsing_is_the_inverse_of_printing(tree: Tree) -> None:
    text = str(tree)
    assert text.isprintable()
    assert parse_tree(text) == tree
    assert parse_tree(format_tree(tree, width=10)) == tree


@sampled(300, TREES)
def test_safe_text_needs_no_quotes_in_yaml(tree: Tree) -> None:
    text = str(tree)
    if is_yaml_safe(text):
        document = f"compose: {text}\n"
        assert yaml.safe_load(document) == {"compose": text}
        assert parse_yaml(Source(document)).as_plain() == {"compose": text}


@pytest.mark.parametrize("text", [canonical for _, canonical in ACCEPTED])
def test_canonical_text_is_safe_in_yaml_or_known_not_to_be(text: str) -> None:
    try:
        unharmed = yaml.safe_load(f"compose: {text}\n") == {"compose": text}
    except yaml.YAMLError:
        unharmed = False
    if is_yaml_safe(text):
        assert unharmed
    elif unharmed:
        # caution costs quotes only where a text begins unusually
        assert text[0] in "-?~{*" or text[0].isdigit()


MISREAD = ["no", "true", "Null", "5", "1e5", "0x1F", "2020-01-01", ".inf", "*/x", "{a,b}/c", "?x"]
MISREAD += ['"a b"', "~", "-", "---", "...", "-x", "!x", "a: b", "f(a) # b", "a:", "0..4", "1_0"]


@pytest.mark.parametrize("text", MISREAD)
def test_text_that_yaml_would_misread(text: str) -> None:
    assert not is_yaml_safe(text)


PLAIN = ["stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=5)", "average(a:0.3, b:0.7)"]
PLAIN += ["let g = fuse(a, b); g", "(a | b) | c", "sw", "none", "./dir", "~/dir", "hf://a/b@c"]


@pytest.mark.parametrize("text", PLAIN)
def test_text_that_yaml_takes_as_it_is(text: str) -> None:
    assert is_yaml_safe(text)


@sampled(300, st.text(st.characters()) | st.text("\\\"'nux0\n"))
def test_quoting_keeps_every_text(value: str) -> None:
    assert unquote(quote(value)) == value
    assert quote(value).isprintable()


@sampled(300, st.text(st.characters(), max_size=40))
def test_any_characters_are_a_tree_or_explained(text: str) -> None:
    assert bool(find_syntax_errors(Source(text))) == isinstance(outcome(text), Failed)


def test_nodes_made_by_programs_may_be_deep() -> None:
    def tower(height: int) -> Node:
        node: Node = Reference("a")
        for _ in range(height):
            node = Pipe((Call("f", (Argument(node, "x", 0.5),)), Reference("b")))
        return node

    first, second = tower(5000), tower(5000)
    assert first == second
    assert hash(first) == hash(second)
    assert str(first) == repr(first)[len("<Pipe ") : -1]
    assert first != tower(4999)


def test_the_grammar_has_no_conflicts_and_no_colliding_terminals() -> None:
    pytest.importorskip("interegular")
    text = (resource_folder("grammar") / "compose.lark").read_text(encoding="utf-8")
    strict = Lark(text, parser="lalr", lexer="contextual", start="program", strict=True)
    for case, _ in ACCEPTED:
        strict.parse(case)


def test_reading_imports_nothing_heavy_and_writes_nothing() -> None:
    code = (
        "import sys; from adaptcompose.syntax import parser as syntax;"
        "assert 'lark' not in sys.modules;"
        "syntax.parse_tree('stack(a) | b');"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'rich', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=resource_folder("grammar").parent,
    )
    assert done.stdout.strip() == "[]"
    assert [path.name for path in resource_folder("grammar").iterdir()] == ["compose.lark"]
