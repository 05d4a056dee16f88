"""Attach a program to a copy of a stock model that shares all its tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Head
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.diagnostics.codes import AC416, AC508
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.primitives import Primitive, Rows
from adaptcompose.ir.program import Program
from adaptcompose.methods.invertible import HEAD_SITE
from adaptcompose.runtime.attach import map_sites as _mapsites  # noqa: F401 - it registers itself
from adaptcompose.runtime.attach.sites import attach_at, replace_module
from adaptcompose.runtime.attach.virtual_tokens import extend_input
from adaptcompose.runtime.call_context import CallContext
from adaptcompose.runtime.heads import FlexHead
from adaptcompose.runtime.ops import coupling as _couplings  # noqa: F401 - it registers itself
from adaptcompose.runtime.ops import folded_fusion as _folded  # noqa: F401 - it registers itself
from adaptcompose.runtime.ops import fusion as _fusion  # noqa: F401 - the same
from adaptcompose.runtime.ops import intervention as _intervention  # noqa: F401 - the same
from adaptcompose.runtime.ops import linear as _linear  # noqa: F401 - it registers itself
from adaptcompose.runtime.ops import mixing as _combination  # noqa: F401 - it registers itself
from adaptcompose.runtime.ops import prefix as _prefix  # noqa: F401 - it registers itself
from adaptcompose.runtime.ops.primitives import PrimitiveModule, build_module
from adaptcompose.runtime.ops.row_groups import wrap_branched_layers
from adaptcompose.runtime.parts import Parts

M = TypeVar("M", bound=nn.Module)


def copy_structure(model: M, *, frozen: bool = True) -> M:
    """Copy a model's module structure; parameters and buffers are shared, not copied.

    Tied parameters stay tied. The copy's parameters are objects of their own, so that freezing,
    swapping modules and moving the copy leave the original alone.
    """
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        trained = parameter.requires_grad and not frozen
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=trained)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer
    return copy.deepcopy(model, memo)


def attach(
    program: Program,
    backbone: PreTrainedModel,
    parts: Parts,
    heads: Mapping[str, ResolvedHead],
    context: CallContext,
) -> tuple[nn.Module, dict[str, FlexHead]]:
    """Attach every primitive at its site; returns the copy and the heads that are new.

    `heads` has one entry per composition of the program, "" if there is only one.
    """
    whole = copy_structure(backbone)
    base = whole.base_model
    facts = program.facts
    own = "backbone" in heads.values()
    if base is whole and not own:
        whole = base = _without_head(whole)
    if own and whole.get_output_embeddings() is None and base is whole:
        help = "load the backbone with its head, for example with `AutoModelForMaskedLM`"
        raise Failed(AC508.at(what="head=backbone", help=help))
    for site, node in sorted(
        program.sites.items(), key=lambda item: _nesting_order(item[0], facts)
    ):
        if not facts.layout.sites[site.name].is_outside_base:
            attach_at(base, site, facts, node, build_module(node, parts), context)
        elif own:
            attach_at(whole, site, facts, node, build_module(node, parts), context)
    wrap_branched_layers(base, program)
    longer = extend_input(base, facts, context, has_own_head=own)
    if own and longer is not base:
        replace_module(whole, whole.base_model_prefix, longer)
    flexible: dict[str, FlexHead] = {}
    for index, (name, head) in enumerate(heads.items()):
        if isinstance(head, Head):
            last = _branch_primitive(program.sites.get(HEAD_SITE), index)
            inverse = None if last is None else build_module(last, parts)
            flexible[name] = _build_head(head, base, facts, inverse)
    return whole if own else longer, flexible


def _without_head(model: PreTrainedModel) -> PreTrainedModel:
    """The base model of a class that keeps its layers next to the head, as T5's classes do."""
    with torch.device("meta"):
        bare: PreTrainedModel = AutoModel.from_config(model.config)
    names = [name for name, _ in bare.named_children()]
    if names == [name for name, _ in model.named_children()]:
        return model
    for name in names:
        setattr(bare, name, getattr(model, name))
    return bare.train(model.training)


def _nesting_order(site: Site, facts: Facts) -> int:
    """Sort key of sites that share a module: the lowest is wrapped first.

    A change of a map or a norm is part of the map itself, so it comes first. Sub-layers, virtual
    tokens, and what stands in front of a vocabulary come last, around all else that stands there
    and at the norms behind.
    """
    kind = facts.layout.sites[site.name].kind
    if kind in ("linear", "lookup", "norm"):
        return 0
    return 2 if kind in ("sublayer", "tokens", "vocabulary") else 1


def _branch_primitive(node: Primitive | None, index: int) -> Primitive | None:
    return node.members[index] if isinstance(node, Rows) else node


def _build_head(
    head: Head, base: nn.Module, facts: Facts, inverse: PrimitiveModule | None
) -> FlexHead:
    pooler = getattr(base, facts.layout.pooler or "pooler", None)
    if head.config.get("use_pooler") and pooler is None:
        help = "load the backbone with `AutoModel`, which builds the pooler"
        raise Failed(
            AC416.at(name=head.part, kind=f"{head.head_type} that reads a pooler", help=help)
        )
    return FlexHead(head, facts, inverse)
