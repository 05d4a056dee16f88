"""What the project promises of its speed, and whether these figures keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from results import Result, Results

EXACT = 1e-5


@dataclass(frozen=True)
class Criterion:
    """`value` is to be at most `limit`, and at least `least`; None where it was not measured."""

    text: str
    limit: float
    value: float | None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit and (self.least is None or self.value >= self.least)


def quotient(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def criteria(results: Results, shape: str) -> list[Criterion]:
    """All of them, of the CPU's figures; what is said of time is said of bert-base."""
    timed = [*speed(results), *shared(results)] if shape == "bert-base" else []
    return [*timed, *exactness(results)]


def speed(results: Results) -> Iterator[Criterion]:
    def ratio(who: str, family: str, name: str) -> float | None:
        return results.ratio(results.find(who, family, name, "inference", "full"))

    def step(who: str, family: str, name: str) -> float | None:
        found = results.find(who, family, name, "training", "full")
        return None if found is None else found.minimum

    one = step("ours", "base", "one adapter")
    fused = step("ours", "fuse", "fuse 8")
    yield Criterion("fuse of 8, × plain", 1.15, ratio("ours", "fuse", "fuse 8"))
    yield Criterion("fuse of 32, × plain", 1.65, ratio("ours", "fuse", "fuse 32"))
    peer = quotient(fused, step("adapters", "fuse", "fuse 8"))
    yield Criterion("training step of fuse of 8, × the step of `adapters`", 0.45, peer)
    yield Criterion("training step of fuse of 8, × one adapter's step", 1.8, quotient(fused, one))
    cached = quotient(step("ours", "base", "drop 5, cached trunk"), one)
    yield Criterion("step of drop(bottom=5), cached trunk, × one adapter's step", 0.65, cached)
    for name in ("one adapter", "stack"):
        mine, theirs = ratio("ours", "base", name), ratio("adapters", "base", name)
        more = None if mine is None or theirs is None else mine - theirs
        yield Criterion(f"{name}, × plain, above that of `adapters`", 0.01, more)


def shared(results: Results) -> Iterator[Criterion]:
    """What rows and branches cost together."""
    side = results.ratio(
        results.find("ours", "parallel", "parallel 8, drop 5", "inference", "full")
    )
    expected = (5 + 7 * 8) / 12
    text = "parallel of 8 with drop(bottom=5), × (5 + 7·8)/12 of plain"
    yield Criterion(text, 1.05, quotient(side, expected))
    found: list[Result | None] = [
        results.find("ours", "route", name, "inference", "rows")
        for name in ("route 64", "one adapter")
    ]
    seconds = [None if result is None else result.minimum for result in found]
    text = "route over 64 at 64×128, × the batch with one adapter"
    yield Criterion(text, 1.15, quotient(*seconds))


def exactness(results: Results) -> Iterator[Criterion]:
    """That the figures are of one computation."""

    def largest(keep: Callable[[Result], bool]) -> float | None:
        kept = [r.difference for r in results if r.difference is not None and keep(r)]
        return max(kept, default=None)

    for who in ("literal", "adapters"):
        name = "the literal form" if who == "literal" else "`adapters`"

        def of(result: Result, who: str = who, step: str = "inference") -> bool:
            return result.contestant == who and result.case.step == step and result.device == "cpu"

        text = f"outputs, largest difference to {name}, of the largest value"
        yield Criterion(text, EXACT, largest(of))
        losses = largest(lambda result, of=of: of(result, step="training"))  # type: ignore[misc]
        yield Criterion(f"training losses, largest difference to {name}", EXACT, losses)
    scores = [result.score for result in results if result.score is not None]
    yield Criterion("largest fusion score", 30.0, max(scores, default=None), least=5.0)
    yield Criterion("largest score of the smallest fusion", 30.0, min(scores, default=None), 5.0)
