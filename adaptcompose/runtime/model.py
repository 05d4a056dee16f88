"""The composed model: a copy of the stock backbone, the parts, and the head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from adaptcompose.compiler.trunk import averages_over_tokens
from adaptcompose.diagnostics.codes import AC508, AC509
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.program import Program
from adaptcompose.methods.fusion import Fusion
from adaptcompose.runtime.attach.attachment import copy_structure
from adaptcompose.runtime.attach.sites import stock_of
from adaptcompose.runtime.attach.virtual_tokens import FIRST_STATE, extend_labels, select_own_logits
from adaptcompose.runtime.call_context import CallContext
from adaptcompose.runtime.composition import Composition
from adaptcompose.runtime.heads import FlexHead, value_regularisation
from adaptcompose.runtime.model_inputs import (
    classified_state,
    flatten_choices,
    given_inputs,
    shift_tokens_right,
)
from adaptcompose.runtime.ops.fusion import MixtureModule
from adaptcompose.runtime.parts import Parts


class TrunkCache(Protocol):
    """The states of the lowest layers, by example: what `cache_trunk` puts in front of a model."""

    layers: int

    def before_forward(self, batch: dict[str, Tensor]) -> None: ...

    def after_forward(self, batch: dict[str, Tensor]) -> None: ...


class Services(Protocol):
    """What a model does with the help of modules that themselves need a model.

    Given by who builds the model, so that saving, exporting and caching may import this module and
    not the other way round.
    """

    def save(self, model: ComposedModel, folder: Path) -> None: ...

    def exportable(self, model: ComposedModel) -> nn.Module: ...

    def cache_trunk(self, model: ComposedModel, layers: int) -> TrunkCache: ...

    def branch(self, model: Any, name: str) -> ComposedModel: ...


@dataclass
class Output(ModelOutput):
    """`last_hidden_state` without a head, `logits` with one, `loss` with labels.

    `past_key_values` where a cache was asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    past_key_values: Any = None


class ComposedModel(nn.Module):
    """What `ac.compose` returns. It never changes the caller's backbone.

    One forward at a time per model; a thread takes a `copy()`.
    """

    # Trainer would otherwise multiply the loss by the number of accumulated batches
    accepts_loss_kwargs = False
    main_input_name = "input_ids"

    def __init__(
        self,
        body: nn.Module,
        parts: Parts,
        heads: Mapping[str, FlexHead],
        composition: Composition,
        context: CallContext,
        services: Services,
    ) -> None:
        super().__init__()
        self.body = body
        self.parts = parts
        self.head = heads.get("")
        self.composition = composition
        self.context = context
        self.services = services
        self.trunk: TrunkCache | None = None
        self._detached = False
        hooked: Any = super()  # these methods have no types
        hooked.register_state_dict_post_hook(_without_backbone)
        hooked.register_load_state_dict_post_hook(_without_missing)

    @property
    def program(self) -> Program:
        """The program that runs: one primitive per layer and site."""
        return self.composition.program

    @property
    def lock(self) -> Any:
        """The pins of everything that was loaded, by reference."""
        return self.composition.lock

    @property
    def config(self) -> Any:
        return self.body.config

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the backbone."""
        return next(t.dtype for t in self.body.parameters() if t.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(  # noqa: PLR0913, PLR0917
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> Output:
        """Token ids [batch, tokens] to an `Output`; labels as the head's kind has them.

        For a multiple choice also [examples, choices, tokens], as transformers has them.

        An encoder-decoder that is given nothing to decode reads the labels of a language model, or
        its input, moved to the right by one.
        """
        self._start_call()
        batch = given_inputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            use_cache=use_cache or None,
        )
        return self._forward(batch, labels, attention_mask)

    def _forward(
        self, batch: dict[str, Tensor], labels: Tensor | None, attention_mask: Tensor | None
    ) -> Output:
        """Run the body and the head."""
        choices = None
        if self.head is not None and self.head.kind == "multiple_choice":
            batch, choices = flatten_choices(batch)
        if self.composition.head == "backbone":
            longer = {} if labels is None else {"labels": extend_labels(self.body, labels)}
            out = self._run_body(batch, **longer)
            cache = out.get("past_key_values")
            return Output(
                self._with_regularisation(out.get("loss")), out["logits"], past_key_values=cache
            )
        out = self._run_body(self._with_decoder_inputs(batch, labels))
        cache = out.get("past_key_values")
        if self.head is None:
            if labels is not None:
                raise Failed(AC508.at(what="a loss"))
            return Output(last_hidden_state=out.last_hidden_state, past_key_values=cache)
        logits = self.head(
            out.last_hidden_state, out.get("pooler_output"), out.get(FIRST_STATE), choices
        )
        loss = None if labels is None else self.head.loss(logits, labels, attention_mask)
        return Output(self._with_regularisation(loss), logits, past_key_values=cache)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate text with transformers' own `generate`; all its arguments are accepted.

        A gate averages over all tokens so far, and a call behind a cache has the newest only: with
        gates in what decodes, no cache is used unless `use_cache=True` asks for one.
        """
        self._start_call()
        return self.language_model().generate(*args, **self._generation_arguments(kwargs))

    def _generation_arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `generate`, without a cache behind which gates would see too little."""
        sites = self.program.sites.items()
        gates = any(site.part != "encoder" and averages_over_tokens(node) for site, node in sites)
        return {"use_cache": False} | kwargs if gates else kwargs

    def language_model(self) -> Any:
        """The backbone with its own head, composition attached; AC508 with any other head."""
        if set(self.composition.heads.values()) != {"backbone"}:
            help = 'load the backbone with its language-model head, and pass `head="backbone"`'
            raise Failed(AC508.at(what="generate()", help=help))
        return self.body

    def _with_decoder_inputs(self, batch: dict[str, Any], labels: Any = None) -> dict[str, Any]:
        """Add the decoder inputs of an encoder-decoder."""
        if not self.config.is_encoder_decoder or "decoder_input_ids" in batch:
            return batch
        own = self.head is not None and self.head.kind == "seq2seq_lm" and labels is not None
        ids = labels if own else batch["input_ids"]
        starts = self.composition.facts.layout.starts
        return batch | {"decoder_input_ids": shift_tokens_right(ids, self.config, starts)}

    def cache_trunk(self, layers: int) -> None:
        """In training, compute the lowest layers once per example and keep their states on disk.

        AC518 if something in them is trained. They compute without dropout from now on.
        """
        self.trunk = self.services.cache_trunk(self, layers)

    def _run_body(self, batch: dict[str, Tensor], **more: Any) -> Any:
        """Run the body, starting from the cached trunk's states if there are any."""
        reads = self.composition.facts.layout.pooled_token
        if reads != "first":
            more = {"use_cache": False} | more  # a cache that nobody asked for
        if self.trunk is None or not self.training:
            out = select_own_logits(self.context, self.body(**(more | batch)))
        else:
            self.trunk.before_forward(batch)
            out = self.body(**(more | batch))
            self.trunk.after_forward(batch)
        if reads != "first" and "last_hidden_state" in out:
            out[FIRST_STATE] = classified_state(out["last_hidden_state"], batch, self.config, reads)
        return out

    def _start_call(self, members: Sequence[int] = ()) -> None:
        if self._detached:
            raise Failed(AC509.at())
        self.context.start_call(members)

    def _with_regularisation(self, loss: Tensor | None) -> Tensor | None:
        """In training, add the regularisation of W_v (Pfeiffer et al., 2021) to the loss."""
        if loss is None or not self.training:
            return loss
        for _, part in self.parts.items():
            if (
                isinstance(part.method, Fusion)
                and part.method.value_regularisation
                and part.is_trained
            ):
                for site in part.sites:
                    value = part[site].get("value.weight")
                    if value is not None:
                        loss = loss + part.method.value_regularisation * value_regularisation(value)
        return loss

    def head_of(self, name: str | None) -> FlexHead | None:
        """The head of a composition by its name; "" if the model is a single composition."""
        return None if name else self.head

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The tensors that training changes: exactly these go into checkpoints."""
        return ((name, value) for name, value in self.named_parameters() if value.requires_grad)

    def update(self, names: frozenset[str]) -> None:
        """Train the parts of these names, and the head if `head` is among them; freeze the rest."""
        for name, part in self.parts.items():
            part.requires_grad_(name in names)
        if self.head is not None:
            self.head.slots.requires_grad_("head" in names)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Compute layers again in the backward pass instead of keeping what is in them.

        Arguments are those that transformers' models take under this name.
        """
        body: Any = stock_of(self.body)
        given = {"use_reentrant": False} | dict(activation_checkpointing_kwargs or {})
        older = body.gradient_checkpointing_enable
        enable = getattr(body, "activation_checkpointing_enable", older)
        enable(given | {"context_fn": self.context.checkpoint_contexts}, **options)
        body.disable_input_require_grads()  # nothing below the lowest trained site needs them

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def set_temperature(self, value: float) -> None:
        """Set the temperature of fusions that have one, in training; it is 1 at inference."""
        for module in self.modules():
            if isinstance(module, MixtureModule) and module.node.attention.temperature:
                module.temperature = value

    def copy(self) -> ComposedModel:
        """A copy over the same tensors that may run at the same time, in another thread."""
        return copy_structure(self, frozen=False)

    def detach(self) -> PreTrainedModel:
        """Return the unchanged backbone that was given to compose(); this model no longer runs."""
        self._detached = True
        return self.composition.backbone

    def exportable(self) -> nn.Module:
        """A frozen copy for torch.export and torch.onnx.export: ids and mask in, logits out."""
        return self.services.exportable(self)

    def save(self, folder: str) -> None:
        """Write the composition: `ac.load(folder)` gives bit-equal outputs."""
        self.services.save(self, Path(folder))

    def __deepcopy__(self, memo: dict[int, Any]) -> ComposedModel:
        """Copy the modules; share the record of what the model was made from."""
        memo[id(self.composition)] = self.composition
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        import copy

        for key, value in self.__getstate__().items():
            twin.__dict__[key] = copy.deepcopy(value, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"trunk": None}  # its file belongs to this model


_NOT_SAVED = re.compile(r"body\.|heads?\.(\d+\.)?inverse\.")
"""Tensors of the backbone, and those of parts and heads under the sites that read them."""


def _without_backbone(model: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Keep each tensor of parts and heads once in a state dict."""
    for key in [key for key in state if _NOT_SAVED.match(key.removeprefix(prefix))]:
        del state[key]


def _without_missing(model: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if not _NOT_SAVED.match(key)]
