"""YAML: what scalars mean, where they stand, what is refused, and that writing is the inverse."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example
from hypothesis import strategies as st

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source
from adaptcompose.storage import yaml_source
from adaptcompose.storage.atomic import write_atomically
from adaptcompose.storage.yaml_source import YamlNode, dump_yaml, load_yaml, parse_yaml, read_source
from tests.sampling import sampled

if TYPE_CHECKING:
    from pathlib import Path


def refusals(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(Failed) as caught:
        parse_yaml(Source(text, "spec.yaml"))
    return caught.value.diagnostics


def place(found: Diagnostic) -> tuple[int, int]:
    assert found.span is not None
    return found.span.source.line_and_column(found.span.start)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("y", "y"),
        ("true", True), ("False", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("nULL", "nULL"),
        ("1e-4", 1e-4), ("1E5", 1e5), ("5e-5", 5e-5), (".5", 0.5), ("5.", 5.0), ("-.5e+3", -500.0),
        ("0o17", 15), ("0x1F", 31), ("017", 17), ("+3", 3), ("-0", 0),
        ("1_000", "1_000"), ("12:30", "12:30"), ("2026-01-01", "2026-01-01"), ("0b11", "0b11"),
        (".inf", math.inf), ("-.Inf", -math.inf), ("inf", "inf"), ("e5", "e5"),
        (".", "."), ("=", "="),
    ],
)  # fmt: skip
def test_unquoted_scalars_mean_what_yaml_1_2_says(text: str, meaning: object) -> None:
    value = parse_yaml(Source(f"key: {text}\n")).as_plain()["key"]
    assert value == meaning
    assert type(value) is type(meaning)


def test_not_a_number_is_one() -> None:
    assert math.isnan(load_yaml("a: .nan")["a"])


def test_quoted_scalars_are_texts() -> None:
    assert load_yaml("""[ "5", 'true', "", '' ]""") == ["5", "true", "", ""]


def test_keys_are_texts() -> None:
    assert load_yaml("no: 1\n5: 2\ntrue: 3\n") == {"no": 1, "5": 2, "true": 3}


def test_an_empty_document_is_none() -> None:
    for text in ("", "\n", "# a comment\n", "---\n", "\ufeff"):
        assert parse_yaml(Source(text)).data is None


def test_places_of_nodes_and_keys() -> None:
    text = "train:\n  lr: 1e-4   # rate\n  seeds: [0, 1]\nlist:\n- a\n- b: c\n\n# end\n"
    value = parse_yaml(Source(text))
    train = value.data["train"]
    assert train.span.text == "lr: 1e-4   # rate\n  seeds: [0, 1]"
    assert train.key_spans["seeds"].text == "seeds"
    assert train.data["seeds"].span.text == "[0, 1]"
    assert value.data["list"].span.text == "- a\n- b: c"
    assert value.span.text == text[: text.index("\n\n#")]


def test_a_missing_value_has_a_place_in_its_line() -> None:
    span = parse_yaml(Source("a:\nb: 1\n")).data["a"].span
    assert span.source.line_and_column(span.start) == (1, 3)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("break_", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    [
        "k: one two\n",
        "k: one\n   two\n\n\n   three  \n",
        "k: 'it''s  two'\n",
        "k: 'one\n\n  two   \n  three'\n",
        'k: "a\\tb\\x41\\u00e9\\U0001F600 \\"q\\" c"\n',
        'k: "one \\\n   two\n\n   three"\n',
        "k: |\n  one\n   two\n\n  three\n",
        "k: |2-\n    one\n  two\n\n\n",
        "k: |+\n\n  one\n\n\n",
        "k: >\n  one\n  two\n\n  three\n    more\n    still\n\n  back\n",
        "k: >+\n\n  one\n\n  two\n\nother: x\n",
        "k: >-\n  one\n  two",
        "- k: |\n    deep # no comment\n    😀 two\n- x\n",
        "{k: one two, l: [a\n b]}\n",
    ],
)
def test_every_character_knows_its_place(text: str, break_: str, mark: str) -> None:
    text = mark + text.replace("\n", break_)
    for value in texts(parse_yaml(Source(text))):
        assert_places(value)


def texts(value: YamlNode) -> list[YamlNode]:
    if isinstance(value.data, dict):
        return [found for inner in value.data.values() for found in texts(inner)]
    if isinstance(value.data, tuple):
        return [found for inner in value.data for found in texts(inner)]
    return [value] if isinstance(value.data, str) else []


def assert_places(value: YamlNode) -> None:
    """Every character stands at itself, an escape, or a break of the line that became it."""
    text, offsets = value.span.source.text, value.offsets
    assert len(offsets) == len(value.data) + 1
    assert list(offsets) == sorted(offsets)
    for char, offset in zip(value.data, offsets, strict=False):
        at = text[offset]
        folded = char in " \n" and at in "\r\n"
        escaped = value.style == '"' and at == "\\"
        assert at == char or folded or escaped, (char, at, offset)
        assert value.span.start <= offset


LINES = st.text(alphabet="ab :#'\"\\\t-\n", max_size=30)


@sampled(300, LINES, st.sampled_from(["|", ">", '"', "'", None]), st.integers(8, 80))
@example("\n a\n", "|", 80)
@example(" a\n\n b\nc\n\n", ">", 80)
def test_places_in_whatever_another_writer_writes(text: str, style: str | None, width: int) -> None:
    document = yaml.dump({"k": {"inner": _Styled(text, style)}}, Dumper=_Writer, width=width)
    value = parse_yaml(Source(document)).data["k"].data["inner"]
    # PyYAML's own writer loses the exact text of some block scalars; the places must hold anyhow.
    if isinstance(value.data, str):
        assert_places(value)


class _Styled:
    def __init__(self, text: str, style: str | None):
        self.text, self.style = text, style


class _Writer(yaml.SafeDumper):
    pass


_Writer.add_representer(
    _Styled,
    lambda dumper, it: dumper.represent_scalar("tag:yaml.org,2002:str", it.text, style=it.style),
)


def test_a_caret_points_through_a_literal_block() -> None:
    text = "spec: 1\ncompose: |\n  fuse(glue/*)   # all\n    | drop(botom=5)\n"
    source = parse_yaml(Source(text, "bad.yaml")).data["compose"].source()
    start = source.text.index("botom")
    span = source.span(start, start + 5).origin()
    assert (span.source.name, span.text) == ("bad.yaml", "botom")
    assert span.source.line_and_column(span.start) == (4, 12)


def test_the_end_of_an_expression_has_a_place() -> None:
    for text in ("k: stack(a) |  # x\n", 'k: "stack(a) |"\n'):
        source = parse_yaml(Source(text)).data["k"].source()
        assert source.span(len(source.text)).origin().start == text.index("|") + 1


@pytest.mark.parametrize(
    ("text", "code", "at", "words"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "AC602", (2, 11), "`c` appears twice"),
        ("a: 1\nb: 2\na: 3\n", "AC602", (3, 1), "`a` appears twice"),
        ("- x:\n  - {k: 1, 'k': 2}\n", "AC602", (2, 12), "`k`"),
        ("a: &x 1\n", "AC611", (1, 4), "anchors"),
        ("a: *x\n", "AC611", (1, 4), "aliases"),
        ("a: !!python/object:os.system x\n", "AC611", (1, 4), "tags"),
        ("a: !x y\n", "AC611", (1, 4), "tags"),
        ("a: 1\n<<: {b: 1}\n", "AC611", (2, 1), "merge keys"),
        ("a: 1\n---\nb: 2\n", "AC611", (2, 1), "more than one document"),
        ("a:\n\tb: 1\n", "AC611", (2, 1), "tab"),
        ("a: average(x: 0.3, y: 0.7)\n", "AC611", (1, 13), "`: ` inside"),
        ("a: [1, 2\n", "AC611", (2, 1), "flow sequence"),
        ("a: 'open\n", "AC611", (2, 1), "end of stream"),
        ("{[a]: 1}", "AC611", (1, 2), "key must be a string"),
        ("'': 1\n", "AC611", (1, 1), "key is missing"),
        ("a: x\x00y\n", "AC611", (1, 5), "U+0000"),
        ("a: \ud800\n", "AC611", (1, 4), "U+D800"),
        ("a: " + "9" * 5000, "AC611", (1, 4), "too long"),
    ],
)
def test_what_is_refused_and_where(text: str, code: str, at: tuple[int, int], words: str) -> None:
    (found,) = refusals(text)
    assert (found.code, place(found)) == (code, at)
    assert words in found.message
    assert str(found)


def test_all_equal_keys_of_a_mapping_are_told() -> None:
    assert [place(found)[0] for found in refusals("a: 1\na: 2\nb: 1\nb: 2\n")] == [2, 4]


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 5000, "{a: " * 500, "[" * 100 + "]" * 100])
def test_deep_nesting_is_refused_not_a_crash(text: str) -> None:
    assert "nested deeper" in refusals(text)[0].message


def test_a_large_document_is_refused(tmp_path: Path) -> None:
    assert "larger than 1 MB" in refusals("# " + "x" * yaml_source.SIZE_LIMIT)[0].message
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"#" * (yaml_source.SIZE_LIMIT + 1))
    with pytest.raises(Failed, match="larger than 1 MB"):
        read_source(path)


def test_bytes_that_are_not_utf8_have_a_place(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes("a: é\nb: ".encode() + b"\xe9\n")
    with pytest.raises(Failed) as caught:
        read_source(path, "spec.yaml")
    (found,) = caught.value.diagnostics
    assert (found.code, place(found)) == ("AC017", (2, 4))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xef\xbb\xbfspec: 1\n")
    assert parse_yaml(read_source(path)).as_plain() == {"spec": 1}


LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])
CHARACTERS = LETTERS | st.sampled_from("\n\t :")
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(CHARACTERS, max_size=12)
    | st.sampled_from(["no", "1e-4", "0o17", ".5", "null", "~", "<<", "=", "- a", "a: b", "12:30"])
)  # fmt: skip
KEYS = st.text(CHARACTERS, min_size=1, max_size=8) | st.sampled_from(["no", "1", "a: b", "? x"])
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@sampled(300, DATA)
@example({"a": "x\n\n  y\n", "b": "\n", "c": " lead\n", "d": "\u2028\n", "e": "line\n \n"})
def test_reading_is_the_inverse_of_writing(data: Any) -> None:
    assert load_yaml(dump_yaml(data)) == data


def test_what_is_written_is_read_alike_by_other_readers() -> None:
    data = {"lang": "no", "lr": 1e-4, "small": "1e-4", "time": "12:30", "text": "a\nb\n", "x": "5"}
    assert yaml.safe_load(dump_yaml(data)) == data


def test_long_texts_stay_on_one_line() -> None:
    assert dump_yaml({"k": "word " * 100 + "end"}).count("\n") == 1


def test_keys_that_are_no_texts_are_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="key"):
        dump_yaml({"labels": {0: "O"}})


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "sub" / "file.lock"
    write_atomically(path, "old é\n")
    assert path.read_text("utf-8") == "old é\n"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert [found.name for found in path.parent.iterdir()] == ["file.lock"]
    assert path.read_text("utf-8") == "old é\n"


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_messages_name_no_python() -> None:
    broken = ("a: [", "%TAG x\n", "a: @x\n", "a: `x`\n", "%YAML 3.0\n---\na: 1\n", '"\\q"')
    for text in broken:
        for found in refusals(text):
            assert not re.search(r"Error|<class|object at", str(found))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_place_is_told_in_lines_however_they_end(end: str) -> None:
    source = Source(end.join(["a: 1", "b:", "  c: 2", "  c: 3", ""]), "x.yaml")
    with pytest.raises(Failed) as caught:
        parse_yaml(source)
    (found,) = caught.value.diagnostics
    assert (found.as_dict()["line"], found.as_dict()["column"]) == (4, 3)
    assert "\n4 |   c: 3\n" in str(found)
