"""fmt: it keeps the tree and every comment, and formatting twice changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.experiment.spec.formatting import expression_nodes, format_spec
from adaptcompose.storage.yaml_source import YamlNode, load_yaml, parse_yaml
from adaptcompose.syntax.formatting import as_yaml_scalar, format_expression
from adaptcompose.syntax.literals import quote
from adaptcompose.syntax.parser import parse_tree
from adaptcompose.syntax.scanner import scan
from tests.sampling import sampled

TEXTS = [
    "stack(lang=sw, task=ner) | fuse(glue/*, !glue/wnli) | drop(bottom=5)",
    "let a = pfeiffer(reduction=[16, 8]); let b = (a | drop(top=1)) | x/y; stack(a, b, './a #b')",
    "average(lang/en: 0.3, stack(a | b, c):0.7) | swap(lang=none)",
    "(stack(sw, ner) | keep(layers=[0..3, 7])) | fuse(a, (b | c), dropout=0.1)",
    "none",
]
_PLACE = re.compile(r"(?<=[,|(;=])(?![^'\"]*['\"][^'\"]*$)")


@sampled(100, st.sampled_from(TEXTS), st.data())
def test_tree_and_comments_stay(text: str, data: st.DataObject) -> None:
    places = [0, *(m.start() for m in _PLACE.finditer(text) if text.count("'", 0, m.start()) != 1)]
    chosen = data.draw(st.lists(st.sampled_from([*places, len(text)]), unique=True, max_size=5))
    notes = []
    written = text
    for number, place in enumerate(sorted(chosen, reverse=True)):
        blank = data.draw(st.sampled_from(["", " ", "\n", "\n  "]))
        note = f"# note {number}"
        notes.append(note)
        written = f"{written[:place]}{blank}{note}\n{written[place:]}"
    new = format_expression(written)
    assert parse_tree(new) == parse_tree(text)
    assert sorted(re.findall(r"# note \d", new)) == sorted(notes)
    assert format_expression(new) == new
    if not notes:
        assert " ".join(new.split()) == str(parse_tree(text))


BLANKS = st.sampled_from([" ", " ", " ", "\n", " # e\n", "\n# f\n", " # g 'h\n# \"i\n\n"])


@sampled(300, st.sampled_from([*TEXTS, "let q = (a | b); x", "let q = a; (b | c) | d"]), st.data())
def test_comments_may_stand_between_any_two_tokens(text: str, data: st.DataObject) -> None:
    tokens = [token.text for token in scan(Source(text))]
    written = "".join(data.draw(BLANKS) + token for token in tokens) + data.draw(BLANKS)
    new = format_expression(written)
    assert parse_tree(new) == parse_tree(text)
    assert sorted(comments(new)) == sorted(comments(written))
    assert format_expression(new) == new


def comments(text: str) -> list[str]:
    without = text
    for one in ("'./a #b'", '"./a #b"'):
        without = without.replace(one, "")
    return re.findall(r"#[^\n]*", without)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# top\nstack( a )", "# top\nstack(a)"),
        ("stack( a )# end", "stack(a)  # end"),
        ("stack( a )\n# after", "stack(a)\n# after"),
        ("stack(a)# one\n|drop( top=1 )", "stack(a)  # one\n  | drop(top=1)"),
        ("a/b\n# above\n|c/d", "a/b\n  # above\n  | c/d"),
        ("stack(a, # x\n b) # y", "# x\n# y\nstack(a, b)"),
        ("let a=x/y; # why\na", "let a = x/y;  # why\na"),
        ("let q = (a | b) # e\n; # f\nx", "let q = a\n  # e\n  # f\n  | b;\nx"),
        ("let q = a\n# e\n| b; x", "let q = a\n  # e\n  | b;\nx"),
    ],
)
def test_where_a_comment_goes(text: str, expected: str) -> None:
    assert format_expression(text) == expected


def test_a_long_line_is_a_stage_a_line() -> None:
    stages = ["stack(lang=sw, task=ner)", "fuse(glue/mnli, glue/rte, glue/stsb)", "drop(bottom=5)"]
    text = " | ".join([*stages, "keep(top=7)"])
    assert len(text) > 88
    assert format_expression(text) == "\n  | ".join([*stages, "keep(top=7)"])


@pytest.mark.parametrize(
    "text", ["no", "5.5/x", '"./a: b"', "{a,b}/x", "*/x", "?a/b", "stack(lang=sw) | x/y", "true/x"]
)
def test_yaml_gives_a_scalar_back(text: str) -> None:
    canonical = str(parse_tree(text))
    assert load_yaml(f"compose: {as_yaml_scalar(canonical)}\n") == {"compose": canonical}


def test_all_mistakes_of_a_spec_are_reported_and_nothing_is_changed() -> None:
    text = "compose: stack(a\nadapters: {b: 'stack(,)'}\nevaluate: [{pipe: 'drop(, '}]\n"
    with pytest.raises(Failed) as caught:
        format_spec(Source(text, "x.yaml"))
    lines = {one.span.origin().source.line_and_column(one.span.origin().start)[0]
             for one in caught.value.diagnostics if one.span}  # fmt: skip
    assert lines == {1, 2, 3}


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("examples/**/specs/*.yaml")))
def test_a_formatted_spec_stays_byte_for_byte(path: Path) -> None:
    text = path.read_text("utf-8")
    assert format_spec(Source(text, path.name)) == text


QUOTED = ["swap(lang=sw,task=none)", "drop( layers=[0,1] )", "fuse(glue/{mnli,rte} , !glue/x)",
          'fuse(./a, "./b c")', "average(a: 0.3,b:0.7)", "'./it a'", "no", "true/x"]  # fmt: skip
LINES = ["stack(a , b)", "|drop( bottom=1 )", "| fuse(glue/{mnli,rte}, './a #b')", "|x/y"]


class Written:
    """A random spec; every expression in some style, of scalars and of what holds them."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = lambda *options: data.draw(st.sampled_from(options))

    def scalar(self, indent: str, *styles: str) -> str:
        style = self.draw("plain", "'", '"', *styles)
        if style == "plain":
            return self.draw("sw", "pfeiffer( reduction=4 )", "(a|b)", "lora()|scale( by=2 )")
        if style in "|>":
            return self.block(style, indent)
        text = self.draw(*QUOTED)
        if style == "'":
            return "'{}'".format(text.replace("'", "''"))
        return quote(self.draw(text, "a # b\n|x/y", "a # b"))

    def block(self, style: str, indent: str) -> str:
        lines = list(LINES[: self.draw(1, 2, 3, 4)])
        noted = range(len(lines)) if style == "|" else [len(lines) - 1]
        lines = [f"{one}{self.draw('', ' # c') if i in noted else ''}"
                 for i, one in enumerate(lines)]  # fmt: skip
        deeper = self.draw("", "  ") if style == "|" else ""
        header = style + self.draw("", "-", "+", " # header")
        body = [f"{indent}  {deeper if i else ''}{one}" for i, one in enumerate(lines)]
        return "\n".join([header, *body]) + self.draw("", "\n")

    def spec(self) -> str:
        flow = self.draw(True, False)
        lines = ["spec: 1 # one", f"compose: {self.scalar('', '|', '>')}"]
        if flow:
            adapters = [f"n{i}: {self.scalar('')}" for i in range(self.draw(1, 2))]
            lines += [f"adapters: {{{', '.join(adapters)}}}"]
            items = [f"{{name: {n}, pipe: {self.scalar('')}}}" for n in "ab"]
            lines += [f"evaluate: [{', '.join(items)}]"]
        else:
            lines += ["adapters:", f"  n: {self.scalar('  ', '|', '>')}", "evaluate:"]
            lines += [f"  - name: {n}\n    pipe: {self.scalar('    ', '|', '>')}" for n in "ab"]
        lines += ["train: {lr: 1e-4, update: [ a,b ]} # end", "x: .nan"]
        return "\n".join(lines) + "\n"


@sampled(300, st.data())
def test_a_formatted_spec_has_the_same_values(data: st.DataObject) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = Written(data).spec().replace("\n", end)
    new = format_spec(Source(text, "x.yaml"))
    old_values, new_values = (
        list(expression_nodes(parse_yaml(Source(one)))) for one in (text, new)
    )
    pairs = list(zip(old_values, new_values, strict=True))
    for old, one in pairs:
        assert parse_tree(old.data) == parse_tree(one.data)
        assert len(comments(old.data)) == len(comments(one.data))
        assert one.data.strip() == format_expression(old.data)
    outside = [rest(one, values) for one, values in ((text, old_values), (new, new_values))]
    assert outside[0] == outside[1]
    assert set(re.findall(r"\r\n|\r|\n", new)) == {end}
    assert format_spec(Source(new, "x.yaml")) == new


def rest(text: str, values: list[YamlNode]) -> list[str]:
    """What stands around the expressions of a spec."""
    ends = sorted(place for one in values for place in (one.span.start, one.span.end))
    places = [0, *ends, len(text)]
    return [text[slice(*pair)] for pair in zip(places[::2], places[1::2], strict=True)]


def test_a_text_that_would_say_something_else_is_never_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "adaptcompose.experiment.spec.formatting.as_yaml_scalar", lambda text: text.upper()
    )
    with pytest.raises((RuntimeError, Failed)):
        format_spec(Source("compose: sw\n", "x.yaml"))
