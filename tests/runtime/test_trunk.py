"""A cached trunk: the same losses, computed once per example; damaged files only cost time."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaptcompose.compiler.trunk import trunk_of
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.training.cached_trunk import CachedLayer, CachedTrunk
from adaptcompose.runtime.training.state_file import StateFile
from tests.tiny import LAYERS, WIDTH, backbone, batch, composed, distance, make_backbone

HEAD = {"task": "text-classification", "labels": ["yes", "no"]}
LABELS = torch.tensor([0, 1, 1])
DROPPED = "pfeiffer(reduction=4) | drop(bottom=2)"


def losses(model: ComposedModel, *, steps: int = 5) -> list[float]:
    """A few steps over three batches, so that later ones meet examples again."""
    model.train()
    optimizer = torch.optim.AdamW([value for _, value in model.trained()], lr=0.05)
    found = []
    for step in range(steps):
        out = model(**batch(seed=step % 2), labels=LABELS)
        assert out.loss is not None
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        found.append(float(out.loss.detach()))
    return found


def cached(text: str, folder: Path, layers: int, body: Any = None) -> ComposedModel:
    model = composed(text, body, head=HEAD)
    model.trunk = CachedTrunk(model, layers, folder)
    return model


@pytest.mark.parametrize(
    "text",
    [
        DROPPED,
        "stack(pfeiffer(reduction=2), pfeiffer(reduction=4)) | drop(bottom=1)",
        "fuse(pfeiffer(reduction=4), pfeiffer(reduction=3)) | keep(top=1)",
        "none",
    ],
)
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "gpt2", "llama"])
def test_the_losses_are_those_of_a_live_trunk(text: str, family: str, tmp_path: Path) -> None:
    body = backbone(family)
    live = composed(text, body, head=HEAD)
    layers = trunk_of(live.program, set(live.parts.names)).layers
    assert layers > 0
    expected = losses(live)
    model = composed(text, body, head=HEAD)
    model.trunk = CachedTrunk(model, layers, tmp_path)
    assert losses(model) == pytest.approx(expected, rel=1e-9)
    assert len(model.trunk.states) == 6
    # another process: every example is there from the start
    model = composed(text, body, head=HEAD)
    model.trunk = CachedTrunk(model, layers, tmp_path)
    assert losses(model) == pytest.approx(expected, rel=1e-9)


def test_the_second_time_the_trunk_computes_nothing(tmp_path: Path) -> None:
    model = cached(DROPPED, tmp_path, 2)
    calls: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, CachedLayer):
            module.stock.register_forward_hook(lambda *_, name=name: calls.append(name))
    losses(model, steps=2)
    assert len(calls) == 2 * 2  # two layers, two batches
    losses(model, steps=4)
    assert len(calls) == 2 * 2


def test_evaluation_is_live(tmp_path: Path) -> None:
    model = cached(DROPPED, tmp_path, 2)
    losses(model, steps=1)
    expected = composed(DROPPED, head=HEAD)
    with torch.no_grad():
        for (_, one), (_, other) in zip(model.trained(), expected.trained(), strict=True):
            other.copy_(one)
        out = model.eval()(**batch()).logits
        assert torch.equal(out, expected(**batch()).logits)


def test_damage_costs_time_only(tmp_path: Path) -> None:
    first = cached(DROPPED, tmp_path, 2)
    expected = losses(first)
    assert first.trunk is not None
    first.trunk.states.close()
    (path,) = tmp_path.glob("*.states")
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF  # in the states of the first example
    path.write_bytes(data[:-5])  # and the last one is torn
    model = cached(DROPPED, tmp_path, 2)
    assert model.trunk is not None
    assert len(model.trunk.states) == 5
    assert losses(model) == pytest.approx(expected, rel=1e-12)
    assert len(model.trunk.states) == 6


def test_other_weights_are_another_trunk(tmp_path: Path) -> None:
    cached(DROPPED, tmp_path, 2)
    body = backbone(seed=1)
    model = composed(DROPPED, body, head=HEAD)
    CachedTrunk(model, 2, tmp_path)
    CachedTrunk(composed(DROPPED, head=HEAD), 1, tmp_path)
    assert len(list(tmp_path.glob("*.states"))) == 3


def test_room_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = 29 + 5 * WIDTH * 8
    monkeypatch.setenv("ADAPTCOMPOSE_TRUNK_BYTES", str(3 * entry))
    old = StateFile("old", WIDTH, folder=tmp_path)
    for number in range(2):
        old.put(bytes([number] * 16), torch.ones(5, WIDTH).double())
    new = StateFile("new", WIDTH, folder=tmp_path)
    for number in range(5):
        new.put(bytes([number] * 16), torch.full((5, WIDTH), float(number)).double())
    assert not old.path.exists()  # the older trunk gave way
    assert len(new) == 3
    found = new.get(bytes([2] * 16))
    assert found is not None
    assert float(found[0, 0]) == 2.0


def test_one_process_writes(tmp_path: Path) -> None:
    first = StateFile("k", WIDTH, folder=tmp_path)
    second = StateFile("k", WIDTH, folder=tmp_path)
    second.put(b"x" * 16, torch.ones(2, WIDTH))
    assert len(second) == 0
    first.put(b"x" * 16, torch.ones(2, WIDTH))
    assert len(first) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pfeiffer()", "something is trained in the lowest layer"),
        ("language() | drop(bottom=2)", "something is trained at embed.out"),
        ("bottleneck(gate=true) | drop(bottom=1)", "a gate averages over padding"),
        ("parallel(a=language(), b=none) | drop(bottom=1)", "something is trained at embed.out"),
    ],
)
def test_what_has_no_trunk_says_why(text: str, why: str) -> None:
    model = composed(text)
    found = trunk_of(model.program, set(model.parts.names))
    assert found.layers == 0
    assert why in found.reason


def test_the_trunk_ends_below_what_is_trained() -> None:
    model = composed("let low = pfeiffer(); stack(low, houlsby() | drop(bottom=2))")
    assert trunk_of(model.program, {"houlsby", "bottleneck"}).layers == 2
    assert trunk_of(model.program, set()).layers == LAYERS
    branches = composed("parallel(a=pfeiffer(), b=houlsby()) | drop(bottom=1)")
    assert trunk_of(branches.program, set(branches.parts.names)).layers == 1


def rows(*ids: list[int], **given: list[list[int]]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor(ids)} | {n: torch.tensor(v) for n, v in given.items()}


def both(model: ComposedModel, given: dict[str, Tensor], text: str = DROPPED) -> tuple[Tensor, int]:
    """How far the logits are from those of a live trunk, and how many examples are kept."""
    assert model.trunk is not None
    live = composed(text, model.composition.backbone, head=HEAD).train()
    expected, found = (
        one(**given, labels=LABELS[: len(given["input_ids"])]) for one in (live, model)
    )
    return distance(found.logits, expected.logits), len(model.trunk.states)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"num_attention_heads": 4}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"layer_norm_eps": 0.1}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}}),
        ("llama", {"rms_norm_eps": 0.1}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ],
)
def test_equal_weights_in_another_computation_are_another_trunk(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    one, other = (make_backbone(family, **found).double() for found in ({}, changes))
    stored = one.state_dict()
    assert all(torch.equal(value, stored[key]) for key, value in other.state_dict().items())
    cached(DROPPED, tmp_path, 2, one).train()(**batch(), labels=LABELS)
    again = cached(DROPPED, tmp_path, 2, other).train()
    assert both(again, batch()) == (pytest.approx(0, abs=1e-12), 3)
    assert len(list(tmp_path.glob("*.states"))) == 2


def test_a_name_or_a_precision_of_the_file_is_no_other_computation(tmp_path: Path) -> None:
    for name in ("one", "other"):
        body = make_backbone()
        body.config._name_or_path, body.config.dtype = name, None
        cached(DROPPED, tmp_path, 2, body)
    assert len(list(tmp_path.glob("*.states"))) == 1


def test_what_a_frozen_method_shares_between_layers_is_in_the_key(tmp_path: Path) -> None:
    text = "let low = compacter(reduction=4, phm_dim=3); stack(low, pfeiffer() | drop(bottom=2))"
    found = []
    for factor in (1.0, 2.0):
        model = composed(text, make_backbone(), head=HEAD)
        model.update(frozenset({"bottleneck", "head"}))
        low = model.parts["low"]
        with torch.no_grad():
            low[low.sites[0]]["rule"].mul_(factor)
        found.append(CachedTrunk(model, 2, tmp_path).states.key)
    assert found[0] != found[1]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "gpt2", "llama"])
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(
            (
                rows([5, 6, 7, 8, 9, 10], attention_mask=[[1, 0, 1, 1, 0, 1]]),
                rows([5, 7, 8, 10], attention_mask=[[1, 1, 1, 1]]),
            ),
            id="holes",
        ),
        pytest.param(
            (
                rows([9, 9, 5, 6, 7], attention_mask=[[0, 0, 1, 1, 1]]),
                rows([0, 0, 5, 6, 7], attention_mask=[[0, 0, 1, 1, 1]]),
                rows([5, 6, 7], attention_mask=[[1, 1, 1]]),
            ),
            id="padded on the left",
        ),
        pytest.param(
            (
                rows([5, 9, 6, 7], attention_mask=[[1, 0, 1, 1]]),
                rows([5, 0, 6, 7], attention_mask=[[1, 0, 1, 1]]),
            ),
            id="masked tokens",
        ),
        pytest.param(
            (
                rows([5, 6, 7], position_ids=[[4, 5, 6]]),
                rows([5, 6, 7]),
                rows([5, 6, 7], position_ids=[[6, 5, 4]]),
            ),
            id="positions",
        ),
    ],
)
def test_every_input_that_states_depend_on_tells_examples_apart(
    family: str, pair: tuple[dict[str, Tensor], ...], tmp_path: Path
) -> None:
    model = cached(DROPPED, tmp_path, 2, backbone(family)).train()
    for given in (*pair, *pair):
        assert both(model, given)[0] < 1e-12


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_types_of_tokens_tell_examples_apart(family: str, tmp_path: Path) -> None:
    model = cached(DROPPED, tmp_path, 2, backbone(family)).train()
    kinds: list[dict[str, list[list[int]]]] = [{}, {"token_type_ids": [[0, 0, 0]]}]
    for given in (*kinds, {"token_type_ids": [[0, 1, 1]]}):
        assert both(model, rows([5, 6, 7], **given))[0] < 1e-12


def test_padding_that_a_head_reads_is_computed_anew(tmp_path: Path) -> None:
    given = rows([0, 0, 5, 6, 7], attention_mask=[[0, 0, 1, 1, 1]])
    assert both(cached(DROPPED, tmp_path, 2, backbone("bert")).train(), given)[1] == 0
    # here the last token is read
    assert both(cached(DROPPED, tmp_path, 2, backbone("gpt2")).train(), given)[1] == 1


def test_rotary_positions_by_the_longest_row_are_those_of_the_batch(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}
    sizes = {"max_position_embeddings": 4, "rope_parameters": rope}
    short = {"input_ids": torch.tensor([[5, 6, 7]])}
    padded = rows([5, 6, 7] + [0] * 9, attention_mask=[[1] * 3 + [0] * 9])
    model, live = (make_backbone("llama", **sizes).double() for _ in range(2))
    ours = cached(DROPPED, tmp_path, 2, model).train()
    theirs = composed(DROPPED, live, head=HEAD).train()
    for given in (short, padded, short, padded, padded):
        expected = theirs(**given, labels=LABELS[:1]).logits
        assert distance(ours(**given, labels=LABELS[:1]).logits, expected) < 1e-12


def test_states_have_the_precision_in_which_they_were_computed(tmp_path: Path) -> None:
    body = make_backbone("llama")
    model = cached(DROPPED, tmp_path, 2, body).train()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert both(model, batch())[0] == 0
        assert both(model, batch())[0] < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_trunk_follows_a_model_to_another_type(dtype: torch.dtype, tmp_path: Path) -> None:
    given = {**batch(), "labels": LABELS}
    model = cached(DROPPED, tmp_path, 2, make_backbone()).train()
    model(**given)
    expected = composed(DROPPED, make_backbone(), head=HEAD).to(dtype).train()
    model.to(dtype)
    assert model.dtype == dtype
    for _ in range(2):
        assert torch.equal(model(**given).logits, expected(**given).logits)
    after = composed(DROPPED, make_backbone(), head=HEAD).to(dtype)
    after.trunk = CachedTrunk(after, 2, tmp_path)
    assert len(after.trunk.states) == 3
    assert torch.equal(after.train()(**given).logits, expected(**given).logits)


def test_weights_that_change_in_place_have_other_states(tmp_path: Path) -> None:
    body = make_backbone()
    model = cached(DROPPED, tmp_path, 2, body).train()
    assert both(model, batch()) == (pytest.approx(0, abs=1e-6), 3)
    for factor in (1.3, 1 / 1.3):
        with torch.no_grad():
            body.embeddings.word_embeddings.weight.mul_(factor)
        for _ in range(2):
            assert both(model, batch())[0] < 1e-6
    assert 2 <= len(list(tmp_path.glob("*.states"))) <= 3


@pytest.mark.parametrize(
    ("text", "layers", "what"),
    [
        ("pfeiffer()", 2, "none: something is trained in the lowest layer"),
        ("pfeiffer() | drop(bottom=1)", 2, "layer 0"),
        (DROPPED, 0, "layers 0..1"),
        ("none", LAYERS + 1, "layers 0..2"),
        ("bottleneck(gate=true) | drop(bottom=1)", 1, "none: a gate averages over padding"),
    ],
)
def test_what_is_trained_is_not_cached(text: str, layers: int, what: str) -> None:
    with pytest.raises(Failed, match="AC518") as failure:
        composed(text, head=HEAD).cache_trunk(layers)
    assert what in str(failure.value)


def test_what_comes_to_be_trained_below_is_refused(tmp_path: Path) -> None:
    model = composed("let low = pfeiffer(); stack(low, pfeiffer() | drop(bottom=2))", head=HEAD)
    everything = frozenset(model.parts.names)
    model.update(frozenset({"bottleneck"}))
    model.trunk = CachedTrunk(model, 2, tmp_path)
    assert model.train()(**batch(), labels=LABELS).loss.requires_grad
    model.update(everything)
    with pytest.raises(Failed, match="AC518"):
        model(**batch(), labels=LABELS)


def test_a_second_trunk_replaces_the_first(tmp_path: Path) -> None:
    model = cached(DROPPED, tmp_path, 2).train()
    model(**batch(), labels=LABELS)
    model.trunk = CachedTrunk(model, 1, tmp_path)
    for _ in range(2):
        assert both(model, batch())[0] < 1e-12
    assert sum(isinstance(module, CachedLayer) for module in model.modules()) == 1


def test_a_model_with_a_trunk_is_pickled_and_copied_without_its_file(tmp_path: Path) -> None:
    model = cached(DROPPED, tmp_path, 2).train()
    expected = model(**batch(), labels=LABELS).logits
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.copy()):
        assert twin.trunk is None
        assert torch.equal(twin(**batch(), labels=LABELS).logits, expected)
        twin.trunk = CachedTrunk(twin, 1, tmp_path)
        assert torch.equal(twin(**batch(), labels=LABELS).logits, expected)
