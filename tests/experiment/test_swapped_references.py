"""`swap` reaches the slots of published compositions as if their expressions were inlined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import adaptcompose as ac
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.yaml_source import load_yaml
from tests.experiment.test_published_references import composed, push
from tests.experiment.test_saved import NEW
from tests.hub.connection import connected
from tests.hub.hub_server import Hub
from tests.sampling import daily
from tests.workshop import Workshop, call, logits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BODIES = {
    "me/plain": f"stack(lang=demo/one, task={NEW})",
    "me/mixed": "fuse(stack(lang=demo/one, top=demo/glue-a), demo/glue-b) | drop(top=1)",
    "me/deep": "average(stack(lang=stack(lang=demo/one, top=demo/glue-a)), demo/glue-b)",
}


@pytest.fixture(scope="module")
def published(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop whose hub has compositions with slots, one of them also as a folder."""
    shop = workshop.copy(tmp_path_factory.mktemp("published"))
    for number, name in enumerate(("demo/one", "demo/two")):
        shop.publish(name, "pfeiffer(reduction=2)", number, head=None)
    for name, expression in BODIES.items():
        model = composed(shop, expression, head=None)
        push(shop, model, name)
        save_composition(model, shop.root / name.partition("/")[2])
    push(shop, composed(shop, "stack(under=me/plain, over=demo/glue-b)", head=None), "me/nested")
    return shop


def body(shop: Workshop, name: str) -> str:
    """The expression of a composition, with its own parts as references to the hub."""
    place = shop.hub.fetch(name, shop.hub.resolve(name))
    text = str(load_yaml((place / "composition.yaml").read_text())["expression"])
    return text.replace("./", f"{name}@{shop.hub.resolve(name)}/")


SWAPS: list[tuple[str, str | None]] = [
    ("{} | swap(lang=demo/two)", None),
    ("{} | swap(lang=none)", None),
    ("{} | swap(lang=demo/glue-a) | swap(lang=demo/two)", "{} | swap(lang=demo/two)"),
    ("{} | drop(bottom=1) | swap(lang=demo/two)", "{} | swap(lang=demo/two) | drop(bottom=1)"),
    ("stack({} | swap(lang=demo/two), demo/glue-b)", None),
    (
        "stack(lang=demo/one, x={}) | swap(lang=demo/two)",
        "stack(lang=demo/two, x={} | swap(lang=demo/two))",
    ),
    (
        "average({}, demo/glue-a) | swap(lang=demo/two)",
        "average({} | swap(lang=demo/two), demo/glue-a)",
    ),
    (
        "{} | swap(lang=stack(in=demo/one)) | swap(in=demo/two)",
        "{} | swap(lang=stack(in=demo/two))",
    ),
]


@daily(
    ("name", "pattern", "printed"),
    [(name, *swap) for name, swap in itertools.product(BODIES, SWAPS)],
)
def test_it_is_the_swap_of_the_expression(
    published: Workshop, name: str, pattern: str, printed: str | None
) -> None:
    inner = body(published, name)
    expected = logits(composed(published, pattern.format(f"({inner})"), head=None))
    for reference in (name, f"./{name.partition('/')[2]}"):
        model = composed(published, pattern.format(reference), head=None)
        assert torch.equal(logits(model), expected)
        assert str(model.composition.graph) == (printed or pattern).format(reference)
        again = composed(published, str(model.composition.graph), head=None)
        assert again.composition.graph == model.composition.graph


@pytest.mark.parametrize("word", ["parallel", "route"])
def test_branches_are_swapped_alone_or_together(published: Workshop, word: str) -> None:
    wanted = composed(published, "me/plain | swap(lang=demo/two)", head=None)
    for text in (
        f"{word}(a=me/plain | swap(lang=demo/two), b=me/plain)",
        f"{word}(b=demo/glue-a, a=me/plain) | swap(lang=demo/two)",
    ):
        model = composed(published, text, head=None)
        assert torch.allclose(logits(model.branch("a")), logits(wanted), atol=1e-6)


def test_a_composition_of_compositions_is_swapped_inside(published: Workshop) -> None:
    swapped = composed(published, "me/nested | swap(lang=demo/two)", head=None)
    whole = composed(published, "stack(me/plain | swap(lang=demo/two), demo/glue-b)", head=None)
    assert torch.equal(logits(swapped), logits(whole))
    # the result can be published
    push(published, swapped, "me/swapped")
    again = composed(published, "me/swapped", head=None)
    assert torch.equal(logits(again), logits(swapped))


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("me/plain | swap(lng=demo/two)", 17, "did you mean `lang`"),
        ("me/plain | swap(xyz=demo/two)", 17, "use one of lang, task"),
        ("me/plain | swap(lang=demo/two, tsk=none)", 32, "did you mean `task`"),
        ("stack(a=demo/one, b=demo/two) | swap(lang=demo/two)", 38, "use one of a, b"),
        ("./plain | drop(bottom=1) | swap(lng=none)", 33, "did you mean `lang`"),
        ("me/plain | freeze(tsk)", 19, "did you mean `task`"),
    ],
)
def test_a_slot_that_it_has_not_is_told(
    published: Workshop, text: str, column: int, told: str
) -> None:
    with pytest.raises(Failed) as failed:
        composed(published, text, head=None)
    (found,) = failed.value.diagnostics
    assert found.code == "AC310"
    assert found.as_dict()["column"] == column
    assert told in str(found)


def test_a_local_folder_that_is_no_composition_is_told_before(published: Workshop) -> None:
    (published.root / "folder").mkdir(exist_ok=True)
    found = ac.check("stack(lang=./folder) | swap(lng=none)", root=published.root)
    assert [one.code for one in found] == ["AC406", "AC310"]
    assert ac.check("stack(lang=./plain) | swap(task=none)", root=published.root) == []


def test_parts_of_a_published_composition_can_be_trained(published: Workshop) -> None:
    model = composed(published, "me/plain | train(task)", head=None)
    (name,) = {name.partition(".")[0] for name, part in model.parts.items() if part.is_trained}
    assert name.startswith("me/plain@")
    whole = composed(published, "let x = me/plain; stack(x, demo/two) | train(x)", head=None)
    assert str(whole.composition.graph) == "stack(me/plain, demo/two) | train(me/plain)"
    assert {part.is_trained for name, part in whole.parts.items() if name != "demo/two"} == {True}
    assert not whole.parts["demo/two"].is_trained


SPEC = """\
spec: 1
name: demo
hub: ./hub
backbone: {model: ./base, as: demo/base}
compose: me/plain
task: {kind: text-classification}
data:
  d: {files: {train: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl}}
train: {data: d, steps: 1, batch: 4}
evaluate:
  - {name: as trained, data: d}
  - {name: swapped, data: d, pipe: swap(lang=demo/two)}
predict:
  - {name: texts, data: d, pipe: swap(lang=none), out: texts.jsonl}
"""


def test_commands_know_it(published: Workshop) -> None:
    root, text = published.root, "me/plain | swap(lang=demo/two)"
    here = ("--backbone", "./base", "--hub", "./hub")
    for words in (("check", text), ("fmt", text), ("graph", text), ("plan", text, *here)):
        done = call(*words, cwd=root)
        assert done.returncode == 0, done.stderr
        assert ("demo/two" in done.stdout) == (words[0] != "check"), done.stdout
        assert "demo/one" not in done.stdout
    (root / "demo.yaml").write_text(SPEC)
    for words in (("check",), ("lock",), ("graph",), ("plan",), ("run", "--quiet")):
        done = call(words[0], "demo.yaml", *words[1:], cwd=root)
        assert done.returncode == 0, done.stderr
    assert {"me/plain", "demo/two"} <= set(load_yaml((root / "demo.lock").read_text())["adapters"])
    scores = load_yaml((root / "runs/demo/report.json").read_text())
    assert "swapped" in str(scores)
    wrong = SPEC.replace("swap(lang=none)", "swap(lng=none)")
    (root / "wrong.yaml").write_text(wrong.replace("name: demo", "name: wrong"))
    done = call("plan", "wrong.yaml", cwd=root)
    assert done.returncode == 1
    assert "AC310" in done.stderr and "wrong.yaml:14" in done.stderr, done.stderr


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected(Hub(), tmp_path / "home", monkeypatch) as hub:
        yield hub


def test_so_it_is_on_the_hugging_face_hub(published: Workshop, online: Hub, tmp_path: Path) -> None:
    place = published.hub.fetch("demo/two", published.hub.resolve("demo/two"))
    online.add_folder("demo/two", place)
    save_composition(composed(published, "me/mixed", head=None), tmp_path / "out", everything=True)
    online.add_folder("me/mixed", tmp_path / "out")
    model = ac.compose("hf://me/mixed | swap(lang=hf://demo/two)", published.root / "base")
    expected = composed(published, "me/mixed | swap(lang=demo/two)", head=None)
    assert torch.equal(logits(model), logits(expected))
    assert str(model.composition.graph) == "hf://me/mixed | swap(lang=hf://demo/two)"
