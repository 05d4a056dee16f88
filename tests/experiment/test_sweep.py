"""Sweeps: one run per combination, with one lock, one table and one best run."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from adaptcompose.cli import main as cli
from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.experiment.prepare.preparer import prepare_runs
from adaptcompose.experiment.run.run_dirs import combination_dir, combination_dirs
from adaptcompose.experiment.spec.overrides import apply_overrides
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.spec import parse_specs, read_specs
from adaptcompose.hub.lock import Lock
from tests.test_errors import SPEC
from tests.workshop import Workshop, inside

SWEEP = SPEC.replace("compose:", "each: {n: [0, 1], rate: [1e-3, 1e-2]}\ncompose:", 1)
SWEEP = SWEEP.replace("drop(bottom=1)", "drop(bottom=${n})").replace(
    "steps: 1,", "steps: 1, lr: '${rate}',"
)
START = "spec: 1\nname: x\nbackbone: a/b\n"


def specs_of(text: str) -> tuple[Spec, ...]:
    return parse_specs(Source(text, "spec.yaml"), Path())


def problems(text: str) -> list[tuple[str, int, str]]:
    with pytest.raises(Failed) as caught:
        specs_of(text)
    found = []
    for one in caught.value.diagnostics:
        assert one.span is not None
        place = one.span.origin()
        found.append((one.code, place.source.line_and_column(place.start)[0], place.text))
    return found


def test_a_sweep_is_a_spec_for_each_combination() -> None:
    compose = "stack(lang=${lang}) | drop(bottom=${n})"
    found = specs_of(f"{START}each: {{lang: [no, sw], n: [1, 2]}}\ncompose: {compose}\n")
    assert [one.compose.text for one in found] == [
        "stack(lang=no) | drop(bottom=1)",
        "stack(lang=no) | drop(bottom=2)",
        "stack(lang=sw) | drop(bottom=1)",
        "stack(lang=sw) | drop(bottom=2)",
    ]
    assert found[2].variables == {"lang": "sw", "n": "1"}
    assert combination_dirs(found) == ["lang=no,n=1", "lang=no,n=2", "lang=sw,n=1", "lang=sw,n=2"]


def test_numbers_stay_numbers_and_items_have_their_own_variables(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    each = f"{START}each: {{n: [3, 4]}}\ncompose: none\ntask: {{kind: masked-lm}}\n"
    data = "data: {d: {files: {test: x.txt}, limit: LIMIT}}\n"
    items = "- {each: {m: [1, 2]}, name: '${n} ${m}', data: d, pipe: 'drop(bottom=${m})'}\n"
    text = f"{each}{data}evaluate:\n{items}"
    found = parse_specs(Source(text.replace("LIMIT", "'${n}'"), "spec.yaml"), tmp_path)
    assert [one.data["d"].limit for one in found] == [3, 4]
    assert [item.name for one in found for item in one.evaluate] == ["3 1", "3 2", "4 1", "4 2"]
    with pytest.raises(Failed) as caught:
        parse_specs(Source(text.replace("LIMIT", "'${n}x'"), "spec.yaml"), tmp_path)
    assert [one.code for one in caught.value.diagnostics] == ["AC605"]
    (first, _) = specs_of(f"{START}each: {{n: [3, 4]}}\ncompose: none\ndescription: ${{n}}\n")
    assert first.description == "3"


def test_what_a_sweep_cannot_vary_is_told_at_its_place() -> None:
    text = START.replace("a/b", "a/${x}") + "each: {x: [b]}\ncompose: none\n"
    assert problems(text) == [("AC603", 3, "${x}")]
    text = f"{START}each: {{x: [b]}}\ncompose: ${{y}}\n"
    assert problems(text) == [("AC603", 5, "${y}")]
    item = "evaluate: [{each: {x: [c]}, name: a, data: d}]"
    assert ("AC602", 6, "x") in problems(f"{START}each: {{x: [b]}}\ncompose: none\n{item}\n")
    assert problems(f"{START}each: {{x: []}}\ncompose: none\n")[0][0] == "AC605"
    assert problems(f"{START}each: 3\ncompose: none\n")[0][0] == "AC605"
    many = ", ".join(map(str, range(40)))
    text = f"{START}each: {{x: [{many}], y: [{many}]}}\ncompose: none\n"
    assert [code for code, _, _ in problems(text)] == ["AC605"]


def test_a_mistake_of_all_combinations_is_told_once() -> None:
    text = f"{START}each: {{n: [1, 2, 3]}}\ncompose: none\ntrian: {{}}\n"
    assert problems(text) == [("AC601", 6, "trian")]


def test_folders_have_safe_names_and_differ() -> None:
    assert (
        combination_dir({"lr": "5e-5", "ref": "../../etc/x@main"}) == "lr=5e-5,ref=____etc_x@main"
    )
    text = f"{START}each: {{x: [a b, a/b, a_b]}}\ncompose: none\n"
    assert combination_dirs(specs_of(text)) == ["x=a_b", "x=a_b~2", "x=a_b~3"]


def test_set_chooses_of_a_sweep(shop: Workshop) -> None:
    path = shop.root / "demo.yaml"
    path.write_text(SWEEP)
    assert len(read_specs(path)) == 4
    (one,) = read_specs(path, ["each.n=[1]", "each.rate=[1e-2]"])
    assert one.train is not None
    assert (one.compose.text[-14:], one.train.lr) == ("drop(bottom=1)", 0.01)


def test_one_lock_for_all(shop: Workshop) -> None:
    path = shop.root / "demo.yaml"
    path.write_text(
        SWEEP.replace("n: [0, 1]", "n: [0, 1], lang: [en, sw]").replace("lang=en", "lang=${lang}")
    )
    prepared = prepare_runs(read_specs(path), path)
    assert len(prepared) == 8
    locks = {str(one.lock) for one in prepared}
    assert len(locks) == 1
    assert {"lang/en", "lang/sw", "glue/a"} <= prepared[0].lock.adapters.keys()


@pytest.fixture(scope="module")
def swept(
    workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, dict[str, Any]]:
    """A completed sweep."""
    shop = workshop.copy(tmp_path_factory.mktemp("sweep") / "shop")
    text = SWEEP.replace("publish:", "report: {baseline: as trained}\npublish:")
    (shop.root / "demo.yaml").write_text(text)
    with inside(shop.root):
        assert cli.main(["run", "demo.yaml", "--quiet", "--set", "train.batch=5"]) == 0
    return shop, json.loads((shop.root / "runs/demo/report.json").read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_has_a_page_that_leads_to_those_of_its_combinations(
    swept: tuple[Workshop, dict[str, Any]],
) -> None:
    shop, report = swept
    folder = shop.root / "runs/demo"
    text = (folder / "report.html").read_text()
    links = [unquote(link) for link in re.findall(r'href="([^"]+)"', text)]
    assert links == [*(f"{label}/report.html" for label in report["combinations"]), "report.json"]
    for link, own in zip(links, report["combinations"].values(), strict=False):
        assert own["expression"] in unescape((folder / link).read_text())
    for row in report["table"]:
        assert row["name"] in unescape(text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_runs_into_a_folder_each(swept: tuple[Workshop, dict[str, Any]]) -> None:
    shop, report = swept
    names = [f"n={n},rate={rate}" for n in (0, 1) for rate in ("1e-3", "1e-2")]
    assert list(report["combinations"]) == names
    for name in names:
        own = json.loads((shop.root / "runs/demo" / name / "report.json").read_text())
        assert own["variables"] == dict(one.split("=") for one in name.split(","))
        assert own["set"] == ["train.batch=5"]
        assert (shop.root / "runs/demo" / name / "best").is_dir()
        assert "published" not in own or name == report["best"]
    assert [one["name"] for one in report["table"]] == [f"{name}: as trained" for name in names]
    expression = report["combinations"][report["best"]]["expression"]
    assert "drop(bottom=" in expression


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_best_on_validation_is_kept_and_published(
    swept: tuple[Workshop, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    shop, report = swept
    scores = {
        name: max(seed["score"] for seed in one["seeds"])
        for name, one in report["combinations"].items()
    }
    assert scores[report["best"]] == max(scores.values())
    assert report["published"]["repo"] == "me/out"
    said = []
    for target in ("runs/demo", f"runs/demo/{report['best']}", "demo.yaml"):
        with inside(shop.root):
            assert cli.main(["predict", target, "-t", "amina sees mombasa"]) == 0
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_finished_sweep_is_not_trained_again(
    swept: tuple[Workshop, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    shop, report = swept
    arguments = ["run", "demo.yaml", "--set", "train.batch=5"]
    with inside(shop.root):
        assert cli.main(arguments) == 0
    output = capsys.readouterr()
    assert output.err.count("(already finished)") == 4
    header = next(line for line in output.out.splitlines() if "d/test" in line)
    rows = output.out[output.out.index(header) :].splitlines()[1:5]
    assert [row.split(": ")[0] for row in rows] == list(report["combinations"])
    with inside(shop.root):
        assert cli.main(["plan", "demo.yaml", "--format", "json", "--set", "train.batch=5"]) == 0
    plans = json.loads(capsys.readouterr().out)["combinations"]
    assert list(plans) == list(report["combinations"])
    assert all(one["changes"] == [] for one in plans.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rows_are_compared_with_the_baseline(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "  - {name: without, data: d, pipe: swap(lang=none)}\nreport: {baseline: as trained}\n"
    text = SPEC.replace("publish: {repo: me/out, license: apache-2.0}\n", rows)
    (shop.root / "demo.yaml").write_text(text)
    with inside(shop.root):
        assert cli.main(["run", "demo.yaml"]) == 0
    out = capsys.readouterr().out
    report = json.loads((shop.root / "runs/demo/report.json").read_text())
    trained, without = report["table"]
    assert trained["difference"] == 0
    assert without["difference"] == without["mean"] - trained["mean"]
    assert f"({100 * without['difference']:+.1f})" in out
    lock = Lock.load(shop.root / "demo.lock")
    assert lock is not None


def test_an_override_of_nothing_is_told() -> None:
    from adaptcompose.storage.yaml_source import parse_yaml

    document = parse_yaml(Source("a: {b: 1}"))
    for text in ("", "=", "=1", "[0]=1", "a..b=1", "a.b"):
        with pytest.raises(Failed) as caught:
            apply_overrides(document, [text])
        assert caught.value.diagnostics[0].code == "AC605", text
