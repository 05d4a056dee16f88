"""Names, arguments and structure: every case of fixtures/checked.compose and its diagnostics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import adaptcompose as ac
from adaptcompose.backbones.layout import read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.size_limits import DEPTH_LIMIT, PART_LIMIT
from adaptcompose.diagnostics.diagnostic import Diagnostic, Source, render
from adaptcompose.resources import resource_folder

FIXTURE = Path(__file__).parent / "fixtures" / "checked.compose"


def cases() -> list[tuple[str, str]]:
    lines = FIXTURE.read_text(encoding="utf-8").splitlines()
    found = [line.partition("  =>  ") for line in lines if line and not line.startswith("##")]
    return [(text.replace("↵", "\n"), expected) for text, _, expected in found]


CASES = cases()


def summary(found: list[Diagnostic], text: str) -> str:
    """Codes with their columns, and lines where there are several."""
    places = [one.as_dict() for one in found]
    several = "\n" in text
    expected = [
        f"{one['code']}:" + (f"{one['line']}:{one['column']}" if several else f"{one['column']}")
        for one in places
    ]
    return " ".join(expected) or "fine"


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_checked(text: str, expected: str) -> None:
    found = ac.check(text)
    assert summary(found, text) == expected
    assert found == sorted(found, key=Diagnostic.position)


def test_canonical_text_gives_the_same_diagnostics() -> None:
    """What is said depends on what an expression says, not on how it is written."""
    for text, _ in CASES:
        canonical = str(ac.parse(text))
        again = [one.code for one in ac.check(canonical)]
        assert sorted(again) == sorted(one.code for one in ac.check(text)), text


BERT = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 12, "vocab_size": 9}
BERT |= {"num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 32}
BERT["type_vocab_size"] = 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stack(lang=sw) | drop(bottom=12)", "AC107:12 AC311:30"),
        ("stack(parallel(a=houlsby(), b=lora()), houlsby())", "AC308:7"),
        ("stack(parallel(a=mam()), houlsby()) | drop(layers=12)", "AC308:7 AC312:51"),
        ("fuse(route(a=houlsby(), b=pfeiffer()), houlsby())", "AC308:6"),
        ("stack(parallel(a=pfeiffer()), fuse(houlsby(), pfeiffer()))", "AC308:7 AC314:31"),
    ],
)
def test_what_is_unknown_or_misplaced_hides_nothing_else(text: str, expected: str) -> None:
    """A backbone without a name has no variants, and misplaced branches have no sites."""
    found = check_source(
        text, CheckContext(Catalogue.open(resource_folder("hub_cards")), read_facts(BERT))
    )
    assert summary(list(found.diagnostics), text) == expected


def test_the_cases_are_many_and_distinct() -> None:
    assert len({text for text, _ in CASES}) == len(CASES) >= 150


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("stak(lang=sw)", "did you mean `stack`?"),
        ("pfeifer()", "did you mean `pfeiffer`?"),
        ("stack(lang=swh)", "did you mean `lang/sw`?"),
        ("stack(ner)", "did you mean `task/ner`?"),
        ("let base = lang/sw; stack(bse) | swap(x=base)", "did you mean `base`?"),
        ("fuse(glu/*)", "did you mean `glue`?"),
        ("lang/sw | drop(botom=5)", "did you mean `bottom`?"),
        ("stack(lang=sw) | swap(lng=en)", "did you mean `lang`?"),
        ("stack(lang=sw) | freeze(lan)", "did you mean `lang`?"),
        ("merge(glue/mnli, glue/rte, method=tie)", "did you mean `ties`?"),
    ],
)
def test_the_nearest_name_is_offered(text: str, help: str) -> None:
    assert help in [one.help for one in ac.check(text)]


def test_a_composition_has_a_limit_of_size_and_of_depth() -> None:
    def lets(count: int, value: str) -> str:
        steps = (f"let a{n} = {value.replace('A', f'a{n - 1}')}; " for n in range(1, count + 1))
        return f"let a0 = lang/sw; {''.join(steps)}a{count}"

    assert not ac.check(lets(12, "average(A, A)"))
    (large,) = ac.check(lets(14, "average(A, A)"))
    assert large.code == "AC904"
    assert f"the limit is {PART_LIMIT:,}" in large.message
    assert not ac.check(lets(DEPTH_LIMIT - 2, "average(A)"))
    (deep,) = ac.check(lets(DEPTH_LIMIT + 1, "average(A)"))
    assert (
        deep.message
        == f"the composition nests blocks {DEPTH_LIMIT + 1} deep; the limit is {DEPTH_LIMIT}"
    )


def test_aliases_of_a_spec_have_the_same_limit(tmp_path: Path) -> None:
    from adaptcompose.experiment.prepare.spec_check import check_specs
    from adaptcompose.experiment.spec.spec import parse_specs

    aliases = {f"a{n}": f"average(a{n - 1}, a{n - 1})" for n in range(1, 40)}
    spec = {"spec": 1, "name": "x", "backbone": "user/base", "compose": "a39"}
    text = json.dumps(spec | {"adapters": {"a0": "lang/sw"} | aliases})
    found = check_specs(parse_specs(Source(text), tmp_path), tmp_path / "x.yaml")
    assert {one.code for one in found} == {"AC904"}


SEVERAL = "let a = lang/sw;\nstack(lang=swh) | drop(botom=5)"


def test_as_text() -> None:
    assert render(ac.check(SEVERAL)).splitlines()[7:12] == [
        "error[AC103]: unknown adapter `lang/swh`",
        "  --> <expression>:2:12",
        "  |",
        "2 | stack(lang=swh) | drop(botom=5)",
        "  |            ^^^",
    ]


def test_as_json() -> None:
    found = json.loads(render(ac.check(SEVERAL), "json"))
    assert [(one["code"], one["severity"]) for one in found] == [
        ("AC104", "warning"),
        ("AC103", "error"),
        ("AC201", "error"),
    ]
    assert found[1] == {
        "code": "AC103",
        "severity": "error",
        "message": "unknown adapter `lang/swh`",
        "file": "<expression>",
        "line": 2,
        "column": 12,
        "end_line": 2,
        "end_column": 15,
        "help": "did you mean `lang/sw`?",
    }


def test_as_annotations_of_github() -> None:
    source = Source("sw\n", "a,b:c%.compose")
    from adaptcompose.diagnostics.codes import AC103, AC104

    found = [AC103.at(source.span(0, 2), name="100%"), AC104.at(name="x")]
    assert render(found, "github").splitlines() == [
        "::error file=a%2Cb%3Ac%25.compose,line=1,col=1,endColumn=3,title=AC103::unknown adapter "
        "`100%25` (help: write `user/repo` for an adapter of the Hub)",
        "::warning title=AC104::`x` is never used (help: use it or remove it)",
    ]


@pytest.mark.parametrize(
    ("line", "start", "end", "shown", "marks"),
    [
        ("語語 sw", 3, 5, "語語 sw", "     ^^"),
        ("語語 sw", 0, 2, "語語 sw", "^^^^"),
        ("e\u0301 sw", 3, 5, "e\u0301 sw", "  ^^"),
        ("\tsw", 1, 3, "\tsw", "\t^^"),
        ("a\x1b[2J\u202eb sw", 8, 10, "a\ufffd[2J\ufffdb sw", "        ^^"),
        ("x" * 300, 200, 203, f"…{'x' * 160}", " " * 61 + "^^^"),
        ("x" * 300, 10, 12, f"{'x' * 160}…", " " * 10 + "^^"),
    ],
)  # fmt: skip
def test_marks_stand_below_what_they_mean(
    line: str, start: int, end: int, shown: str, marks: str
) -> None:
    from adaptcompose.diagnostics.codes import AC003

    expected = str(AC003.at(Source(line).span(start, end), char="x")).splitlines()
    assert expected[3].removeprefix("1 | ").rstrip("…") == shown.rstrip("…")
    assert expected[4].removeprefix("  | ") == marks


def test_messages_stay_on_their_line_whatever_is_in_them() -> None:
    from adaptcompose.diagnostics.codes import AC412

    found = AC412.at(path="a\n\x1b[31m\u202e" + "x" * 10_000, root="b\r")
    assert found.message.isprintable()
    assert found.help == "check the path, which is relative to b\\r"
    assert len(found.message) < 600
