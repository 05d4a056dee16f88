"""Heads in PEFT's files: modules of transformers' classes, saved whole along with an adapter.

A file records the task of the class, or, if PEFT has no name for the task, that of the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adaptcompose.backbones.layout import Facts
from adaptcompose.formats import transformers_heads
from adaptcompose.formats.peft_modules import STEM

TASKS = {
    "SEQ_CLS": ("ForSequenceClassification",),
    "TOKEN_CLS": ("ForTokenClassification",),
    "QUESTION_ANS": ("ForQuestionAnswering",),
    "CAUSAL_LM": ("LMHeadModel", "ForCausalLM"),
    "SEQ_2_SEQ_LM": ("ForConditionalGeneration",),
}
"""The endings of transformers' class names (after the name of the family) by PEFT's task."""

_STEMS = (STEM, "base_model.")
"""The prefixes of keys: in adapters of weights, and in those of virtual tokens."""


@dataclass(frozen=True)
class StoredHead:
    """The head in a file: its class, the flexible head that it means, and its keys by slot.

    All are empty if the file has no head.
    """

    name: str = ""
    config: Mapping[str, Any] | None = None
    slots: Mapping[str, str] = field(default_factory=dict)


def class_prefix(facts: Facts) -> str:
    """The prefix of the names of a family's classes in transformers."""
    return str(facts.layout.adapterhub.get(facts.model_type, "")).removesuffix("AdapterModel")


def find(
    config: Mapping[str, Any], facts: Facts, left: Mapping[str, tuple[int, ...]]
) -> StoredHead:
    """The head whose modules are among the tensors `left` in a file."""
    family = class_prefix(facts)
    names = [f"{family}{task}" for task in TASKS.get(str(config.get("task_type")), ())]
    mapping = config.get("auto_mapping")
    if isinstance(mapping, Mapping) and str(mapping.get("base_model_class")).startswith(family):
        names.append(str(mapping["base_model_class"]))
    name = next((name for name in names if name in transformers_heads.STATIC_HEADS), None)
    if name is None:
        return StoredHead()
    static = transformers_heads.STATIC_HEADS[name]
    slots = {
        f"{slot}.{kind}": f"{stem}{module}.{kind}"
        for slot, module in static.slots.items()
        for kind in ("weight", "bias")
        for stem in _STEMS
        if f"{stem}{module}.{kind}" in left
    }
    last = slots.get(f"{max(static.slots)}.weight")
    if last is None or not left[last]:
        return StoredHead()
    count = {} if static.kind == "multiple_choice" else {"num_labels": left[last][0]}
    return StoredHead(
        name, transformers_heads.flexible_config({"model_class": name} | count), slots
    )


def class_of(config: Mapping[str, Any], facts: Facts) -> str | None:
    """The class with a flexible head's settings, if PEFT can store all of its head.

    It cannot store the heads of masked language models, which have a bias in two places.
    """
    name = transformers_heads.class_of(config, class_prefix(facts))
    if name is None or (
        transformers_heads.STATIC_HEADS[name].kind.endswith("_lm") and config.get("bias")
    ):
        return None
    return name


def task_of(name: str, facts: Facts) -> str | None:
    """PEFT's name of the task of a class."""
    ending = name.removeprefix(class_prefix(facts))
    return next((task for task, endings in TASKS.items() if ending in endings), None)
