"""The head of a composition: an adapter's, the backbone's, or a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from adaptcompose.composition.graph import Block, Head, adapters_of
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed

HeadChoice = str | Mapping[str, Any] | Head | None
ResolvedHead = Head | Literal["backbone"] | None

HEAD_TYPES_BY_TASK = {
    "text-classification": "classification",
    "token-classification": "tagging",
    "masked-lm": "masked_lm",
}
"""The type of head that each kind of task needs."""

VOCABULARY_HEAD_TYPES = ("masked_lm", "causal_lm", "seq2seq_lm")
"""Types of head that end in a vocabulary matrix."""

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
"""The name of a new head, among the names of the parts."""


def new_head(task: str, labels: Sequence[str] = (), **settings: Any) -> Head:
    """Make a new head for a kind of task, with the defaults of the library `adapters`.

    `settings` override the defaults. Raises Failed with AC604 for an unknown kind of task.

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
    """The head that a choice means for a graph.

    A choice is "auto", "backbone", the name of an adapter, a head, the task and labels of a new
    head, or None. Raises Failed with AC508 for the name of an adapter without a head.
    """
    if choice is None or isinstance(choice, Head):
        return choice
    if isinstance(choice, Mapping):
        return new_head(str(choice["task"]), tuple(choice.get("labels") or ()))
    if choice == "backbone":
        return "backbone"
    if choice == "auto":
        return graph.default_head
    heads = {name: leaf.head for name, leaf in adapters_of(graph).items() if leaf.head is not None}
    if choice not in heads:
        names = ", ".join([*heads, "auto", "backbone"])
        raise Failed(codes.AC508.at(what=f"`head={choice!r}`", help=f"use one of {names}"))
    return heads[choice]


def choose_heads(graph: Block, choice: HeadChoice) -> dict[str, ResolvedHead]:
    """The head of each branch of a graph by name; a graph without branches has one, named "".

    A mapping from branch names chooses a head for each branch.
    """
    branches = graph.branches
    if not branches:
        return {"": choose_head(graph, choice)}
    if isinstance(choice, Mapping) and set(choice) <= set(branches):
        return {name: choose_head(branches[name], choice.get(name)) for name in branches}
    return {name: choose_head(block, choice) for name, block in branches.items()}


def needs_inverse(head: ResolvedHead) -> bool:
    """True if a head predicts the vocabulary, so that invertible parts are inverted before it."""
    return head == "backbone" or (
        isinstance(head, Head) and head.head_type in VOCABULARY_HEAD_TYPES
    )
