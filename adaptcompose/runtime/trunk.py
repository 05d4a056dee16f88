"""The cached trunk at work: layers that give back what they computed for an example before.

The trunk's modules stay in eval mode. The first time an example is seen they compute, without
gradients, and what leaves the last of them is kept; from then on the layers of the trunk hand out
the kept states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.methods.invertible import EMBEDDINGS
from adaptcompose.runtime.frame import Frame
from adaptcompose.runtime.sites import Proxy
from adaptcompose.runtime.states import States

if TYPE_CHECKING:
    from pathlib import Path

    from adaptcompose.runtime.model import ComposedModel

GIVEN, LEFT = "states given to the trunk", "states that left the trunk"


class Still(Proxy):
    """A module of the trunk: never in training, without gradients."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__(stock)
        self.train(False)

    def train(self, mode: bool = True) -> Still:
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.stock(*args, **kwargs)


class StillLayer(Still):
    """A layer of the trunk, skipped if states are given."""

    def __init__(self, stock: nn.Module, frame: Frame, *, last: bool) -> None:
        super().__init__(stock)
        self.frame = frame
        self.last = last

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = self.frame.kept.get(GIVEN)
        if given is not None:
            return given
        out = super().forward(*args, **kwargs)
        if self.last:
            self.frame.kept[LEFT] = out
        return out


class CachedTrunk:
    """The states of a model's lowest layers, by example."""

    def __init__(self, model: ComposedModel, layers: int, folder: Path | None = None) -> None:
        self.frame = model.frame
        facts = model.composition.facts
        base: Any = model.body
        base = base.base_model
        stack = base.get_submodule(facts.layout.layers)
        places = [facts.layout.path(site) for site in _below(facts)]
        # what some families drop out between embeddings and layers
        places += [name for name, one in base.named_children() if isinstance(one, nn.Dropout)]
        below = [base.get_submodule(place) for place in places]
        modules = [*below, *stack[:layers]]
        self.states = States(_key(model, modules), facts.width, model.dtype, folder=folder)
        for place, module in zip(places, below, strict=True):
            base.set_submodule(place, Still(module))
        for number in range(layers):
            last = number == layers - 1
            stack[number] = StillLayer(stack[number], self.frame, last=last)

    def enter(self, batch: Mapping[str, Tensor]) -> None:
        """Before the model runs: hand out the states of the batch, if all are there."""
        rows = [self.states.get(digest) for digest in _digests(batch)]
        if any(row is None for row in rows):
            return
        ids = batch["input_ids"]
        mask = _mask(batch)
        given = torch.zeros(*ids.shape, self.states.width, dtype=self.states.dtype)
        given[mask.cpu()] = torch.cat([row for row in rows if row is not None])
        self.frame.kept[GIVEN] = given.to(ids.device)

    def leave(self, batch: Mapping[str, Tensor]) -> None:
        """After the model ran: keep what was computed."""
        left = self.frame.kept.get(LEFT)
        if left is None:
            return
        for digest, states, mask in zip(_digests(batch), left, _mask(batch), strict=True):
            self.states.put(digest, states[mask])


def _below(facts: Facts) -> tuple[Site, ...]:
    """Where the states come from that enter the lowest layer."""
    whole = (EMBEDDINGS,)
    return whole if EMBEDDINGS in facts.of_kind("output") else facts.of_kind("tokens", "positions")


def _mask(batch: Mapping[str, Tensor]) -> Tensor:
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]).bool() if mask is None else mask.bool()


def _digests(batch: Mapping[str, Tensor]) -> list[bytes]:
    """What an example's states depend on: its tokens, their types, and where they begin."""
    ids, mask = batch["input_ids"].cpu(), _mask(batch).cpu()
    types = batch.get("token_type_ids")
    kinds = torch.zeros_like(ids) if types is None else types.cpu()
    found = []
    for row, kind, real in zip(ids, kinds, mask, strict=True):
        first = int(real.int().argmax())
        text = f"{first} {row[real].tolist()} {kind[real].tolist()}"
        found.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return found


def _key(model: ComposedModel, modules: list[nn.Module]) -> str:
    """A name for everything else that the states depend on: weights, program, versions."""
    made = hashlib.blake2b(digest_size=16)
    versions = f"{torch.__version__} {transformers.__version__} {model.device.type}"
    config = model.config
    words = (versions, config.model_type, str(config._attn_implementation), str(model.program))
    made.update("\n".join(words).encode())
    for module in modules:
        for name, tensor in module.state_dict().items():
            data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            made.update(data)
    return made.hexdigest()
