"""Files of examples: their content, and the file and line of every problem."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.data.examples import Examples, examples_from_texts, read_example_files
from adaptcompose.experiment.prepare.data_sources import read_split
from adaptcompose.experiment.spec.sections import DataSection
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.experiment.spec.value_types import DataRef, ScalarText

TOKENS, LABELS = ("tokens", "labels"), ("text", "labels")
REAL = Path(os.environ.get("ADAPTCOMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def read(
    folder: Path, name: str, text: str | bytes, roles: tuple[str, ...] = LABELS, **keys: object
) -> Examples:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    optional = keys.pop("optional", ())
    columns = {
        role: tuple(map(ScalarText, names))
        for role, names in keys.pop("columns", {}).items()  # type: ignore[attr-defined]
    }
    section = DataSection(files={}, columns=columns, **keys)  # type: ignore[arg-type]
    return read_example_files([path], section, roles, optional)  # type: ignore[arg-type]


def wrong(folder: Path, name: str, text: str | bytes, **keys: object) -> list[str]:
    with pytest.raises(Failed) as caught:
        read(folder, name, text, **keys)  # type: ignore[arg-type]
    found = caught.value.diagnostics
    assert {one.code for one in found} == {"AC608"}
    return [one.message.removeprefix(f"{folder}/") for one in found]


def test_jsonl(tmp_path: Path) -> None:
    text = '{"text": "a\u2028b", "label": 1}\n\n{"text": "c", "label": "no", "more": {}}\r\n'
    found = read(tmp_path, "x.jsonl", text)
    assert found.rows == (("a\u2028b", "1"), ("c", "no"))
    assert [found.origin(row)[1] for row in range(2)] == [1, 3]
    assert found.files == (tmp_path / "x.jsonl",)


def test_packed_by_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\none,x\n")
    assert read(tmp_path, "x.CSV.gz", whole).rows == (("one", "x"),)
    (cut,) = wrong(tmp_path, "x.csv.gz", whole[:-9])
    assert cut.startswith("x.csv.gz:1: Compressed file ended")
    (other,) = wrong(tmp_path, "x.csv.gz", b"text,label\none,x\n")
    assert other.startswith("x.csv.gz:1: Not a gzipped file")


def test_jsonl_of_tokens(tmp_path: Path) -> None:
    text = '{"tokens": ["a", "b"], "labels": ["O", 1]}\n'
    assert read(tmp_path, "x.jsonl", text, TOKENS).rows == ((("a", "b"), ("O", "1")),)


def test_csv_with_quotes_breaks_and_a_mark(tmp_path: Path) -> None:
    text = '\ufefftext,label\n"one, ""two""\nthree",x\nfour,y\n'
    found = read(tmp_path, "x.csv", text)
    assert found.rows == (('one, "two"\nthree', "x"), ("four", "y"))
    assert [found.origin(row)[1] for row in range(2)] == [2, 4]


def test_tsv_keeps_its_quotes(tmp_path: Path) -> None:
    found = read(tmp_path, "x.tsv", 'text\tlabel\n"a\tx\n', columns={"text": ["text"]})
    assert found.rows == (('"a', "x"),)


def test_a_table_without_a_header(tmp_path: Path) -> None:
    columns = {"text": ["0", "1"], "labels": ["2"]}
    found = read(tmp_path, "x.csv", "a,b,5.0\n", columns=columns, header=False)
    assert found.rows == ((("a", "b"), "5.0"),)


def test_columns_are_mapped(tmp_path: Path) -> None:
    columns = {"text": ["premise", "hypothesis"], "labels": ["gold"]}
    found = read(tmp_path, "x.csv", "id,premise,hypothesis,gold\n1,a,b,c\n", columns=columns)
    assert found.columns == ("text", "labels")
    assert found.rows == ((("a", "b"), "c"),)


CONLL = """\
# sent_id = 1
1\tSarah\tB-PER\t-
2\tReid\tI-PER\t-

-DOCSTART-\t-X-\tO\t-

# text = # is a word = yes
1\t#\tO\t-
2\t#x\tO\t-
"""


def test_conll_with_tabs_comments_and_columns(tmp_path: Path) -> None:
    found = read(tmp_path, "x.iob2", CONLL, TOKENS, columns={"tokens": ["1"], "labels": ["2"]})
    assert [row[0] for row in found.rows] == [("Sarah", "Reid"), ("#", "#x")]
    assert found.rows[0][1] == ("B-PER", "I-PER")
    assert [found.origin(row)[1] for row in range(2)] == [2, 8]


def test_conll_with_blanks(tmp_path: Path) -> None:
    text = "-DOCSTART- O\n\n# O\nVita  O\n\n# a remark here\n\u00a0 B-LOC \nx I-LOC"
    found = read(tmp_path, "x.conll", text, TOKENS)
    assert found.rows == ((("#", "Vita"), ("O", "O")), (("\u00a0", "x"), ("B-LOC", "I-LOC")))


def test_conll_without_labels_can_be_predicted(tmp_path: Path) -> None:
    found = read(tmp_path, "x.conll", "a\nb\n\nc\n", ("tokens",), optional=("labels",))
    assert found.columns == ("tokens",)
    assert found.column("tokens") == [("a", "b"), ("c",)]


def test_text_is_one_example_a_line(tmp_path: Path) -> None:
    found = read(tmp_path, "x.txt", "one\n\n  two \n", ("text",))
    assert found.column("text") == ["one", "two"]


def test_an_unknown_ending_needs_a_format(tmp_path: Path) -> None:
    assert read(tmp_path, "x.dat", "one", ("text",), format="text").column("text") == ["one"]
    with pytest.raises(Failed, match="AC606"):
        read(tmp_path, "x.dat", "one", ("text",))


def test_shuffle_then_limit(tmp_path: Path) -> None:
    text = "".join(f"{number}\n" for number in range(100))
    plain = read(tmp_path, "x.txt", text, ("text",), limit=5)
    assert plain.column("text") == ["0", "1", "2", "3", "4"]
    mixed = read(tmp_path, "x.txt", text, ("text",), limit=5, shuffle_seed=1)
    again = read(tmp_path, "x.txt", text, ("text",), limit=5, shuffle_seed=1)
    other = read(tmp_path, "x.txt", text, ("text",), limit=5, shuffle_seed=2)
    assert mixed == again
    assert mixed.rows not in (plain.rows, other.rows)
    assert [mixed.origin(row)[1] for row in range(5)] == [int(one) + 1 for (one,) in mixed.rows]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.jsonl", '{"text": "a", "label": "b"}\n{"text"\n', "x.jsonl:2: invalid JSON"),
        ("x.jsonl", "[1]\n", "x.jsonl:1: expected a JSON object"),
        ("x.jsonl", "[" * 100_000, "x.jsonl:1: invalid JSON: a number is too long"),
        ("x.jsonl", '{"text": "a"}\n', "x.jsonl:1: the column `labels` is missing"),
        ("x.jsonl", '{"text": 5, "label": "b"}\n', "x.jsonl:1: `text` must be a string"),
        ("x.jsonl", '{"text": "a", "label": null}\n', "x.jsonl:1: `label` must be a label"),
        ("x.jsonl", '{"text": "a", "label": ["b"]}\n', "x.jsonl:1: expected one label"),
        ("x.csv", "text,label\na\n", "x.csv:2: expected 2 columns, found 1"),
        ("x.csv", 'text,label\n"a,b\n', "x.csv:2: invalid table"),
        ("x.csv", "text,text,label\na,b,c\n", "x.csv:1: the column `text` appears twice"),
        ("x.csv", "text,label\n", "x.csv:1: the file contains no examples"),
        ("x.csv", "", "x.csv:1: the file contains no examples"),
        ("x.csv", b"text,label\na,b\nc\xff,d\n", "x.csv:3: the byte 0xff is not valid UTF-8"),
        ("x.txt", "\n\n", "x.txt:1: the file contains no examples"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, name: str, text: str, expected: str) -> None:
    roles = ("text",) if name == "x.txt" else LABELS
    assert any(one.startswith(expected) for one in wrong(tmp_path, name, text, roles=roles))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.conll", "a O\nb\nc O\n", "x.conll:2: expected 2 columns, found 1"),
        ("x.conll", "a\nb\n", "x.conll:1: the column `labels` is missing"),
        ("x.conll", "\tO\n", "x.conll:1: `tokens` must be a list of words"),
        (
            "x.jsonl",
            '{"tokens": ["a"], "labels": ["O", "O"]}\n',
            "x.jsonl:1: 1 token but 2 labels",
        ),
        (
            "x.jsonl",
            '{"tokens": [], "labels": []}\n',
            "x.jsonl:1: `tokens` must be a list of words",
        ),
    ],
)
def test_what_is_wrong_with_tokens(tmp_path: Path, name: str, text: str, expected: str) -> None:
    assert any(one.startswith(expected) for one in wrong(tmp_path, name, text, roles=TOKENS))


def test_problems_come_together_up_to_a_limit(tmp_path: Path) -> None:
    assert len(wrong(tmp_path, "x.jsonl", "x\n" * 3)) == 3
    assert len(wrong(tmp_path, "x.jsonl", "x\n" * 100)) == 20


def test_the_columns_of_the_file_are_offered(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"its columns .*tweet.*mood"):
        read(tmp_path, "x.csv", "tweet,mood\na,b\n")


def test_texts_are_examples() -> None:
    found = examples_from_texts(["a", ("b", "c")])
    assert found.column("text") == ["a", ("b", "c")]
    assert found.origin(1) == ("<text>", 2)


def test_data_of_a_spec(tmp_path: Path) -> None:
    (tmp_path / "sw.conll").write_text("a O\n")
    (tmp_path / "more.conll").write_text("b O\n\nc O\n")
    (tmp_path / "spec.yaml").write_text(
        "spec: 1\nname: x\nbackbone: b\ncompose: a\ntask: {kind: token-classification}\n"
        'data: {ner: {files: {test: ["{config}.conll", more.conll]}}}\n'
    )
    spec = read_specs(tmp_path / "spec.yaml")[0]
    found = read_split(spec, DataRef("ner", "sw", "test"))
    assert found.column("tokens") == [("a",), ("b",), ("c",)]
    assert [file.name for file in found.files] == ["sw.conll", "more.conll"]
    assert found.origin(2) == (str(tmp_path / "more.conll"), 3)


REAL_FILES = [
    ("masakhaner/swa/dev.txt", 300, {"format": "conll"}, TOKENS),
    ("uner/en_pud/en_pud-ud-test.iob2", 1000, {"columns": {"tokens": "1", "labels": "2"}}, TOKENS),
    ("wikigold/wikigold.conll.txt", 1696, {"format": "conll"}, TOKENS),
    ("wnut17/wnut17train.conll", 3394, {}, TOKENS),
    ("afrisenti/swa/dev.tsv", 453, {"columns": {"text": "tweet", "labels": "label"}}, LABELS),
    ("banking77/test.csv", 3080, {"columns": {"text": "text", "labels": "category"}}, LABELS),
]


@pytest.mark.real
@pytest.mark.parametrize(("path", "count", "keys", "roles"), REAL_FILES)
def test_real_files(path: str, count: int, keys: dict[str, object], roles: tuple[str, ...]) -> None:
    if not (REAL / path).is_file():
        pytest.skip("no real data beside the checkout")
    columns = {role: (ScalarText(name),) for role, name in keys.get("columns", {}).items()}  # type: ignore[attr-defined]
    section = DataSection(files={}, **(keys | {"columns": columns}))  # type: ignore[arg-type]
    assert len(read_example_files([REAL / path], section, roles)) == count
