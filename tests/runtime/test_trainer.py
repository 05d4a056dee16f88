"""transformers' own Trainer with a composed model: checkpoints, and layers computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from adaptcompose.runtime.model import ComposedModel
from tests.tiny import LENGTH, backbone, batch, composed, distance, make_backbone

TEXT = "stack(language(reduction=4), fuse(pfeiffer(reduction=4), pfeiffer(reduction=2)))"
TAGS = {"task": "token-classification", "labels": ["O", "B-PER", "I-PER"]}


class Examples(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        found = {name: tensor[0] for name, tensor in batch(seed=index, rows=1).items()}
        return found | {"labels": torch.arange(LENGTH) % 3}


def trainer(model: ComposedModel, folder: Path, **options: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "save_strategy": "epoch",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
    }
    given = TrainingArguments(output_dir=str(folder), **(arguments | options))
    return Trainer(model, given, train_dataset=Examples(), eval_dataset=Examples())


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_hold_parts_and_head_and_are_resumed(tmp_path: Path) -> None:
    whole, resumed = (composed(TEXT, make_backbone(), head=TAGS) for _ in range(2))
    trainer(whole, tmp_path).train()
    first, last = (tmp_path / f"checkpoint-{step}" for step in (2, 4))
    stored = load_file(last / "model.safetensors")
    own = [*whole.parts.parameters(), *whole.head.slots.parameters()]  # type: ignore[union-attr]
    assert sum(tensor.numel() for tensor in stored.values()) == sum(map(torch.numel, own))
    trainer(resumed, tmp_path).train(resume_from_checkpoint=str(first))
    for one, other in zip(whole.trained(), resumed.trained(), strict=True):
        assert torch.equal(one[1], other[1]), one[0]


@pytest.mark.filterwarnings("ignore")
def test_the_best_of_the_checkpoints_is_loaded(tmp_path: Path) -> None:
    model = composed("pfeiffer(reduction=4)", make_backbone(), head=TAGS)
    found = trainer(
        model,
        tmp_path,
        eval_strategy="epoch",
        load_best_model_at_end=True,
        greater_is_better=True,  # of the loss: the first
    )
    found.train()
    stored = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert found.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    state = model.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())


def test_a_state_is_loaded_strictly() -> None:
    text = "merge(compacter(reduction=4, phm_dim=3), compacter(reduction=4, phm_dim=3))"
    first = composed(text, head={"task": "masked-lm"})
    second = composed(text, head={"task": "masked-lm"}, seed=1)
    before = second(**batch()).logits
    second.load_state_dict(first.state_dict())
    assert distance(second(**batch()).logits, before) > 1e-3
    assert torch.equal(second(**batch()).logits, first(**batch()).logits)
    state = first.state_dict()
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        second.load_state_dict(state)


def gradients(model: ComposedModel, **more: Any) -> tuple[list[Tensor], int]:
    """Those of the first of two batches, and how many tensors were saved for it."""
    saved = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(**batch(), **more)
    if "rows" in more:
        more = {"rows": more["rows"][::-1]}
    model(**batch(seed=1), **more)  # another call, before the gradients of the first
    out.last_hidden_state.square().mean().backward()
    return [value.grad for _, value in model.trained() if value.grad is not None], saved


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "distilbert", "bart", "mbart"])
@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "prefix(length=2)",
        "route(a=stack(prompt(length=2), pfeiffer(reduction=4)), b=prompt(length=1), c=lora())",
    ],
)
def test_layers_computed_again_give_the_same_gradients(family: str, text: str) -> None:
    more = {"rows": ["a", "b", "c"]} if "route" in text else {}
    plain, thrifty = (composed(text, backbone(family)).train() for _ in range(2))
    thrifty.gradient_checkpointing_enable()
    wanted, many = gradients(plain, **more)
    found, few = gradients(thrifty, **more)
    assert len(found) == len(wanted) > 0
    largest = max(float(one.abs().max()) for one in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 1e-12 * largest
    assert few < many / 2


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_computes_layers_again(tmp_path: Path) -> None:
    losses = []
    for again in (False, True):
        model = composed(TEXT, make_backbone(), head=TAGS)
        found = trainer(model, tmp_path, gradient_checkpointing=again, save_strategy="no")
        losses.append(found.train().training_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
