"""The cached trunk: layers that reuse the states they computed for an example before.

The trunk's modules stay in eval mode. The first time an example is seen they compute, without
gradients, and what leaves the last of them is kept; from then on the layers of the trunk hand out
the kept states. Where weights of the trunk change, the states of other weights are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.trunk import trunk_of
from adaptcompose.diagnostics.codes import AC518
from adaptcompose.diagnostics.diagnostic import Failed, counted
from adaptcompose.methods.invertible import EMBEDDINGS_SITE
from adaptcompose.runtime.attach.sites import Wrapper, module_at, replace_module, stock_of
from adaptcompose.runtime.call_context import CallContext
from adaptcompose.runtime.ops.weight_cache import WeightCache
from adaptcompose.runtime.training.state_file import StateFile
from adaptcompose.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from adaptcompose.runtime.model import ComposedModel

CACHED_STATES, TRUNK_OUTPUT = "states given to the trunk", "states that left the trunk"
UNCACHED_EXAMPLES = "examples whose states are to be kept"

CACHEABLE_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
"""What a batch may hold: one value per token. The states of others are computed anew."""
IGNORED_SETTINGS = {"_name_or_path", "transformers_version", "dtype"}
"""Entries of a configuration on which no state depends, or whose meaning the weights show."""
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
"""Kinds of rotary positions that depend on the longest row of a batch."""


class FrozenModule(Wrapper):
    """A module of the trunk: never in training, without gradients."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__(stock)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenModule:
        if self.training or not mode:  # else what it keeps would be made anew in every step
            super().train(False)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.stock(*args, **kwargs)


class CachedLayer(FrozenModule):
    """A layer of the trunk, skipped if states are given."""

    def __init__(self, stock: nn.Module, context: CallContext, *, last: bool) -> None:
        super().__init__(stock)
        self.context = context
        self.last = last

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = self.context.shared.get(CACHED_STATES)
        if given is not None:
            return given
        out = super().forward(*args, **kwargs)
        if self.last:
            self.context.shared[TRUNK_OUTPUT] = out
        return out


class CachedTrunk:
    """The states of a model's lowest layers, by example.

    What stands at padding is not kept: a loss must not read it.
    """

    def __init__(self, model: ComposedModel, layers: int, folder: Path | None = None) -> None:
        self.context, self.layers = model.context, layers
        self.program, self.parts = model.program, model.parts
        self._trained_parts: frozenset[str] | None = None
        self._check()
        facts = model.composition.facts
        body: Any = stock_of(model.body)
        base = stock_of(body.base_model)
        stack: Any = module_at(base, facts.layout.layers)
        places = [facts.layout.path(site) for site in _sites_below_layers(facts)]
        # what some families drop out between embeddings and layers
        places += [name for name, one in base.named_children() if isinstance(one, nn.Dropout)]
        below = [_unfrozen(module_at(base, place)) for place in places]
        stock = [_unfrozen(layer) for layer in stack]
        self.modules = [*below, *stock[:layers]]
        self.token_choice = facts.layout.pooled_token
        self.depends_on_length = (facts.config.get("rope_parameters") or {}).get(
            "rope_type"
        ) in LENGTH_DEPENDENT_ROPE
        self._settings_text = _settings_text(model)
        self._key: WeightCache[str] = WeightCache()
        self.states = StateFile(
            self._key.get(self._source_tensors(), self._digest), facts.width, folder=folder
        )
        for place, module in zip(places, below, strict=True):
            replace_module(base, place, FrozenModule(module))
        for number, layer in enumerate(stock):
            last = number == layers - 1
            stack[number] = (
                CachedLayer(layer, self.context, last=last) if number < layers else layer
            )

    def before_forward(self, batch: Mapping[str, Tensor]) -> None:
        """Before the model runs: hand out the states of the batch, if all are there."""
        self._check()
        if not self._is_cacheable(batch):
            return
        digests, real = self._example_digests(batch), _mask(batch)
        self._follow_weights()
        rows = [row for digest in digests if (row := self.states.get(digest)) is not None]
        if len(rows) < len(digests):
            self.context.shared[UNCACHED_EXAMPLES] = digests
            return
        given = torch.zeros(*real.shape, self.states.width, dtype=rows[0].dtype)
        given[real.cpu()] = torch.cat(rows)
        self.context.shared[CACHED_STATES] = given.to(real.device)

    def after_forward(self, batch: Mapping[str, Tensor]) -> None:
        """After the model ran: keep what was computed."""
        if (wanted := self.context.shared.get(UNCACHED_EXAMPLES)) is None:
            return
        for digest, states, real in zip(
            wanted, self.context.shared[TRUNK_OUTPUT], _mask(batch), strict=True
        ):
            self.states.put(digest, states[real])

    def _check(self) -> None:
        """Raise AC518 if something in the trunk is trained: no gradient would reach it."""
        trained = frozenset(name for name, part in self.parts.items() if part.is_trained)
        if trained == self._trained_parts:
            return
        most = trunk_of(self.program, trained)
        if not 0 < self.layers <= most.layers:
            raise Failed(AC518.at(layers=f"lowest {counted(self.layers, 'layer')}", trunk=most))
        self._trained_parts = trained

    def _is_cacheable(self, batch: Mapping[str, Tensor]) -> bool:
        """True if the states of a batch can be cached."""
        if (
            not batch.keys() <= CACHEABLE_INPUTS
            or len({tensor.shape for tensor in batch.values()}) != 1
        ):
            return False
        real = _mask(batch)
        return bool((real[:, 0] if self.token_choice == "first" else real.any(dim=1)).all())

    def _example_digests(self, batch: Mapping[str, Tensor]) -> list[bytes]:
        """One digest per row: its inputs up to the last real token, and the precision."""
        real = _mask(batch)
        kind = real.device.type
        words: list[object] = [torch.get_float32_matmul_precision()]
        if torch.is_autocast_enabled(kind):
            words.append(torch.get_autocast_dtype(kind))
        if self.depends_on_length:
            words.append(real.shape[1])
        places = torch.arange(1, real.shape[1] + 1, device=real.device)
        ends = (places * real).amax(dim=1).tolist()
        columns = {name: batch[name].tolist() for name in sorted(batch)}
        texts = (
            f"{words} {[(name, rows[number][:end]) for name, rows in columns.items()]}"
            for number, end in enumerate(ends)
        )
        return [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]

    def _follow_weights(self) -> None:
        """Switch to another state file if weights have changed."""
        key = self._key.get(self._source_tensors(), self._digest)
        if key != self.states.key:
            self.states.close()
            self.states = StateFile(key, self.states.width, folder=self.states.folder)

    def _source_tensors(self) -> Iterator[Tensor]:
        """The tensors that the states depend on."""
        for module in self.modules:
            yield from module.parameters()
            yield from module.buffers()
        yield from (tensor for tensor in self.parts.parameters() if not tensor.requires_grad)

    def _digest(self) -> str:
        """A digest of everything that all states depend on: weights, program, versions."""
        made = hashlib.blake2b(self._settings_text.encode(), digest_size=16)
        for tensor in self._source_tensors():
            made.update(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.device.type}".encode())
            made.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return made.hexdigest()


def _unfrozen(module: nn.Module) -> nn.Module:
    """The live module, even if an earlier trunk froze it."""
    return module.stock if isinstance(module, FrozenModule) else module


def _sites_below_layers(facts: Facts) -> tuple[Site, ...]:
    """The sites below the lowest layer."""
    whole = (EMBEDDINGS_SITE,)
    return (
        whole
        if EMBEDDINGS_SITE in facts.sites_of_kind("output")
        else facts.sites_of_kind("tokens", "positions")
    )


def _mask(batch: Mapping[str, Tensor]) -> Tensor:
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]).bool() if mask is None else mask.bool()


def _settings_text(model: ComposedModel) -> str:
    """The settings that states depend on besides weights: configuration, program, versions."""
    config = model.config
    settings = {
        name: value for name, value in config.to_dict().items() if name not in IGNORED_SETTINGS
    }
    written = json.dumps(settings, sort_keys=True, default=str)
    versions = f"{__version__} {torch.__version__} {transformers.__version__}"
    return f"{versions}\n{config._attn_implementation}\n{written}\n{model.program}"
