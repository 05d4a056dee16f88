"""Put a program to work on a copy of a stock model that shares all its storage."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

from torch import nn
from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.program import Program
from adaptcompose.language.codes import AC416, AC508
from adaptcompose.language.diagnostics import Failed
from adaptcompose.language.graph import Head
from adaptcompose.methods.invertible import HEAD
from adaptcompose.runtime import folded as _folded  # noqa: F401 - it registers itself
from adaptcompose.runtime.heads import FlexHead
from adaptcompose.runtime.parts import Parts
from adaptcompose.runtime.primitives import Running, running
from adaptcompose.runtime.sites import Input, Output, SubLayer

M = TypeVar("M", bound=nn.Module)


def copy_structure(model: M, *, frozen: bool = True) -> M:
    """A model of the same modules over the same tensors: nothing is copied but the structure.

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
    head: Head | Literal["backbone"] | None,
) -> tuple[nn.Module, FlexHead | None]:
    """The copy with the program's primitives at its sites, and the head if it is not the copy's."""
    whole = copy_structure(backbone)
    base = whole.base_model
    adapters = {site: running(node, parts) for site, node in program.sites.items()}
    for site, adapter in adapters.items():
        if site != HEAD:
            _install(base, site, adapter, program)
    inverse = adapters.get(HEAD)
    if head == "backbone":
        if base is whole:
            help = "load it with its head, for instance with AutoModelForMaskedLM"
            raise Failed(AC508.at(what="head=backbone", help=help))
        if inverse is not None:
            _install_inverse(whole, program.facts, inverse)
        return whole, None
    if head is None:
        return base, None
    pooler = getattr(base, program.facts.layout.pooler or "pooler", None)
    if head.config.get("use_pooler") and pooler is None:
        help = "its checkpoint or its class has no pooler: give AutoModel's"
        raise Failed(AC416.at(name=head.part, kind=f"{head.kind} on the pooler", help=help))
    return base, FlexHead(head, program.facts, inverse)


def _install(base: nn.Module, site: Site, adapter: Running, program: Program) -> None:
    path = program.facts.layout.path(site)
    stock = base.get_submodule(path)
    kind = program.facts.layout.sites[site.name].kind
    if kind == "sublayer":
        finish = program.sites[site].placement.finish
        base.set_submodule(path, SubLayer(stock, adapter, finish=finish))
    else:
        assert kind == "output", f"no {kind} site is attached by a method yet"
        base.set_submodule(path, Output(stock, adapter))


def _install_inverse(whole: nn.Module, facts: Facts, inverse: Running) -> None:
    """In front of the vocabulary matrix; a model with another head needs no inverse."""
    names = {name for name, _ in whole.named_modules()}
    for path in facts.layout.vocabulary:
        if path in names:
            whole.set_submodule(path, Input(whole.get_submodule(path), inverse))
