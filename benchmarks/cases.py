"""What is measured: one `Case` a row of the tables, as data that every environment can read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Step = Literal["inference", "training", "attach"]
Kind = Literal["plain", "one", "stack", "fuse", "parallel", "route", "mixed"]

CONTESTANTS = ("ours", "literal", "adapters", "peft")
LONG_STEP = 16
"""Above so many members a literal training step takes too long to be worth its rounds."""

FAMILIES = ("base", "fuse", "drop", "parallel", "route", "attach")


@dataclass(frozen=True)
class Shape:
    """A backbone, the batches [rows, tokens], and how far the sweeps go."""

    name: str
    config: dict[str, Any]
    batches: dict[str, tuple[int, int]]
    members: tuple[int, ...]
    bottoms: tuple[int, ...]
    bottom: int
    routed: tuple[int, ...]
    headline: int = 8


SHAPES = {
    "bert-base": Shape(
        "bert-base",
        {},
        {"full": (8, 128), "sweep": (2, 128), "rows": (64, 128), "short": (64, 16), "row": (1, 8)},
        members=(2, 4, 8, 16, 32),
        bottoms=tuple(range(12)),
        bottom=5,
        routed=(8, 64, 512),
    ),
    "tiny": Shape(
        "tiny",
        {
            "vocab_size": 60,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 40,
        },
        {"full": (2, 16), "sweep": (2, 8), "rows": (4, 16), "short": (4, 8), "row": (1, 8)},
        members=(2, 4, 8),
        bottoms=(0, 1, 2),
        bottom=1,
        routed=(2, 4, 8),
        headline=4,
    ),
}


@dataclass(frozen=True)
class Case:
    """One composition in one mode on one batch.

    `adapters` are the folders it reads, `fusion` the folder of AdapterFusion's weights; `used` says
    how many of a route's adapters the batch names. `trained` is the part that a training step
    changes; `cached` starts the step at stored states of the trunk. `turns` are the measurements
    a round, of which the smallest counts.
    """

    name: str
    family: str
    kind: Kind
    step: Step
    batch: str
    adapters: tuple[str, ...] = ()
    fusion: str | None = None
    bottom: int = 0
    trained: str | None = None
    cached: bool = False
    turns: int = 1
    by: tuple[str, ...] = field(default=CONTESTANTS)

    @property
    def key(self) -> str:
        """The name that is unique within a family."""
        return f"{self.name} · {self.step} · {self.batch}"


def plain(family: str, batch: str, turns: int = 1) -> Case:
    """The untouched model of transformers, to which everything is a ratio."""
    by = tuple(name for name in CONTESTANTS if name != "literal")
    return Case("plain", family, "plain", "inference", batch, turns=turns, by=by)


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"a{number}" for number in range(count))


def fuse(shape: Shape, count: int, step: Step, batch: str, **more: Any) -> Case:
    trained = f"fusion{count}" if step == "training" else None
    return Case(
        f"fuse {count}", "fuse", "fuse", step, batch, numbered(count), f"fusion{count}",
        trained=trained, **more,
    )  # fmt: skip


def base_cases(shape: Shape) -> Iterator[Case]:
    """One adapter, and a language adapter with its invertible part under a task adapter."""
    yield Case("one adapter", "base", "one", "inference", "full", ("task",), turns=2)
    yield Case("stack", "base", "stack", "inference", "full", ("lang", "task"), turns=2)
    yield Case("one adapter", "base", "one", "training", "full", ("task",), trained="task")
    yield Case("stack", "base", "stack", "training", "full", ("lang", "task"), trained="task")
    yield Case(
        f"drop {shape.bottom}, cached trunk", "base", "one", "training", "full", ("task",),
        bottom=shape.bottom, trained="task", cached=True,
        by=("ours", "adapters", "peft"),
    )  # fmt: skip


def fuse_cases(shape: Shape) -> Iterator[Case]:
    """The middle size in full, the largest in full by us alone, and all sizes on a short batch."""
    yield fuse(shape, shape.headline, "inference", "full")
    yield fuse(shape, shape.headline, "training", "full")
    yield fuse(shape, shape.members[-1], "inference", "full", by=("ours",))
    steps: tuple[Step, ...] = ("inference", "training")
    for step in steps:
        for count in shape.members:
            more = {"by": ("ours",)} if step == "training" and count > LONG_STEP else {}
            yield fuse(shape, count, step, "sweep", **more)


def drop_cases(shape: Shape) -> Iterator[Case]:
    """AdapterDrop: nothing below layer n."""
    steps: tuple[tuple[Step, str | None], ...] = (("inference", None), ("training", "task"))
    for step, trained in steps:
        for bottom in shape.bottoms:
            yield Case(
                f"drop {bottom}", "drop", "one", step, "sweep", ("task",),
                bottom=bottom, trained=trained,
            )  # fmt: skip


def parallel_cases(shape: Shape) -> Iterator[Case]:
    """One input through several adapters, with one trunk below the first adapted layer."""
    yield parallel(shape.headline, shape.bottom, "full")
    for bottom in (0, shape.bottom):
        for count in (size for size in shape.members if size <= 16):
            yield parallel(count, bottom, "sweep")


def parallel(count: int, bottom: int, batch: str) -> Case:
    name = f"parallel {count}" + (f", drop {bottom}" if bottom else "")
    by = ("ours", "adapters", "peft")
    return Case(
        name, "parallel", "parallel", "inference", batch, numbered(count), bottom=bottom, by=by
    )


def route_cases(shape: Shape) -> Iterator[Case]:
    """Another adapter for every row; in full for us alone, the peers on shorter rows."""
    by = ("ours", "adapters", "peft")
    yield Case("one adapter", "route", "one", "inference", "rows", ("task",), by=("ours",))
    yield Case(
        f"route {shape.routed[1]}", "route", "route", "inference", "rows",
        numbered(shape.routed[1]), by=("ours",),
    )  # fmt: skip
    yield Case("one adapter", "route", "one", "inference", "short", ("task",), by=by)
    for count in shape.routed:
        names = numbered(count)
        yield Case(f"route {count}", "route", "route", "inference", "short", names, by=by)
    count = shape.headline
    yield Case(
        f"route of one adapter, fuse {count}, none", "route", "mixed", "inference", "short",
        numbered(count), f"fusion{count}", by=by,
    )  # fmt: skip


def attach_cases(shape: Shape) -> Iterator[Case]:
    """Files to a first answer on a loaded backbone, folding included."""
    count = shape.headline
    yield Case("one adapter", "attach", "one", "attach", "row", ("task",))
    yield Case("stack", "attach", "stack", "attach", "row", ("lang", "task"))
    yield Case(
        f"fuse {count}", "attach", "fuse", "attach", "row", numbered(count), f"fusion{count}"
    )


TABLE = {
    "base": base_cases,
    "fuse": fuse_cases,
    "drop": drop_cases,
    "parallel": parallel_cases,
    "route": route_cases,
    "attach": attach_cases,
}


def cases(shape: Shape, family: str) -> list[Case]:
    """The cases of a family, the plain model of each of its batches first."""
    found = list(TABLE[family](shape))
    turns: dict[str, int] = {}
    for case in found:
        if family not in ("attach",) and case.batch != "rows":
            turns[case.batch] = max(turns.get(case.batch, 1), case.turns)
    return [*(plain(family, batch, count) for batch, count in turns.items()), *found]


MOST_LOADED = 128
"""Peers take minutes to load more adapters than this: their time grows with the square."""


def routed_rows(names: tuple[str, ...], rows: int) -> list[str]:
    """The adapter of every row: evenly spread over the adapters, equal ones side by side."""
    return [names[row * len(names) // rows] for row in range(rows)]
