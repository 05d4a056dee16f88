"""A cached trunk: the same losses, computed once per example; damaged files only cost time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adaptcompose.compiler.trunk import trunk_of
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.states import States
from adaptcompose.runtime.trunk import CachedTrunk, StillLayer
from tests.tiny import LAYERS, WIDTH, backbone, batch, composed

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


def cached(text: str, folder: Path, layers: int, **options: Any) -> ComposedModel:
    model = composed(text, head=HEAD, **options)
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
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "llama"])
def test_the_losses_are_those_of_a_live_trunk(text: str, family: str, tmp_path: Path) -> None:
    body = backbone(family)
    live = composed(text, body, head=HEAD)
    layers = trunk_of(live.program, set(live.parts.order)).layers
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
        if isinstance(module, StillLayer):
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
    entry = 28 + 5 * WIDTH * 8
    monkeypatch.setenv("ADAPTCOMPOSE_TRUNK_BYTES", str(3 * entry))
    old = States("old", WIDTH, torch.float64, folder=tmp_path)
    for number in range(2):
        old.put(bytes([number] * 16), torch.ones(5, WIDTH).double())
    new = States("new", WIDTH, torch.float64, folder=tmp_path)
    for number in range(5):
        new.put(bytes([number] * 16), torch.full((5, WIDTH), float(number)).double())
    assert not old.path.exists()  # the older trunk gave way
    assert len(new) == 3
    found = new.get(bytes([2] * 16))
    assert found is not None
    assert float(found[0, 0]) == 2.0


def test_one_process_writes(tmp_path: Path) -> None:
    first = States("k", WIDTH, torch.float32, folder=tmp_path)
    second = States("k", WIDTH, torch.float32, folder=tmp_path)
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
    found = trunk_of(model.program, set(model.parts.order))
    assert found.layers == 0
    assert why in found.why


def test_the_trunk_ends_below_what_is_trained() -> None:
    model = composed("let low = pfeiffer(); stack(low, houlsby() | drop(bottom=2))")
    assert trunk_of(model.program, {"houlsby", "bottleneck"}).layers == 2
    assert trunk_of(model.program, set()).layers == LAYERS
    branches = composed("parallel(a=pfeiffer(), b=houlsby()) | drop(bottom=1)")
    assert trunk_of(branches.program, set(branches.parts.order)).layers == 1
