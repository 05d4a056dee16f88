"""fmt: the tree stays, every comment stays, and a second time changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from adaptcompose.documents import load
from adaptcompose.language.diagnostics import Failed, Source
from adaptcompose.language.formatting import as_scalar, formatted
from adaptcompose.language.syntax import parse_tree
from adaptcompose.work.tidy import tidy
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
    new = formatted(written)
    assert parse_tree(new) == parse_tree(text)
    assert sorted(re.findall(r"# note \d", new)) == sorted(notes)
    assert formatted(new) == new
    if not notes:
        assert " ".join(new.split()) == str(parse_tree(text))


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
    ],
)
def test_where_a_comment_goes(text: str, expected: str) -> None:
    assert formatted(text) == expected


def test_a_long_line_is_a_stage_a_line() -> None:
    stages = ["stack(lang=sw, task=ner)", "fuse(glue/mnli, glue/rte, glue/stsb)", "drop(bottom=5)"]
    text = " | ".join([*stages, "keep(top=7)"])
    assert len(text) > 88
    assert formatted(text) == "\n  | ".join([*stages, "keep(top=7)"])


@pytest.mark.parametrize(
    "text", ["no", "5.5/x", '"./a: b"', "{a,b}/x", "*/x", "?a/b", "stack(lang=sw) | x/y", "true/x"]
)
def test_yaml_gives_a_scalar_back(text: str) -> None:
    canonical = str(parse_tree(text))
    assert load(f"compose: {as_scalar(canonical)}\n") == {"compose": canonical}


def test_all_mistakes_of_a_spec_are_told_and_nothing_is_changed() -> None:
    text = "compose: stack(a\nadapters: {b: 'stack(,)'}\nevaluate: [{pipe: 'drop(, '}]\n"
    with pytest.raises(Failed) as caught:
        tidy(Source(text, "x.yaml"))
    lines = {one.span.origin().source.line_and_column(one.span.origin().start)[0]
             for one in caught.value.diagnostics if one.span}  # fmt: skip
    assert lines == {1, 2, 3}


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("examples/**/specs/*.yaml")))
def test_a_formatted_spec_stays_byte_for_byte(path: Path) -> None:
    text = path.read_text("utf-8")
    assert tidy(Source(text, path.name)) == text
