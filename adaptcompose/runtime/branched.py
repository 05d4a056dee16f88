"""Several compositions in one model: `route` gives each row one, `parallel` gives each all rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from adaptcompose.diagnostics.codes import AC505, AC508, AC510, AC513, AC519
from adaptcompose.diagnostics.diagnostic import Failed, counted, suggest
from adaptcompose.runtime.attach.virtual_tokens import FIRST_STATE
from adaptcompose.runtime.call_context import CallContext, RowGroup, restore_row_order
from adaptcompose.runtime.composition import Composition
from adaptcompose.runtime.heads import FlexHead
from adaptcompose.runtime.model import ComposedModel, Output, Services
from adaptcompose.runtime.model_inputs import given_inputs
from adaptcompose.runtime.ops.row_groups import repeat_rows
from adaptcompose.runtime.parts import Parts

Labels = Tensor | Mapping[str, Tensor]


class Outputs(dict[str | None, Any]):
    """One `Output` per composition, by name, and the sum of their losses under `loss`.

    `rows` says which rows of the batch an output has, if the compositions share them out; None is
    the name of the bare backbone.
    """

    def __init__(
        self,
        outputs: Mapping[str | None, Output],
        rows: Mapping[str | None, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(outputs)
        self.rows = dict(rows or {})
        losses = [out.loss for out in outputs.values() if out.loss is not None]
        self.loss: Tensor | None = torch.stack(losses).sum() if losses else None
        if self.loss is not None:
            self["loss"] = self.loss


class BranchedModel(ComposedModel):
    """What `ac.compose` returns for `route(…)` and `parallel(…)`.

    `route`: `rows` names a composition for every row, or None. If all heads are of one kind with
    the same labels, or there are none, the result is one `Output` over all rows; else, or if some
    rows have none, it is `Outputs`. `parallel`: `Outputs`; labels are given by name.
    """

    def __init__(
        self,
        body: nn.Module,
        parts: Parts,
        heads: Mapping[str, FlexHead],
        composition: Composition,
        context: CallContext,
        services: Services,
    ) -> None:
        super().__init__(body, parts, heads, composition, context, services)
        self.names = composition.program.names
        self.heads = nn.ModuleList(heads.values())
        self._head_names = tuple(heads)
        for head in heads.values():
            if self.program.branch_layer is None and head.kind == "multiple_choice":
                problem = "`route` lets every row choose its own composition"
                help = "use `model.branch(name)`, or `parallel`, where one composition has all rows"
                raise Failed(AC519.at(choices=head.choices, problem=problem, help=help))

    def branch(self, name: str) -> ComposedModel:
        """One composition on its own, sharing its parts and its head with this model."""
        return self.services.branch(self, name)

    def head_of(self, name: str | None) -> FlexHead | None:
        if name not in self._head_names:
            return None
        return cast(FlexHead, self.heads[self._head_names.index(name)])

    def forward(  # type: ignore[override]  # noqa: PLR0913, PLR0917
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Labels | None = None,
        rows: Sequence[str | None] | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Output | Outputs:
        """Token ids [batch, tokens] to an `Output`, or to one per composition."""
        batch = given_inputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
        )
        size = len(next(iter(batch.values())))
        if "backbone" not in self.composition.heads.values():
            batch = self._with_decoder_inputs(batch)
        if labels is not None and "backbone" in self.composition.heads.values():
            raise Failed(AC510.at())
        if self.program.branch_layer is None:
            return self._forward_routed(batch, size, labels, rows)
        return self._forward_parallel(batch, size, labels)

    def generate(self, *args: Any, rows: Sequence[str | None] | None = None, **kwargs: Any) -> Any:
        """Text of a language model; `rows` names a composition of `route` for every row."""
        model = self.language_model()
        if self.program.branch_layer is not None:
            help = "generate with one branch at a time: `model.branch(name)`"
            raise Failed(AC508.at(what="generate()", help=help))
        first = args[0] if args else next(iter(kwargs[key] for key in _INPUTS if key in kwargs))
        self._start_call(self._member_indices(rows, len(first)))
        return model.generate(*args, **self._generation_arguments(kwargs))

    def _forward_parallel(
        self, batch: dict[str, Tensor], size: int, labels: Labels | None
    ) -> Outputs:
        times, mask = len(self.names), batch.get("attention_mask")
        named = dict(labels) if isinstance(labels, Mapping) else {}
        if labels is not None and (not named or not set(named) <= set(self.names)):
            got = next((f"`{name}`" for name in named if name not in self.names), "one tensor")
            raise Failed(AC513.at(got=got, known=self.names[0]))
        self._start_call([index for index in range(times) for _ in range(size)])
        fan = cast(int, self.program.branch_layer)
        if fan < 0:
            batch = repeat_rows(batch, size, times)
        out = self._run_body(batch)
        outputs: dict[str | None, Output] = {}
        for index, name in enumerate(self.names):
            rows = slice(index * size, (index + 1) * size)
            mine = {key: out[key] for key in _STATES if out.get(key) is not None}
            if len(next(iter(mine.values()))) > size or times == 1:
                mine = {key: value[rows] for key, value in mine.items()}
            outputs[name] = self._apply_head(name, mine, named.get(name), mask)
        return self._with_regularised_loss(Outputs(outputs))

    def _apply_head(
        self,
        name: str | None,
        states: Mapping[str, Tensor],
        labels: Tensor | None,
        mask: Tensor | None,
    ) -> Output:
        if "logits" in states:
            return Output(logits=states["logits"])
        head = self.head_of(name)
        if head is None:
            if labels is not None:
                raise Failed(AC508.at(what="a loss"))
            return Output(last_hidden_state=states["last_hidden_state"])
        logits = head(
            states["last_hidden_state"], states.get("pooler_output"), states.get(FIRST_STATE)
        )
        return Output(None if labels is None else head.loss(logits, labels, mask), logits)

    def _forward_routed(
        self,
        batch: dict[str, Tensor],
        size: int,
        labels: Labels | None,
        rows: Sequence[str | None] | None,
    ) -> Output | Outputs:
        members = self._member_indices(rows, size)
        self._start_call(members)
        out = self._run_body(batch)
        states = {key: out[key] for key in _STATES if out.get(key) is not None}
        if "logits" in states or not self._head_names:
            return self._apply_head(None, states, None, None)
        mask = batch.get("attention_mask")
        whole = self._heads_match() and -1 not in members and not isinstance(labels, Mapping)
        found: dict[str | None, Output] = {}
        shares: dict[str | None, tuple[int, ...]] = {}
        for name, choice in self._rows_by_composition(members):
            index = choice.index(self.device)
            mine = {key: value[index] for key, value in states.items()}
            wanted = None if whole else _labels_of(labels, name, index)
            found[name] = self._apply_head(
                name, mine, wanted, None if mask is None else mask[index]
            )
            shares[name] = choice.rows
        if whole:
            logits = restore_row_order(
                [cast(Tensor, out.logits) for out in found.values()],
                (row for rows in shares.values() for row in rows),
            )
            head = cast(FlexHead, self.heads[0])
            loss = None if labels is None else head.loss(logits, cast(Tensor, labels), mask)
            return Output(self._with_regularisation(loss), logits)
        return self._with_regularised_loss(Outputs(found, shares))

    def _with_regularised_loss(self, outputs: Outputs) -> Outputs:
        if outputs.loss is not None:
            outputs.loss = outputs["loss"] = self._with_regularisation(outputs.loss)
        return outputs

    def _rows_by_composition(
        self, members: tuple[int, ...]
    ) -> Iterator[tuple[str | None, RowGroup]]:
        """The rows of every composition that is used."""
        groups = tuple((index,) for index in range(len(self.names)))
        for choice in self.context.row_groups(groups):
            yield (None if choice.number < 0 else self.names[choice.number]), choice

    def _heads_match(self) -> bool:
        """True if every composition has a head of the same type with the same labels."""
        heads = list(self.composition.heads.values())
        first = heads[0]
        if any(head is None or isinstance(head, str) for head in heads):
            return False
        assert first is not None and not isinstance(first, str)
        return len({(h.head_type, h.labels) for h in heads if h and not isinstance(h, str)}) == 1

    def _member_indices(self, rows: Sequence[str | None] | None, size: int) -> tuple[int, ...]:
        known = ", ".join(self.names)
        if rows is None or isinstance(rows, str) or len(rows) != size:
            count = (
                "is missing"
                if rows is None
                else f"has {counted(len(rows), 'name')} for {counted(size, 'row')}"
            )
            raise Failed(AC505.at(problem=count, known=known))
        index: dict[str | None, int] = {name: number for number, name in enumerate(self.names)}
        index[None] = -1
        for row in rows:
            if row not in index:
                remedy = suggest(str(row), self.names)
                raise Failed(
                    AC505.at(problem=f"contains the unknown name `{row}`", known=known, help=remedy)
                )
        return tuple(index[row] for row in rows)


def _labels_of(labels: Labels | None, name: str | None, index: Tensor) -> Tensor | None:
    """The labels of one composition: its rows, or the entry under its name."""
    if isinstance(labels, Tensor):
        return labels[index]
    return None if labels is None or name is None else labels.get(name)


_INPUTS = ("inputs", "input_ids", "inputs_embeds")
_STATES = ("logits", "last_hidden_state", "pooler_output", FIRST_STATE)
