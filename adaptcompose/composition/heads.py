"""Which head a composition has: brought by an adapter, the backbone's own, or a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from adaptcompose.composition.graph import Adapter, Block, Head, Published, adapters
from adaptcompose.composition.operator import Modifier
from adaptcompose.composition.operators import Stack
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed

HeadChoice = str | Mapping[str, Any] | Head | None
Chosen = Head | Literal["backbone"] | None

KINDS = {
    "text-classification": "classification",
    "token-classification": "tagging",
    "masked-lm": "masked_lm",
}
"""Kinds of task, and the kinds of head that do them."""

VOCABULARIES = ("masked_lm", "causal_lm", "seq2seq_lm")
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

NEW = "head"
"""The name of a new head among the parts."""


def new_head(task: str, labels: Sequence[str] = (), **settings: Any) -> Head:
    """A new head for a kind of task, as `adapters` sets one up by default.

    >>> new_head("token-classification", ["O", "B-PER"]).labels
    ('O', 'B-PER')
    """
    if task not in KINDS:
        raise Failed(codes.AC604.at(name=task, known=", ".join(KINDS)))
    kind = KINDS[task]
    config: dict[str, Any] = {"head_type": kind} | _DEFAULTS[kind] | settings
    if labels:
        by_name = {label: number for number, label in enumerate(labels)}
        config |= {"num_labels": len(labels), "label2id": by_name}
    return Head(NEW, config)


def choose_head(graph: Block, wanted: HeadChoice) -> Chosen:
    """Which head a choice means for this graph."""
    if wanted is None or isinstance(wanted, Head):
        return wanted
    if isinstance(wanted, Mapping):
        return new_head(str(wanted["task"]), tuple(wanted.get("labels") or ()))
    if wanted == "backbone":
        return "backbone"
    if wanted == "auto":
        return head_of(graph)
    leaves = adapters(graph)
    known = {name: leaf.head for name, leaf in leaves.items() if leaf.head is not None}
    if wanted not in known:
        names = ", ".join([*known, "auto", "backbone"])
        raise Failed(codes.AC508.at(what=f"head={wanted!r}", help=f"heads: {names}"))
    return known[wanted]


def heads_of(graph: Block, wanted: HeadChoice) -> dict[str, Chosen]:
    """Which head each composition of a graph has; of a graph that is one composition, by "".

    A mapping of branch names gives each branch a choice of its own.
    """
    branches = graph.branches
    if not branches:
        return {"": choose_head(graph, wanted)}
    if isinstance(wanted, Mapping) and set(wanted) <= set(branches):
        return {name: choose_head(branches[name], wanted.get(name)) for name in branches}
    return {name: choose_head(block, wanted) for name, block in branches.items()}


def needs_inverse(head: Chosen) -> bool:
    """Whether invertible parts are undone in front of a head: of a language model's vocabulary."""
    return head == "backbone" or (isinstance(head, Head) and head.kind in VOCABULARIES)


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
