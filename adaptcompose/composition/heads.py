"""Which head a composition has: brought by an adapter, the backbone's own, or a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from adaptcompose.composition.graph import Adapter, Block, Head, Published, adapters_of
from adaptcompose.composition.operator import Modifier
from adaptcompose.composition.operators import Stack
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed

HeadChoice = str | Mapping[str, Any] | Head | None
ResolvedHead = Head | Literal["backbone"] | None

HEAD_TYPES_BY_TASK = {
    "text-classification": "classification",
    "token-classification": "tagging",
    "masked-lm": "masked_lm",
}
"""Kinds of task, and the kinds of head that do them."""

VOCABULARY_HEAD_TYPES = ("masked_lm", "causal_lm", "seq2seq_lm")
"""Kinds of head that end in a vocabulary matrix."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "classification": {
        "layers": 2,
        "activation_function": "tanh",
        "use_pooler": False,
        "bias": True,
        "dropout_prob": None,
    },
    "tagging": {"layers": 1, "activation_function": "tanh", "dropout_prob": None},
    "masked_lm": {
        "layers": 2,
        "activation_function": "gelu",
        "layer_norm": True,
        "bias": True,
        "shift_labels": False,
    },
}

NEW_HEAD_NAME = "head"
"""The name of a new head among the parts."""


def new_head(task: str, labels: Sequence[str] = (), **settings: Any) -> Head:
    """A new head for a kind of task, as `adapters` sets one up by default.

    >>> new_head("token-classification", ["O", "B-PER"]).labels
    ('O', 'B-PER')
    """
    if task not in HEAD_TYPES_BY_TASK:
        raise Failed(codes.AC604.at(name=task, known=", ".join(HEAD_TYPES_BY_TASK)))
    kind = HEAD_TYPES_BY_TASK[task]
    config: dict[str, Any] = {"head_type": kind} | _DEFAULTS[kind] | settings
    if labels:
        by_name = {label: number for number, label in enumerate(labels)}
        config |= {"num_labels": len(labels), "label2id": by_name}
    return Head(NEW_HEAD_NAME, config)


def choose_head(graph: Block, choice: HeadChoice) -> ResolvedHead:
    """Which head a choice means for this graph."""
    if choice is None or isinstance(choice, Head):
        return choice
    if isinstance(choice, Mapping):
        return new_head(str(choice["task"]), tuple(choice.get("labels") or ()))
    if choice == "backbone":
        return "backbone"
    if choice == "auto":
        return head_of(graph)
    leaves = adapters_of(graph)
    known = {name: leaf.head for name, leaf in leaves.items() if leaf.head is not None}
    if choice not in known:
        names = ", ".join([*known, "auto", "backbone"])
        raise Failed(codes.AC508.at(what=f"`head={choice!r}`", help=f"use one of {names}"))
    return known[choice]


def choose_heads(graph: Block, choice: HeadChoice) -> dict[str, ResolvedHead]:
    """Which head each composition of a graph has; of a graph that is one composition, by "".

    A mapping of branch names gives each branch a choice of its own.
    """
    branches = graph.branches
    if not branches:
        return {"": choose_head(graph, choice)}
    if isinstance(choice, Mapping) and set(choice) <= set(branches):
        return {name: choose_head(branches[name], choice.get(name)) for name in branches}
    return {name: choose_head(block, choice) for name, block in branches.items()}


def needs_inverse(head: ResolvedHead) -> bool:
    """Whether invertible parts are undone in front of a head: of a language model's vocabulary."""
    return head == "backbone" or (
        isinstance(head, Head) and head.head_type in VOCABULARY_HEAD_TYPES
    )


def head_of(graph: Block) -> Head | None:
    """The head of the last part of the outermost stack that brings one.

    Members of fuse give none: what they were trained for is not what the fusion is for.
    """
    if isinstance(graph, Adapter):
        return graph.head
    if isinstance(graph, Published) and graph.head is not None:
        return graph.head.head
    if isinstance(graph, Modifier | Published):
        return head_of(graph.body)
    if isinstance(graph, Stack):
        found = (head_of(slot.block) for slot in reversed(graph.members))
        return next((head for head in found if head is not None), None)
    return None
