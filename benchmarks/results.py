"""What was measured, as values that go into the JSON, and what is read off them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any

from cases import Case, Shape, cases

ENVIRONMENT = {"ours": "ours", "literal": "ours", "adapters": "adapters", "peft": "peft"}
"""In which process a contestant runs; each has an untouched model of its own beside it."""

PLACE = ("family", "name", "step", "batch")


def place(case: Case) -> tuple[str, ...]:
    """What tells a case from all others."""
    return tuple(getattr(case, name) for name in PLACE)


@dataclass
class Result:
    """One contestant in one case. `seconds` has one number a round; `unable` says why none.

    `made` are the seconds of loading and composing, `peak` the growth of memory in the first run,
    `score` the largest fusion score, `difference` the largest one to our output or loss.
    """

    case: Case
    contestant: str
    device: str
    tokens: tuple[int, int]
    seconds: list[float] = field(default_factory=list)
    unable: str | None = None
    made: float = 0.0
    peak: int | None = None
    weights: int = 0
    trained: int = 0
    score: float | None = None
    difference: float | None = None
    losses: list[float] = field(default_factory=list)

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)


class Results(Sequence[Result]):
    """All results, with the ratios to the untouched model of the same environment and rounds."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = list(results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def find(self, contestant: str, family: str, name: str, step: str, batch: str) -> Result | None:
        """A result on the CPU, if it was measured."""
        for result in self.results:
            same = (result.contestant, result.device) == (contestant, "cpu")
            if same and place(result.case) == (family, name, step, batch) and result.seconds:
                return result
        return None

    def plain(self, result: Result) -> Result | None:
        """What the result is a ratio to."""
        for other in self.results:
            if (
                other.case.kind == "plain"
                and other.seconds
                and other.contestant == ENVIRONMENT[result.contestant]
                and other.device == result.device
                and (other.case.family, other.case.batch) == (result.case.family, result.case.batch)
            ):
                return other
        return None

    def ratio(self, result: Result | None) -> float | None:
        """Of the minima."""
        plain = None if result is None else self.plain(result)
        if result is None or plain is None or not result.seconds:
            return None
        return result.minimum / plain.minimum

    def median_ratio(self, result: Result) -> float | None:
        """The median over the rounds of each round's ratio."""
        plain = self.plain(result)
        if plain is None or not result.seconds:
            return None
        return median(a / b for a, b in zip(result.seconds, plain.seconds, strict=True))

    def documents(self) -> Iterator[dict[str, Any]]:
        """For the JSON."""
        for result in self.results:
            document = asdict(result)
            case = document.pop("case")
            adapters = case.pop("adapters")
            yield (
                case
                | {"adapters": len(adapters)}
                | document
                | {
                    "minimum": min(result.seconds, default=None),
                    "median": result.median if result.seconds else None,
                    "ratio": self.ratio(result),
                    "median_ratio": self.median_ratio(result),
                }
            )


def earlier(documents: Sequence[dict[str, Any]], shape: Shape) -> list[Result]:
    """The results of an earlier JSON, but for cases that are none any more."""
    found: list[Result] = []
    families = dict.fromkeys(document["family"] for document in documents)
    known = {place(case): case for family in families for case in cases(shape, family)}
    names = [one.name for one in fields(Result) if one.name not in ("case", "tokens")]
    for document in documents:
        case = known.get(tuple(document[name] for name in PLACE))
        if case is not None:
            values = {name: document[name] for name in names}
            found.append(Result(case, tokens=tuple(document["tokens"]), **values))
    return found


def compare_losses(results: Sequence[Result]) -> None:
    """The largest relative difference to our losses, step by step from equal weights."""
    ours = {
        (result.device, result.case.family, result.case.key): result.losses
        for result in results
        if result.contestant == "ours"
    }
    for result in results:
        mine = ours.get((result.device, result.case.family, result.case.key), [])
        if result.contestant in ("literal", "adapters") and result.losses and mine:
            pairs = zip(mine, result.losses, strict=False)
            result.difference = max(abs(a - b) / abs(a) for a, b in pairs)
