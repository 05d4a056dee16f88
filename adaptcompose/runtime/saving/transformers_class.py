"""The transformers class that an adapter belongs to, by which PEFT reads its file.

PEFT finds tensors by whole paths, which differ between classes: of the base model, of the one that
has the backbone's own head, or of the one that has a head like the adapter's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from adaptcompose.backbones.layout import Facts
from adaptcompose.formats import peft_heads
from adaptcompose.formats.peft_modules import ModelClass
from adaptcompose.formats.transformers_heads import from_slots, undo_scale
from adaptcompose.runtime.heads import FlexHead
from adaptcompose.runtime.model import ComposedModel


def class_for_part(model: ComposedModel, head: FlexHead | None = None) -> ModelClass:
    """The class for a part of a composition, with the tensors of its head."""
    facts = model.composition.facts
    heads = model.composition.heads.values()
    if heads and all(chosen == "backbone" for chosen in heads):
        return _class_of_model(model.composition.backbone, facts)
    name = None if head is None else peft_heads.class_of(head.config, facts)
    if head is None or name is None:
        return ModelClass()
    scale = 1 / facts.layout.scale(facts.config) if facts.layout.scale else 1.0
    slots = undo_scale({"model_class": name}, head.tensors(), scale)
    return class_by_name(name, model.composition.backbone.config, facts, from_slots(name, slots))


def class_by_name(name: str, config: Any, facts: Facts, head: Mapping[str, Tensor]) -> ModelClass:
    """A class by its name, with the tensors of its head."""
    with torch.device("meta"):
        found = _class_of_model(getattr(transformers, name)(config), facts)
    return replace(found, name=name, head=head)


def _class_of_model(model: Any, facts: Facts) -> ModelClass:
    """A class by one of its models."""
    paths = {id(module): path for path, module in model.named_modules()}
    vocabularies = set(facts.layout.vocabulary).intersection(paths.values())
    base: nn.Module = model.base_model
    task = peft_heads.task_of(type(model).__name__, facts)
    return ModelClass(task, paths.get(id(base), ""), next(iter(vocabularies), ""))
