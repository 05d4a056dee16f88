"""`check`, `plan` and `run` prepare a spec in the same way, up to different steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptcompose.cli.inputs import check_target
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.prepare.spec_check import check_specs
from adaptcompose.experiment.run.seed_dirs import seed_digest
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.storage.yaml_source import dump_yaml
from tests.workshop import Workshop


def write(root: Path, **changes: Any) -> Path:
    start: dict[str, Any] = {
        "spec": 1,
        "name": "demo",
        "backbone": "FacebookAI/xlm-roberta-base",
        "compose": "stack(lang=sw, task=pfeiffer())",
    }
    path = root / "demo.yaml"
    path.write_text(dump_yaml(start | changes))
    return path


def found(path: Path) -> list[Diagnostic]:
    return check_specs(read_specs(path), path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the remote hub is opened."""

    def opened(self: Any, *given: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("adaptcompose.hub.huggingface.HuggingFaceStore.__init__", opened)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"compose": "stack(lang=sw, task=x/y) | fuse(glue/*) | drop(bottom=5)"}, []),
        ({"compose": "stack(lang=swh) | drop(botom=5)"}, ["AC103", "AC201"]),
        ({"compose": "stack(lang=sw", "adapters": {"a": "none"}}, ["AC004"]),
        ({"publish": {"repo": "a/b", "license": "mit"}}, ["AC501"]),
    ],
)
def test_a_check_never_waits_for_the_network(
    tmp_path: Path, changes: dict[str, Any], codes: list[str]
) -> None:
    assert [one.code for one in found(write(tmp_path, **changes))] == codes


@pytest.mark.usefixtures("offline")
def test_what_is_on_this_machine_is_looked_at_whatever_the_hub(workshop: Workshop) -> None:
    """A check reads a local backbone and local adapters."""
    base = {"model": str(workshop.root / "base")}
    path = write(workshop.root, backbone=base, compose="stack(lang=x/y) | drop(bottom=3)")
    assert [one.code for one in found(path)] == ["AC311"]
    path = write(workshop.root, backbone=base, compose="stack(./data)")
    assert [one.code for one in found(path)] == ["AC406"]
    path.unlink()


def test_problems_are_sorted_by_their_place_and_none_is_told_twice(shop: Workshop) -> None:
    path = shop.spec(
        adapters={"new": "pfeiffer()"},
        compose="stack(lang=xx, task=new)",
        task={"kind": "text-classification"},
        data=shop.data("jsonl"),
        train={"data": "d", "steps": 1},
        evaluate=[
            {"name": "a", "data": "d", "pipe": "drop(bottm=1)"},
            {"each": {"n": ["7", "8"]}, "name": "b ${n}", "data": "d", "pipe": "drop(botm=${n})"},
            {"name": "c", "data": "d"},
        ],
    )
    problems = found(path)
    assert [one.code for one in problems] == ["AC103", "AC201", "AC201"]
    places = [one.position() for one in problems]
    assert places == sorted(set(places))
    with pytest.raises(Failed) as failed:
        prepare_runs(read_specs(path), path)
    assert list(failed.value.diagnostics) == problems


def test_the_digest_of_a_seed_is_of_what_decides_it(shop: Workshop) -> None:
    def digest(**changes: Any) -> str:
        train = {"data": "d", "steps": 2, "batch": 4} | changes.pop("train", {})
        start: dict[str, Any] = {
            "adapters": {"new": "pfeiffer(reduction=4)"},
            "compose": "stack(lang=en, task=new)",
            "task": {"kind": "text-classification"},
            "data": shop.data("jsonl"),
            "train": train,
        }
        path = shop.spec("demo", **(start | changes))
        return seed_digest(prepare_runs(read_specs(path), path)[0])

    usual = digest()
    assert usual == digest(description="x", train={"seeds": [0, 1], "budget": "5m"})
    assert usual == digest(evaluate=[{"name": "x", "data": "d", "pipe": "swap(lang=sw)"}])
    others = [
        digest(train={"lr": 0.5}),
        digest(train={"steps": 3}),
        digest(train={"update": ["lang", "task", "head"]}),
        digest(compose="stack(lang=sw, task=new)"),
        digest(compose="stack(lang=en, task=new) | drop(bottom=1)"),
        digest(adapters={"new": "pfeiffer(reduction=2)"}),
        digest(task={"kind": "text-classification", "labels": ["nairobi", "mombasa"]}),
        digest(data={"d": shop.data("jsonl")["d"] | {"limit": 4}}),
        digest(data=shop.data("csv")),
    ]
    assert len({usual, *others}) == 1 + len(others)
    (shop.root / "data/train.jsonl").write_bytes((shop.root / "data/train.jsonl").read_bytes() * 2)
    assert digest() != usual


def test_what_is_served_is_checked_and_locked(shop: Workshop) -> None:
    serve = {"allow": {"english": "stack(lang=en, task=new)", "other": "stack(lang=sw, task=new)"}}
    changes: dict[str, Any] = {
        "adapters": {"new": "pfeiffer()"},
        "compose": "stack(lang=en, task=new)",
        "task": {"kind": "text-classification"},
        "data": shop.data("jsonl"),
        "train": {"data": "d", "steps": 1},
    }
    path = shop.spec(**changes, serve=serve)
    (note,) = found(path)
    assert (note.code, note.severity) == ("AC604", "note")
    assert note.span is not None
    assert note.span.text.startswith("allow:")
    assert "lang/sw" in prepare_runs(read_specs(path), path)[0].lock.adapters

    def told(**allow: str) -> list[tuple[str, str]]:
        problems = found(shop.spec(**changes, serve={"allow": allow}))
        return [
            (one.code, one.span.origin().text)
            for one in problems
            if one.severity == "error" and one.span is not None
        ]

    assert told(a="stack(lang=xx)", b="none | drop(botom=1)") == [
        ("AC103", "xx"),
        ("AC201", "botom"),
    ]
    assert told(a="stack(lang=en, task=pfeiffer())") == [("AC501", "pfeiffer()")]
    del changes["train"]
    assert ("AC501", "stack(lang=en, task=new)") in told(a="none")


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("stack(", ["AC004 17"]),
        ("drop(bottom=1)", ["AC301 12"]),
        ("stack(lang=xx, a=foo())", ["AC103 23", "AC101 29"]),
        ("./nothere", ["AC412 12"]),
        ("x", ["AC108 12"]),
        ("fuse(lang/sw)", ["AC303 12"]),
        ("let a = pfeiffer(); a | drop(bottom=1)", []),
        ("average(lang/sw:0.3, lang/en:0.3)", ["AC208 12"]),
    ],
)
def test_an_alias_that_nothing_uses_is_checked(alias: str, expected: list[str]) -> None:
    path = Path(__file__).parents[2] / "examples/quickstart.yaml"
    found = check_target(str(path), overrides=[f"adapters.x={alias}"])
    assert [f"{one.code} {one.as_dict()['column']}" for one in found] == expected


def test_chains_of_aliases_are_read_or_refused(tmp_path: Path) -> None:
    def told(length: int, expression: str) -> set[str]:
        aliases = {f"a{i}": expression.format(f"a{i + 1}") for i in range(length)}
        spec = {"spec": 1, "name": "x", "backbone": "a/b", "compose": "a0"}
        spec["adapters"] = aliases | {f"a{length}": "pfeiffer()"}
        (tmp_path / "x.yaml").write_text(dump_yaml(spec))
        return {one.code for one in check_target(str(tmp_path / "x.yaml"))}

    assert told(90, "{}") == set()
    assert told(2000, "{}") == {"AC904"}
    assert told(30, "stack(" * 20 + "{}" + ")" * 20) == {"AC904"}
    # an alias is read once, even if many paths lead to it: otherwise this would take 2 ** 40 steps
    assert told(40, "average({0}, {0})") == {"AC904"}


def test_a_plan_knows_in_what_the_backbone_is_loaded(shop: Workshop) -> None:
    base = {"model": "./base", "as": "demo/base"}
    half = shop.spec(backbone=base | {"dtype": "bfloat16"}, compose="lora()")
    assert prepare_runs(read_specs(half), half)[0].facts.dtype == "bfloat16"
    stored = shop.spec(backbone=base, compose="lora()")
    assert prepare_runs(read_specs(stored), stored)[0].facts.dtype == "float32"


def test_a_missing_hub_folder_is_reported_at_its_key(shop: Workshop) -> None:
    path = shop.spec(hub="./gone", compose="stack(demo/en, ./lost)")
    with pytest.raises(Failed) as failed:
        prepare_runs(read_specs(path), path)
    places = {one.values["path"]: one.span for one in failed.value.diagnostics}
    assert {name: span.origin().text for name, span in places.items() if span} == {
        "./gone": "./gone",
        "./lost": "./lost",
    }
