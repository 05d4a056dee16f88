"""An installed package adds words, a layout and a hub, and everything knows them.

`tests/plugin/` is on the path of processes of their own, as site-packages would be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workshop import Workshop

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parents[1]
COMPOSITION = "pick(glue/mnli, narrow(rank=2), take=2) | every(nth=2)"
WARNING = (
    "warning: cannot load the plug-in `missing` of adaptcompose-example: "
    "ModuleNotFoundError: No module named 'adaptcompose_example.missing'"
)


def process(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    """A process in which the package is installed."""
    environment = dict(os.environ) | {"PYTHONPATH": str(PLUGIN), "OMP_NUM_THREADS": "1"} | more
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def command(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    return process("-m", "adaptcompose", *arguments, cwd=cwd, **more)


def told(*arguments: str, cwd: Path = ROOT) -> str:
    done = command(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()) <= {WARNING}
    return done.stdout


def test_without_the_package_nothing_knows_its_words() -> None:
    for more in ({"PYTHONPATH": ""}, {"ADAPTCOMPOSE_PLUGINS": "0"}):
        done = command("check", "narrow()", **more)
        assert (done.returncode, "unknown operator or method `narrow`" in done.stdout) == (1, True)
        assert done.stderr == ""


def test_the_checker_knows_arguments_bounds_and_near_names() -> None:
    assert told("check", COMPOSITION) == "fine\n"
    text = "pick(glue/mnli, narrow(rnk=2)) | every(nth=0) | evry()"
    done = command("check", text, "--format", "json")
    assert done.returncode == 1
    found = [(one["code"], one["column"], one.get("help")) for one in json.loads(done.stdout)]
    assert found == [
        ("AC201", 24, "did you mean `rank`?"),
        ("AC209", 44, None),
        ("AC101", 49, "did you mean `every`?"),
    ]
    done = command("check", "pick(glue/mnli, take=2)", "--format", "json")
    assert [one["code"] for one in json.loads(done.stdout)] == ["AC204"]


def test_parser_and_formatter_print_them_back() -> None:
    text = "let a=narrow( rank=2 );pick(a,glue/mnli)|every( nth=3 )"
    canonical = "let a = narrow(rank=2); pick(a, glue/mnli) | every(nth=3)\n"
    assert told("fmt", text) == canonical
    assert told("fmt", canonical) == canonical


def test_help_knows_them() -> None:
    page = told("explain", "every")
    assert page.startswith("every: Adapters in every n-th layer only")
    assert "every(nth=1) = identity" in page
    assert "nth=2  a whole number, at least 1; distance between" in page
    assert "rank=4" in told("explain", "narrow")


def test_the_schema_knows_them() -> None:
    words = json.loads(told("schema"))["$defs"]["expression"]["x-words"]
    assert words["every"]["arguments"]["nth"]["minimum"] == 1
    assert (words["pick"]["kind"], words["narrow"]["kind"]) == ("block", "method")


def test_completion_knows_them() -> None:
    words = {"COMP_WORDS": "adaptcompose check 'stack(task=nar", "COMP_CWORD": "2"}
    done = command(_ADAPTCOMPOSE_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == ["stack(task=narrow(activation=", "stack(task=narrow(rank="]


def test_the_docs_know_them() -> None:
    script = (
        "import runpy; build = runpy.run_path('docs/build.py');"
        "print(*build['TABLES']['operators'](), *build['TABLES']['methods'](), sep='\\n')"
    )
    done = process("-c", script)
    assert done.returncode == 0, done.stderr
    assert "### `every`" in done.stdout
    assert "| `rank` | a whole number, at least 1 | `4` | width of the middle |" in done.stdout
    assert "- `pick(a, b, take=1) = a`" in done.stdout


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A backbone of the package's family, of which only config.json is there."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 4, "intermediate_size": 12, "vocab_size": 9}
    more = {"num_attention_heads": 2, "max_position_embeddings": 16, "type_vocab_size": 1}
    config = {"model_type": "data2vec-text"} | sizes | more
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_plan_and_drawings_know_them(backbone: Path) -> None:
    text = "stack(narrow(rank=2), pfeiffer()) | every(nth=2)"
    plan = json.loads(told("plan", text, "--backbone", str(backbone), "--format", "json"))
    assert [(one["name"], one["layers"]) for one in plan["items"]] == [
        ("narrow", [0, 2]),
        ("bottleneck", [0, 2]),
    ]
    assert plan["parameters"]["parts"]["narrow"] == 2 * (2 * 8 * 2 + 2 + 8)
    assert plan["backbone"]["type"] == "data2vec-text"
    assert "│ pick take=2 │" in told("graph", COMPOSITION)
    assert 'label="pick take=2"' in told("graph", COMPOSITION, "--dot")
    assert ">pick take=2</text>" in told("graph", COMPOSITION, "--svg")


def test_the_runtime_computes_what_they_say() -> None:
    """On a backbone of the package's family: the laws of its words, exactly."""
    script = """
import torch, adaptcompose as ac
from transformers import AutoConfig, AutoModel
config = AutoConfig.for_model("data2vec-text", hidden_size=8, num_hidden_layers=4,
    intermediate_size=12, vocab_size=9, num_attention_heads=2, max_position_embeddings=16)
torch.manual_seed(0)
model = AutoModel.from_config(config).eval().double()
ids = torch.tensor([[3, 4, 5, 6]])
def run(text):
    made = ac.compose(text, model, head=None)
    for name, part in sorted(made.parts.items()):
        for number, parameter in enumerate(part.parameters()):
            torch.manual_seed(len(name) + number)
            parameter.data.normal_(std=0.3)
    with torch.no_grad():
        return made(input_ids=ids).last_hidden_state
a, b = "let a = narrow(rank=2); ", "let b = pfeiffer(reduction=2); "
alone = run(a + "a")
assert not torch.equal(alone, run("none"))
assert torch.equal(run(a + b + "pick(a, b, take=1)"), alone)
assert torch.equal(run(a + "a | every(nth=1)"), alone)
assert torch.equal(run(a + "a | every(nth=2)"), run(a + "a | drop(layers=[1, 3])"))
print("they hold")
"""
    done = process("-W", "ignore", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "they hold\n"


def test_a_hub_has_its_scheme(workshop: Workshop) -> None:
    done = command(
        "plan", "stack(demo/en)", "--backbone", "base", "--hub", "shelf://hub", "--format", "json",
        cwd=workshop.root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)["items"]
    assert item["pin"]["repo"] == "demo/en"


def test_what_cannot_be_loaded_is_told_once_and_takes_nothing_else() -> None:
    done = command("check", "narrow()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", f"{WARNING}\n")
    done = command("doctor", "--offline", "--format", "json")
    assert done.returncode == 2
    found = {one["name"]: one["state"] for one in json.loads(done.stdout)}
    assert (found["methods: missing"], found["methods: narrow"]) == ("problem", "fine")


def test_a_word_is_taken_once() -> None:
    script = (
        "from adaptcompose.composition.operators import Stack\n"
        "from adaptcompose.composition.operator import register_operator\n"
        "register_operator(type('Other', (Stack,), {}))"
    )
    done = process("-c", script)
    assert "ValueError: the operator `stack` already exists" in done.stderr
