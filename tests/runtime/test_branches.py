"""`route` and `parallel`: every row and every branch is what it is alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from adaptcompose.compiler.passes import run_passes
from adaptcompose.composition.operators import Drop
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.branched import BranchedModel
from adaptcompose.runtime.build import build
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.loader import load
from tests.sampling import sampled
from tests.tiny import LAYERS, backbone, batch, distance, make_backbone, randomise

MEMBERS = {
    "a": "pfeiffer(reduction=4)",
    "b": "pfeiffer(reduction=4)",
    "c": "pfeiffer(reduction=2, activation=gelu)",
    "d": "stack(language(reduction=4), houlsby(reduction=4))",
    "e": "fuse(pfeiffer(reduction=4), pfeiffer(reduction=3))",
    "f": "fuse(pfeiffer(reduction=4), pfeiffer(reduction=3))",
    "g": "bottleneck(reduction=4, ln_after=true, gate=true, original_ln_after=false)",
    "h": "bottleneck(reduction=4, scale=channel, ln_before=true, gate=true)",
    "i": "bottleneck(reduction=4, scale=channel, ln_before=true, gate=true)",
    "j": "pfeiffer(reduction=4) | drop(bottom=1)",
    "k": "stack(pfeiffer(reduction=4), pfeiffer(reduction=3))",
    "l": "stack(pfeiffer(reduction=4), pfeiffer(reduction=3))",
    "m": "bottleneck(reduction=4, invertible=glow)",
    "n": "none",
    "o": "bottleneck(reduction=4, invertible=glow)",
    "p": "language(reduction=4)",
    "q": "language(reduction=4)",
}


def expression(operator: str, names: list[str], more: str = "") -> str:
    return f"{operator}({', '.join(f'{name}={MEMBERS[name]}' for name in names)}){more}"


def branched(text: str, family: str = "bert", *, optimise: bool = True, **more: Any) -> Any:
    """The model with random weights that depend on the names of parts only."""
    more.setdefault("head", None)
    model = compose(text, backbone(family), optimise=optimise, **more)
    assert isinstance(model, BranchedModel)
    randomise(model)
    return model.eval()


def alone(model: Any, name: str, more: str = "", **options: Any) -> Any:
    """One branch as a composition of its own, with the same parts."""
    made = model.composition
    block = made.graph.branches[name]
    if more:
        block = replace(Drop(), body=block, bottom=1)
    parts = dict(model.parts.items())
    return build(block, made.facts, made.backbone, made.sources, existing_parts=parts, **options)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize(
    "names", ["ab", "abc", "defg", "hi", "abcdefghijklmnopq", "kl", "ef", "jn"]
)
def test_a_row_of_route_is_the_row_alone(names: str, optimise: bool) -> None:
    model = branched(expression("route", list(names)), optimise=optimise)
    rows: list[str | None] = [*names, None, *reversed(names), names[0]]
    given_batch = batch(rows=len(rows))
    with torch.no_grad():
        out = model(**given_batch, rows=rows).last_hidden_state
        for index, row in enumerate(rows):
            one = backbone() if row is None else alone(model, row)
            expected = one(**given_batch).last_hidden_state
            assert distance(out[index], expected[index]) < 1e-9


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("more", ["", " | drop(bottom=1)"])
@pytest.mark.parametrize("names", ["a", "ab", "abc", "defg", "hi", "abcdefghijklmnopq", "nj"])
def test_a_branch_of_parallel_is_the_branch_alone(names: str, more: str, optimise: bool) -> None:
    model = branched(expression("parallel", list(names), more), optimise=optimise)
    given_batch = batch()
    with torch.no_grad():
        outs = model(**given_batch)
        assert list(outs) == list(names)
        for name in names:
            expected = alone(model, name, more=more)(**given_batch).last_hidden_state
            assert distance(outs[name].last_hidden_state, expected) < 1e-9


@sampled(
    25,
    st.lists(st.sampled_from("abcdefghijklmnopq"), min_size=1, max_size=5, unique=True),
    st.data(),
)
def test_any_rows(names: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from([*names, None]), min_size=1, max_size=6))
    text = expression("route", names)
    fast, literal = branched(text), branched(text, optimise=False)
    given_batch = batch(rows=len(rows))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            one = fast(**given_batch, rows=rows).last_hidden_state.detach()
            other = literal(**given_batch, rows=rows).last_hidden_state.detach()
        assert distance(one, other) < 1e-9


def passes(text: str) -> dict[str, Any]:
    model = branched(text, optimise=False)
    return {name: (program, log) for name, program, log in run_passes(model.program)}


def test_the_trunk_is_shared_up_to_the_first_difference() -> None:
    shared, log = passes("parallel(a=pfeiffer(), b=pfeiffer()) | drop(bottom=2)")["share_trunk"]
    assert (shared.branch_layer, shared.branch_inside_layer, log.declined_at) == (2, True, [])
    assert str(shared).startswith("2x the batch from ffn.out of layer 2 on")
    shared, _ = passes("parallel(a=pfeiffer(), b=lora()) | drop(bottom=2)")["share_trunk"]
    assert (shared.branch_layer, shared.branch_inside_layer) == (
        2,
        False,
    )  # its queries differ in front of the site
    shared, _ = passes("parallel(a=none, b=none)")["share_trunk"]
    assert shared.branch_layer == LAYERS
    text = "let l = language(); parallel(a=stack(l, pfeiffer()), b=l) | keep(top=1)"
    shared, _ = passes(text)["share_trunk"]
    assert shared.branch_layer == LAYERS - 1
    assert not any(site.layer is None and shared.branches_differ_at(site) for site in shared.sites)


@pytest.mark.parametrize("method", ["pfeiffer()", "houlsby()", "lora(targets=[ffn.in])", "none"])
def test_the_batch_is_repeated_as_late_as_the_plan_says(method: str) -> None:
    model = branched(f"parallel(a=pfeiffer(), b={method}) | drop(bottom=1)")
    rows: dict[str, int] = {}

    def note(module: nn.Module, given: Any, out: Any, *, path: str) -> None:
        rows[path] = len(out[0] if isinstance(out, tuple) else out)

    for name, module in model.named_modules():
        path = ".".join(name.replace("stock.", "").split(".")[-3:])
        if path.endswith(("attention.self", "intermediate", "output")):
            module.register_forward_hook(partial(note, path=path))
    with torch.no_grad():
        model(**batch(rows=3))
    late = {"pfeiffer()": 3, "none": 3, "houlsby()": 6, "lora(targets=[ffn.in])": 6}[method]
    assert rows["layer.0.output"] == 3
    assert rows["1.attention.self"] == (6 if "lora" in method else 3)
    assert rows["layer.1.intermediate"] == late
    assert rows["layer.1.output"] == rows["2.attention.self"] == 6


def test_different_parts_at_the_embeddings_share_no_trunk() -> None:
    text = "parallel(a=language(), b=language()) | drop(bottom=2)"
    program, log = passes(text)["share_trunk"]
    assert program.branch_layer == -1
    assert list(log.reasons()) == ["the branches differ at the embeddings"]


def test_rows_of_one_shape_are_one_group() -> None:
    program, _ = passes(expression("route", list("abcefn")))["group_rows"]
    node = next(iter(program.sites.values()))
    assert node.groups == ((0, 1), (3, 4))  # a and b; e and f, folded
    _, log = passes(expression("route", list("ac")))["group_rows"]
    assert len(log.declined_at) == LAYERS


def test_every_branch_learns_from_its_labels() -> None:
    head = {"task": "token-classification", "labels": ["O", "B", "I"]}
    text = "parallel(a=pfeiffer(activation=gelu), c=houlsby()) | drop(bottom=1)"
    model = branched(text, head=head).train()
    labels = torch.randint(0, 3, batch()["input_ids"].shape)
    out = model(**batch(), labels={"a": labels, "c": labels.flip(0)})
    assert torch.allclose(out.loss, out["a"].loss + out["c"].loss)
    out["loss"].backward()
    trained = dict(model.trained())
    assert trained
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in trained.values())


def test_heads_of_one_kind_give_one_tensor_others_a_dict() -> None:
    two = {"task": "text-classification", "labels": ["yes", "no"]}
    three = {"task": "text-classification", "labels": ["yes", "no", "maybe"]}
    text = expression("route", ["a", "b"])
    one = branched(text, head=two)
    rows = ["b", "a", "b"]
    logits = one(**batch(), rows=rows, labels=torch.tensor([0, 1, 0]))
    assert logits.logits.shape == (3, 2)
    assert logits.loss.isfinite()
    mixed = branched(text, head={"a": two, "b": three})(**batch(), rows=rows)
    assert {name: out.logits.shape for name, out in mixed.items()} == {"b": (2, 2 + 1), "a": (1, 2)}
    assert mixed.rows == {"b": (0, 2), "a": (1,)}
    some = one(**batch(), rows=["a", None, "b"])
    assert some[None].last_hidden_state is not None


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "`rows` is missing"),
        (["a"], "`rows` has 1 name for 3 rows"),
        (["a", "x", "b"], "`rows` contains the unknown name `x`"),
        ("abc", "`rows` has"),
    ],
)
def test_rows_that_do_not_fit(rows: Any, said: str) -> None:
    model = branched(expression("route", ["a", "b"]))
    with pytest.raises(Failed) as failure:
        model(**batch(), rows=rows)
    assert failure.value.diagnostics[0].code == "AC505"
    assert said in str(failure.value)


def test_a_mask_of_the_masked_language_model_and_its_inverse_are_the_branches_own() -> None:
    masked = backbone(kind="AutoModelForMaskedLM")
    text = "parallel(a=language(reduction=4), b=language(reduction=4), n=none)"
    model = compose(text, masked, head="backbone")
    randomise(model)
    with torch.no_grad():
        outs = model.eval()(**batch())
        for name in "abn":
            one = alone(model, name, head="backbone")
            assert distance(outs[name].logits, one(**batch()).logits) < 1e-9


@pytest.mark.parametrize("operator", ["route", "parallel"])
def test_saved_branches_come_back_bit_equal(operator: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    make_backbone().save_pretrained(str(body))
    two = {"task": "text-classification", "labels": ["yes", "no"]}
    three = {"task": "token-classification", "labels": ["O", "B", "I"]}
    text = expression(operator, list("aef"), " | drop(bottom=1)")
    model = randomise(compose(text, body, head={"a": two, "e": three, "f": None})).eval()
    model.save(str(tmp_path / "saved"))
    again = load(tmp_path / "saved")
    more = {"rows": ["a", "e", "f"]} if operator == "route" else {}
    with torch.no_grad():
        one, other = model(**batch(), **more), again(**batch(), **more)
    assert list(one) == list(other)
    for name in "aef":
        for key, value in one[name].items():
            assert torch.equal(value, other[name][key]), (name, key)


def test_a_branch_can_be_taken_out() -> None:
    two = {"task": "text-classification", "labels": ["yes", "no"]}
    model = branched(expression("parallel", list("ae"), " | drop(bottom=1)"), head=two)
    with torch.no_grad():
        outs = model(**batch())
        for name in "ae":
            alone_again = model.branch(name)(**batch())
            assert distance(alone_again.logits, outs[name].logits) < 1e-9


def test_labels_that_nothing_takes_are_told() -> None:
    two = {"task": "text-classification", "labels": ["yes", "no"]}
    labels = torch.tensor([0, 1, 0])
    model = branched(expression("parallel", list("ab")), head={"a": two, "b": None})
    for wrong, code in (
        (labels, "AC513"),
        ({"x": labels}, "AC513"),
        ({"b": labels}, "AC508"),
    ):
        with pytest.raises(Failed, match=code):
            model(**batch(), labels=wrong)
    with pytest.raises(Failed, match="AC508"):
        model.branch("b")(**batch(), labels=labels)
