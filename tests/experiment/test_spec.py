"""spec.yaml: values, problems with their positions, and expanded templates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.spec import parse_specs, read_specs, spec_keys
from adaptcompose.experiment.spec.value_types import DataRef, LayerRange
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml

MINIMAL = "spec: 1\nname: demo\nbackbone: demo/xlmr-tiny\ncompose: stack(lang=no, task=ner)\n"

FULL = """\
spec: 1
name: madx-ner
description: Train in English, evaluate elsewhere at ${5}.
hub: ./hub
backbone:
  model: FacebookAI/xlm-roberta-base@e73636d
  as: FacebookAI/xlm-roberta-base
  max_length: 128
adapters:
  ner: bottleneck(reduction=16)
compose: |
  stack(lang=en, task=ner)    # language below
    | drop(bottom=5)
task:
  kind: token-classification
  labels: [O, B-PER, no, 1, 1.0]
data:
  names:
    files:
      train: ner/{config}.conll
      validation: ["ner/{config}.conll", ner/more.conll]
    columns: {tokens: 0, labels: [3]}
  plain:
    files: {test: plain.jsonl}
    limit: 10
train:
  data: names[en]
  epochs: 10
  lr: 1e-4
  seeds: [0, 1, 2]
  budget: 1h30m
  robust_drop: 0..5
evaluate:
  - name: source
    data: names[en]
  - each: {lang: [en, no], n: [7, 9]}
    name: zero-shot ${lang}
    pipe: swap(lang=${lang}) | drop(bottom=${n})
    data: names[${lang}]/train
predict:
  - {name: one, text: "He saw ${x}."}
publish:
  repo: me/madx
  license: apache-2.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ner").mkdir()
    for name in ("ner/en.conll", "ner/no.conll", "ner/more.conll", "plain.jsonl"):
        (tmp_path / name).write_text("x\n")
    return tmp_path


def spec_of(text: str, root: Path = Path()) -> Spec:
    return parse_specs(Source(text, "spec.yaml"), root)[0]


def problems(text: str, root: Path = Path()) -> list[str]:
    return [f"{found.code} {line(found)} {found.message}" for found in failures(text, root)]


def failures(text: str, root: Path = Path()) -> tuple[Diagnostic, ...]:
    with pytest.raises(Failed) as caught:
        spec_of(text, root)
    return caught.value.diagnostics


def line(found: Diagnostic) -> int:
    assert found.span is not None
    place = found.span.origin()
    assert place.source.name == "spec.yaml"
    return place.source.line_and_column(place.start)[0]


def test_a_minimal_spec_has_the_documented_defaults() -> None:
    spec = spec_of(MINIMAL)
    assert (spec.hub, spec.backbone.model, spec.backbone.dtype) == ("hf", "demo/xlmr-tiny", "auto")
    assert (spec.task, spec.train, spec.evaluate, spec.publish) == (None, None, (), None)
    assert spec.compose.text == "stack(lang=no, task=ner)"


def test_every_key_has_its_value(folder: Path) -> None:
    spec = spec_of(FULL, folder)
    assert spec.backbone.known_as == "FacebookAI/xlm-roberta-base"
    assert spec.declared_labels() == ("O", "B-PER", "no", "1", "1.0")
    assert spec.data["names"].columns == {"tokens": ("0",), "labels": ("3",)}
    train = spec.train
    assert train is not None
    assert (train.lr, train.epochs, train.budget, train.keep) == (1e-4, 10, 5400, "best")
    assert train.robust_drop == LayerRange(0, 5)
    assert train.data == DataRef("names", "en", "train")
    assert train.validation == DataRef("names", "en", "validation")
    assert spec.split_files(train.validation) == (
        folder / "ner/en.conll",
        folder / "ner/more.conll",
    )
    assert spec.publish is not None
    assert spec.publish.private is True


def test_each_is_a_cross_product_and_a_split_is_chosen(folder: Path) -> None:
    first, *rest = spec_of(FULL, folder).evaluate
    assert first.data == DataRef("names", "en", "validation")
    assert [item.name for item in rest] == ["zero-shot en"] * 2 + ["zero-shot no"] * 2
    assert [item.pipe.text for item in rest if item.pipe] == [
        "swap(lang=en) | drop(bottom=7)",
        "swap(lang=en) | drop(bottom=9)",
        "swap(lang=no) | drop(bottom=7)",
        "swap(lang=no) | drop(bottom=9)",
    ]
    assert rest[-1].variables == {"lang": "no", "n": "9"}
    assert rest[-1].data == DataRef("names", "no", "train")


def test_a_filled_in_expression_points_at_its_template(folder: Path) -> None:
    pipe = spec_of(FULL, folder).evaluate[-1].pipe
    assert pipe is not None

    def shown(part: str) -> str:
        start = pipe.text.index(part)
        return pipe.span(start, start + len(part)).origin().text

    assert shown("swap") == "swap"
    assert shown("no") == "${lang}"
    assert shown("drop(bottom=9)") == "drop(bottom=${n})"


def test_an_expression_points_into_its_block(folder: Path) -> None:
    compose = spec_of(FULL, folder).compose
    start = compose.text.index("drop")
    found = compose.span(start, start + 4).origin()
    assert found.text == "drop"
    assert found.source.line_and_column(found.start) == (13, 7)


def test_a_spec_printed_and_read_again_is_equal(folder: Path) -> None:
    spec = spec_of(FULL, folder)
    again = spec_of(dump_yaml(spec.as_plain()), folder)
    assert again == spec
    assert again.digest() == spec.digest()


def test_a_digest_is_of_what_is_said_not_of_how(folder: Path) -> None:
    spec = spec_of(FULL, folder)
    restyled = FULL.replace("lr: 1e-4", "lr: 0.0001   # the same\n  batch: 16")
    assert spec_of(restyled, folder).digest() == spec.digest()
    changed = spec_of(FULL.replace("epochs: 10", "epochs: 11"), folder)
    assert changed.digest() != spec.digest()
    assert changed.digest("compose", "data") == spec.digest("compose", "data")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("nam: x", "AC601 5 `spec.yaml` has no key `nam`"),
        ("serve: {}", "AC606 5 `serve` needs the key `allow`"),
        ("serve: {allow: [a]}", "AC605 5 `serve.allow` must be a mapping from names"),
        ("serve: {allow: {a: none}, port: 99999}", "AC605 5 `serve.port` must be a whole number"),
        ("serve: {allow: {a: none}, wait: soon}", "AC605 5 `serve.wait` must be a time such as"),
        ("serve: {allow: {a: none}, cash: 3}", "AC601 5 `serve` has no key `cash`"),
        ("report: {plots: all}", "AC605 5 `report.plots` must be one of auto, none"),
        ("report: {baseline: x}", "AC605 5 `report.baseline` must be the name of a row"),
        ("hub: 5", "AC605 5 `hub` must be a string"),
        ("hub:", "AC605 5 `hub` must be a string"),
        ("adapters: [x]", "AC605 5 `adapters` must be a mapping from names"),
        ("adapters: {x: 5}", "AC605 5 `adapters.x` must be an expression"),
        ("adapters: {none: a}", "AC605 5 `adapters.none` must be named by"),
        ("task: {kind: regression}", "AC604 5 `task.kind: regression` is not supported yet"),
        ("task: {kind: ner}", "AC605 5 `task.kind` must be one of text-classification, token-"),
        ("task: {kind: masked-lm, metric: f1}", "AC605 5 `task.metric` must be one of"),
        ("task: {kind: masked-lm, labels: [a]}", "AC605 5 `task.labels` must be left out"),
        ("task: {kind: text-classification, labels: [a, a]}", "AC602 5 `a` appears twice"),
        ("task: {}", "AC606 5 `task` needs the key `kind`"),
        ("data: {x: {repo: a/b, files: {}}}", "AC613 5 `data.x` takes either `repo` or `files`"),
        ("data: {x: {repo: a/b/c}}", "AC420 5 `a/b/c` is not a valid repository name"),
        ("data: {x: {repo: a/b, splits: {dev: x}}}", "AC601 5 `data.x.splits` has no key `dev`"),
        ("data: {x: {files: {}, splits: {test: x}}}", "AC606 5 `data.x` needs the key `repo`"),
        ("data: {x: {}}", "AC606 5 `data.x` needs the key `files`"),
        ("data: {x: {files: {trian: a}}}", "AC601 5 `data.x.files` has no key `trian`"),
        ("data: {x: {files: {train: gone.jsonl}}}", "AC607 5 the file `gone.jsonl` does not exist"),
        ("data: {x: {files: {train: a.md}}}", "AC606 5 `data.x` needs the key `format`"),
        (
            "data: {x: {format: csv, files: {train: a.csv.zip}}}",
            "AC605 5 `data.x.files` must be plain files, or files compressed by gzip",
        ),
        ("data: {x: {files: {test: a.txt}, columns: {label: a}}}", "AC601 5 `data.x.columns` has"),
        ("data: {x: {files: {}, columns: {tokens: [a, b]}}}", "AC605 5 `data.x.columns.tokens`"),
        ("publish: {repo: me/x}", "AC606 5 `publish` needs the key `license`"),
        ("publish: {repo: x, license: mit}", "AC605 5 `publish.repo` must be a repository such as"),
        ("evaluate: [{name: a, data: x}]", "AC606 5 `spec` needs the key `task`"),
        ("description: ok\nhub: ${x}", "AC603 6 `${x}` is not defined here"),
        ("predict: {}", "AC605 5 `predict` must be a list of mappings"),
        ("predict: [{name: a, text: b, data: c}]", "AC613 5 `predict` takes either `text`"),
        ("predict: [{name: a}]", "AC606 5 `predict` needs the key `data` or `text`"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_code_and_line(more: str, expected: str) -> None:
    assert any(found.startswith(expected) for found in problems(f"{MINIMAL}{more}\n"))


TRAIN = """\
task: {kind: text-classification}
data: {rte: {files: {train: plain.jsonl}}}
train:
  data: rte
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("epoch: 3", "AC601 9 `train` has no key `epoch`"),
        ("epoch: 3", "AC606 7 `train` needs the key `epochs` or `steps`"),
        ("epochs: 3\n  steps: 5", "AC613 10 `train` takes either `epochs` or `steps`, not both"),
        ("steps: 1.5", "AC605 9 `train.steps` must be a whole number of at least 1"),
        ("steps: true", "AC605 9 `train.steps` must be a whole number of at least 1"),
        ("epochs: .inf", "AC605 9 `train.epochs` must be a number above 0"),
        ("epochs: .nan", "AC605 9 `train.epochs` must be a number above 0"),
        ("epochs: 1\n  lr: 1e-4x", "AC605 10 `train.lr` must be a number above 0"),
        ("epochs: 1\n  warmup: 2", "AC605 10 `train.warmup` must be a number between 0 and 1"),
        ("epochs: 1\n  seeds: 3", "AC605 10 `train.seeds` must be a list of whole numbers"),
        ("epochs: 1\n  seeds: [0, x]", "AC605 10 `train.seeds[1]` must be a whole number"),
        ("epochs: 1\n  seeds: [0, 0]", "AC605 10 `train.seeds` must be a list"),
        ("epochs: 1\n  seeds: []", "AC605 10 `train.seeds` must be a list of whole numbers"),
        ("epochs: 1\n  keep: bets", "AC605 10 `train.keep` must be one of best, last"),
        ("epochs: 1\n  keep: best", "AC606 10 `train` needs the key `validation`"),
        ("epochs: 1\n  patience: 2", "AC606 10 `train` needs the key `validation`"),
        ("epochs: 1\n  budget: 30x", "AC605 10 `train.budget` must be a time"),
        ("epochs: 1\n  robust_drop: 5..0", "AC605 10 `train.robust_drop` must be a range"),
        ("epochs: 1\n  validation: rte/dev", "AC610 10 unknown data `rte/dev`"),
        ("epochs: 1\n  validation: rt", "AC610 10 unknown data `rt`"),
        ("epochs: 1\n  validation: rte[en]/train", "AC610 10 unknown data `rte[en]/train`"),
        ("epochs: 1\n  validation: rte[", "AC605 10 `train.validation` must be data as name"),
        ("epochs: 1\n  device: gpu", "AC605 10 `train.device` must be a string"),
    ],
)  # fmt: skip
def test_a_mistake_in_train(folder: Path, more: str, expected: str) -> None:
    text = f"{MINIMAL}{TRAIN}  {more}\n"
    assert any(found.startswith(expected) for found in problems(text, folder))


def test_a_near_key_is_offered(folder: Path) -> None:
    found = failures(f"{MINIMAL}{TRAIN}  epoch: 3\n", folder)
    assert "did you mean `epochs`?" in [one.help for one in found]


def test_all_problems_come_at_once_in_order(folder: Path) -> None:
    text = "spec: 2\nname: A B\nbackbone: [x]\ntrain: {lr: x}\ncompose: {a: b}\n"
    found = failures(text, folder)
    assert [(one.code, line(one)) for one in found] == [
        ("AC605", 1), ("AC605", 2), ("AC605", 3), ("AC606", 4), ("AC606", 4), ("AC606", 4),
        ("AC605", 4), ("AC605", 5),
    ]  # fmt: skip


EACH = "task: {kind: text-classification}\ndata: {d: {files: {test: plain.jsonl}}}\nevaluate:\n"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("- {name: a, data: d, pipe: 'swap(l=${x})'}", "AC603 8 `${x}` is not defined here"),
        ("- {name: a, data: d, each: {x: 5}}", "AC605 8 `evaluate.each.x` must be a list"),
        ("- {name: a, data: d, each: {x: []}}", "AC605 8 `evaluate.each.x` must be a list"),
        ("- {name: a, data: d, each: {}}", "AC605 8 `each` must be a mapping with 1 to 1,000"),
        ("- {name: a, data: d, pipe: x, compose: y}", "AC613 8 `evaluate` takes either `pipe` or"),
        ("- {name: a, data: d}\n- {name: a, data: d}", "AC202 9 `a` is given twice"),
        ("- {name: a, data: d, metrics: [span-f1]}", "AC605 8 `evaluate.metrics` must be one of"),
        ("- each: {x: [p, q]}\n  name: a\n  data: ${x}", "AC610 10 unknown data `p`"),
    ],
)
def test_a_mistake_in_evaluate(folder: Path, item: str, expected: str) -> None:
    assert any(found.startswith(expected) for found in problems(MINIMAL + EACH + item, folder))


def test_items_that_share_a_name_are_replicates(folder: Path) -> None:
    item = "- {each: {m: [lang/sw, lang/yo]}, name: wrong, data: d, pipe: 'swap(lang=${m})'}"
    found = spec_of(MINIMAL + EACH + item, folder).evaluate
    assert [(one.name, one.pipe and one.pipe.text) for one in found] == [
        ("wrong", "swap(lang=lang/sw)"),
        ("wrong", "swap(lang=lang/yo)"),
    ]


def test_an_unknown_column_points_at_its_name(folder: Path) -> None:
    text = MINIMAL + "data: {x: {files: {test: plain.jsonl}, columns: {txt: tweet}}}\n"
    (found,) = failures(text, folder)
    assert found.span is not None
    assert found.span.text == "txt"
    assert found.help == "did you mean `text`?"


def test_a_mistake_in_a_template_is_told_once(folder: Path) -> None:
    item = "- {each: {x: [p, q]}, name: a, data: d, metric: y}"
    assert len(failures(MINIMAL + EACH + item, folder)) == 1


def test_a_template_may_fill_in_a_number(folder: Path) -> None:
    item = "- each: {n: [1, 2]}\n  name: ${n}\n  data: d\n"
    assert [one.name for one in spec_of(MINIMAL + EACH + item, folder).evaluate] == ["1", "2"]


def test_too_many_combinations_are_refused_before_they_are_made(folder: Path) -> None:
    each = ", ".join(f"v{i}: [0,1,2,3,4,5,6,7,8,9]" for i in range(30))
    found = problems(f"{MINIMAL}{EACH}- {{name: a, data: d, each: {{{each}}}}}", folder)
    (message,) = found
    assert message.startswith("AC605 8 `each` must be a mapping with 1 to 1,000 combinations")


def test_a_config_that_is_missing_or_too_many(folder: Path) -> None:
    text = FULL.replace("data: names[en]\n  epochs", "data: names\n  epochs")
    found = failures(text, folder)
    assert [one.message for one in found] == ["unknown data `names`"]
    assert found[0].help is not None
    assert "names[config]" in found[0].help


def test_a_file_of_a_config_that_does_not_exist(folder: Path) -> None:
    (folder / "ner/no.conll").unlink()
    assert problems(FULL, folder) == ["AC607 20 the file `ner/no.conll` does not exist"]


def test_a_missing_spec_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="AC607"):
        read_specs(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["", "[]", "5", "spec: 1", "- a", "spec:\n"])
def test_something_else_than_a_spec_is_no_crash(text: str) -> None:
    assert failures(text)


def test_every_supported_key_has_help_and_a_type() -> None:
    found = list(spec_keys())
    paths = [one.path for one in found]
    assert len(paths) == len(set(paths))
    assert {"backbone.as", "data.*.files", "train.lr", "evaluate[].each"} <= set(paths)
    assert all(one.doc and one.kind for one in found)
    assert [one.path for one in found if one.required and "." not in one.path] == [
        "spec", "name", "backbone", "compose",
    ]  # fmt: skip


def test_reading_a_spec_imports_no_heavy_library(folder: Path) -> None:
    (folder / "spec.yaml").write_text(FULL)
    program = (
        "import sys; from pathlib import Path;"
        "from adaptcompose.experiment.spec.spec import read_specs;"
        f"read_specs(Path({str(folder / 'spec.yaml')!r}));"
        "heavy = {'torch', 'transformers', 'datasets', 'seqeval', 'sklearn', 'numpy', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


STRANGE = (None, 5, True, -1.5, "x", "${y}", "", [], ["x"], [[]], {}, {"x": {"y": 1}}, [{"x": 1}])


def replacements(data: object) -> Iterator[object]:
    """`data` with one of its values replaced by an arbitrary one."""
    yield from STRANGE
    if isinstance(data, dict):
        for name, inner in data.items():
            yield from (data | {name: other} for other in replacements(inner))
    if isinstance(data, list):
        for index, inner in enumerate(data):
            yield from ([*data[:index], other, *data[index + 1 :]] for other in replacements(inner))


def test_no_strange_value_is_a_crash(folder: Path) -> None:
    refused = 0
    every = list(replacements(load_yaml(FULL)))
    for data in every[:: len(every) // 200]:
        try:
            spec_of(dump_yaml(data), folder)
        except Failed as failed:
            assert str(failed)
            refused += 1
    assert refused > 100
