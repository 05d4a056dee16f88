"""What training changes, and what only training does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.fusion import MixtureModule
from adaptcompose.runtime.ops.primitives import BottleneckModule, PrimitiveModule
from tests.tiny import (
    LAYERS,
    LENGTH,
    backbone,
    batch,
    composed,
    config,
    distance,
    hidden,
    make_backbone,
)

FLAGSHIP = (
    "stack(lang=language(reduction=4), task=pfeiffer(reduction=4))"
    " | fuse(pfeiffer(reduction=4), pfeiffer(reduction=2))"
)
TAGS = {"task": "token-classification", "labels": ["O", "B-PER", "I-PER"]}


def labels() -> Tensor:
    return torch.arange(3 * LENGTH).view(3, LENGTH) % 3


def states_by_layer(model: ComposedModel) -> list[Tensor]:
    """Embeddings, then the output of each layer."""
    found: list[Tensor] = []
    base = model.body.base_model
    modules = [base.embeddings, *base.encoder.layer]
    handles = [
        module.register_forward_hook(
            lambda _m, _a, out: found.append(out if torch.is_tensor(out) else out[0])
        )
        for module in modules
    ]
    model(**batch())
    for handle in handles:
        handle.remove()
    return found


def test_new_parts_train_and_nothing_else() -> None:
    model = composed(FLAGSHIP, head=TAGS)
    new = {id(value) for value in model.parts.parameters()}
    new |= {id(value) for value in model.head.slots.parameters()}
    assert {id(value) for _, value in model.trained()} == new


@pytest.mark.parametrize("names", [{"task"}, {"lang"}, {"fuse"}, {"head"}, {"task", "head"}])
def test_a_gradient_reaches_exactly_what_is_trained(names: set[str]) -> None:
    model = composed(FLAGSHIP, head=TAGS).train()
    model.update(frozenset(names))
    model(**batch(), labels=labels()).loss.backward()
    for name, part in model.parts.items():
        for parameter in part.parameters():
            assert (parameter.grad is not None) == (name in names), name
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all()
    assert model.head is not None
    for parameter in model.head.slots.parameters():
        assert (parameter.grad is not None) == ("head" in names)
    own = {id(value) for value in model.parts.parameters()}
    own |= {id(value) for value in model.head.slots.parameters()}
    assert all(value.grad is None for value in model.parameters() if id(value) not in own)
    assert all(value.grad is None for value in model.composition.backbone.parameters())


@pytest.mark.parametrize("bottom", range(LAYERS))
def test_below_the_lowest_trained_site_no_graph_is_kept(bottom: int) -> None:
    text = f"pfeiffer(reduction=4) | fuse(pfeiffer(), pfeiffer()) | drop(bottom={bottom})"
    model = composed(text).train()
    kept = [state.grad_fn is not None for state in states_by_layer(model)]
    assert kept == [False] * (bottom + 1) + [True] * (LAYERS - bottom)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "distilbert"])
@pytest.mark.parametrize("bottom", range(LAYERS))
@pytest.mark.parametrize(
    "text", ["pfeiffer(reduction=4)", "fuse(pfeiffer(), pfeiffer(reduction=4))"]
)
def test_nothing_is_saved_for_a_gradient_below_the_lowest_trained_site(
    text: str, bottom: int, family: str
) -> None:
    model = composed(f"{text} | drop(bottom={bottom})", backbone(family)).train()
    saved: list[Tensor] = []
    before: list[int] = []
    sites = [module for module in model.body.modules() if isinstance(module, PrimitiveModule)]
    for module in sites:
        if any(parameter.requires_grad for parameter in module.parameters()):
            module.register_forward_pre_hook(lambda *_: before.append(len(saved)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(**batch())
    assert before[0] == 0
    assert saved


def test_a_frozen_part_below_keeps_no_graph_and_a_trained_one_at_the_embeddings_keeps_all() -> None:
    text = f"stack(lang=language(reduction=4), task=pfeiffer() ) | drop(bottom={LAYERS - 1})"
    model = composed(text)
    model.update(frozenset({"task"}))
    assert [s.grad_fn is not None for s in states_by_layer(model)] == [False] * LAYERS + [True]
    model.update(frozenset({"lang"}))
    assert all(state.grad_fn is not None for state in states_by_layer(model))


def test_a_composition_comes_in_eval_mode_and_switches_as_a_whole() -> None:
    model = composed(FLAGSHIP, make_backbone().train(), head=TAGS)
    assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.train().modules())


@pytest.mark.parametrize(
    "text",
    [
        "bottleneck(reduction=4, dropout=0.5)",
        "bottleneck(reduction=4, stochastic_depth=0.5)",
        "fuse(pfeiffer(reduction=4), pfeiffer(reduction=2), dropout=0.5)",
    ],
)
def test_what_is_left_to_chance_is_so_in_training_only(text: str) -> None:
    model = composed(text)
    still = composed(text.replace("0.5", "0"))
    assert torch.equal(hidden(model), hidden(still))
    model.train()
    assert not torch.equal(hidden(model), hidden(model))
    model.eval()
    assert torch.equal(hidden(model), hidden(still))


def test_stochastic_depth_leaves_an_adapter_out_for_whole_examples() -> None:
    text = "bottleneck(reduction=4, stochastic_depth=0.5, leave_out=[0, 1])"
    model = composed(text).train()
    without = hidden(composed(text.replace("stochastic_depth=0.5", "scale=0")))
    doubled = hidden(composed(text.replace("stochastic_depth=0.5", "scale=2")))
    torch.manual_seed(0)
    seen = set()
    for _ in range(8):
        for out, dropped, kept in zip(hidden(model), without, doubled, strict=True):
            found = [torch.allclose(out, one, rtol=1e-9, atol=1e-12) for one in (dropped, kept)]
            assert sum(found) == 1
            seen.add(found[0])
    assert seen == {True, False}


def test_dropout_of_a_file_without_one_is_the_backbones() -> None:
    from adaptcompose.backbones.layout import Site, read_facts
    from adaptcompose.methods.fusion import Fusion

    facts = read_facts(config(attention_probs_dropout_prob=0.25).to_dict())
    fusion = Fusion.from_adapterhub({"query": True}, ())
    assert fusion.lower_attention("f", Site("ffn.out", 0), facts).dropout == 0.25


@pytest.mark.parametrize("optimise", [True, False])
def test_temperature_counts_in_training_only(optimise: bool) -> None:
    text = "fuse(pfeiffer(reduction=4), pfeiffer(reduction=2){})"
    model = composed(text.format(", temperature=true"), optimise=optimise)
    plain = composed(text.format(""), optimise=optimise)
    model.set_temperature(50.0)
    plain.set_temperature(50.0)
    assert torch.equal(hidden(model), hidden(plain))
    model.train()
    assert distance(hidden(plain.train()), hidden(plain.eval())) <= 1e-12
    assert distance(hidden(model), hidden(plain)) > 1e-3
    # so hot that all members weigh the same
    model.set_temperature(1e9)
    part = plain.parts["fuse"]
    with torch.no_grad():
        for site in part.sites:
            part[site]["query.weight"].zero_()
            part[site]["query.bias"].zero_()
    assert distance(hidden(model), hidden(plain)) <= 1e-7


def test_the_temperature_divides_the_scores() -> None:
    text = "fuse(pfeiffer(reduction=4), pfeiffer(reduction=2), temperature=true)"
    model = composed(text, optimise=False).train()
    model.set_temperature(50.0)
    mixture = next(module for module in model.modules() if isinstance(module, MixtureModule))
    scores = torch.tensor([[3.0, 1.0]])
    assert torch.equal(mixture._attention(scores), (scores / 50).softmax(-1))


def test_the_pull_joins_the_loss_of_training() -> None:
    text = "fuse(pfeiffer(reduction=4), pfeiffer(reduction=2), pull={})"
    model, free = composed(text.format(0.5), head=TAGS), composed(text.format(0), head=TAGS)
    inputs = batch() | {"labels": labels()}
    assert model(**inputs).loss == free(**inputs).loss
    part = model.parts["fuse"]
    maps = [part[site]["value.weight"] for site in part.sites]
    assert len(maps) == LAYERS
    by_hand = sum((torch.eye(len(value)) - value).square().sum() for value in maps)
    pulled, plain = model.train()(**inputs).loss, free.train()(**inputs).loss
    assert pulled.item() == pytest.approx((plain + 0.5 * by_hand).item(), rel=1e-9)
    model.update(frozenset({"head"}))
    assert torch.equal(model(**inputs).loss, plain)


def test_a_new_fusion_starts_near_the_mean_with_a_value_map_near_the_identity() -> None:
    from adaptcompose.runtime.compose import compose

    model = compose("fuse(pfeiffer(), pfeiffer(), pfeiffer())", backbone(), head=None)
    weights = model.parts["fuse"][model.parts["fuse"].sites[0]]
    value = weights["value.weight"]
    assert torch.equal(value.diagonal(), torch.ones(len(value), dtype=value.dtype))
    assert value[0, 1].item() == pytest.approx(1e-6)
    assert weights["query.bias"].abs().max() == 0


class Rows(Dataset[dict[str, Any]]):
    """Eight rows, with a column that no model knows."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict[str, Any]:
        one = batch(seed=number, rows=1, pad=False)
        row = {key: value[0] for key, value in one.items()}
        return row | {"labels": torch.arange(LENGTH) % 3, "source": number}


def fit(folder: Path, *, batch_size: int, accumulate: int, **more: Any) -> Iterator[Any]:
    """One epoch of Trainer over the eight rows; yields the trainer, then the model."""
    model = composed(FLAGSHIP, make_backbone(), head=TAGS)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        **more,
    )
    trainer = Trainer(model, arguments, train_dataset=Rows())
    trainer.train()
    yield trainer
    yield model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    """1×8 = 4×2 = 8×1: the loss is not multiplied by the number of accumulated batches."""
    results = []
    for size, accumulate in ((8, 1), (2, 4), (1, 8)):
        _, model = fit(tmp_path, batch_size=size, accumulate=accumulate)
        results.append({name: value.detach() for name, value in model.trained()})
    start = dict(composed(FLAGSHIP, make_backbone(), head=TAGS).trained())
    assert any(not torch.allclose(results[0][name], value) for name, value in start.items())
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.allclose(other[name], value, rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trainer_knows_labels_and_columns(tmp_path: Path) -> None:
    trainer, model = fit(tmp_path, batch_size=4, accumulate=1)
    assert trainer.label_names == ["labels"]
    assert "source" not in next(iter(trainer.get_train_dataloader()))
    assert not trainer.model_accepts_loss_kwargs
    found = trainer.evaluate(Rows())
    assert found["eval_loss"] > 0
    predicted = trainer.predict(Rows())
    assert predicted.predictions.shape == (8, LENGTH, 3)
    assert isinstance(model, nn.Module)


DROPOUT = {
    "bert": "hidden_dropout_prob",
    "distilbert": "dropout",
    "gpt2": "resid_pdrop",
    "t5": "dropout_rate",
    "bart": "dropout",
    "mbart": "dropout",
}
"""What configurations call the dropout of what a sub-layer adds."""


@pytest.mark.parametrize("family", DROPOUT)
@pytest.mark.parametrize("flag", ["true", "false"])
def test_an_adapter_stands_behind_the_dropout_of_its_sublayer(family: str, flag: str) -> None:
    base = make_backbone(family, **{DROPOUT[family]: 0.5})
    model = composed(f"bottleneck(reduction=3, original_ln_after={flag})", base).train()
    seen: list[Tensor] = []
    for module in model.body.modules():
        if isinstance(module, BottleneckModule):
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0].h))
    model(**batch())
    assert len(seen) == len(model.program.sites)
    shares = [float((h == 0).float().mean()) for h in seen]
    assert all(0.3 < share < 0.7 for share in shares), shares
    seen.clear()
    model.eval()(**batch())
    assert all(h.all() for h in seen)
