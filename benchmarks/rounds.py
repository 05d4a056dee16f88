"""Prepares a family of cases everywhere, compares the outputs, and takes turns round by round."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cases import CONTESTANTS, Case, Shape, cases
from results import ENVIRONMENT, Result
from workers import Worker


class Family:
    """The cases of a family on one device, by all contestants whose environment is there."""

    def __init__(
        self, name: str, shape: Shape, workers: Mapping[str, Worker], device: str, scratch: Path
    ) -> None:
        self.name, self.shape, self.workers = name, shape, workers
        self.device, self.scratch = device, scratch
        self.results: list[Result] = []

    def measure(self, rounds: int) -> list[Result]:
        found = cases(self.shape, self.name)
        names = {name for case in found for name in (*case.adapters, case.fusion or "")} - {""}
        self._ask("ours", "write", names=sorted(names))
        for case in found:
            self._prepare(case)
        # the same order with another start each round, so that nobody is always first
        able = [result for result in self.results if result.unable is None]
        for number in range(rounds):
            start = number * len(able) // rounds
            self._round([*able[start:], *able[:start]], f"{self.name} {number + 1}/{rounds}")
        for worker in self.workers.values():
            worker.ask("release")
        return self.results

    def _ask(self, who: str, question: str, /, **arguments: object) -> dict[str, object]:
        answer = self.workers[ENVIRONMENT[who]].ask(question, **arguments)
        if question != "prepare" and "unable" in answer:
            raise SystemExit(f"{who}, {question}: {answer['unable']}")
        return answer

    def _prepare(self, case: Case) -> None:
        """Outputs of all who can, held against ours."""
        first: Path | None = None
        for contestant in CONTESTANTS:
            if ENVIRONMENT[contestant] not in self.workers:
                continue
            tokens = self.shape.batches[case.batch]
            result = Result(case, contestant, self.device, tokens)
            if contestant not in case.by:
                if case.kind != "plain":
                    result.unable = "left out to keep the run short"
                    self.results.append(result)
                continue
            file = self.scratch / f"{contestant}.safetensors"
            file.unlink(missing_ok=True)
            answer = self._ask(
                contestant, "prepare", contestant=contestant, case=asdict(case), file=str(file)
            )
            self._note(result, answer)
            if contestant == "ours" and file.exists():
                first = file
            elif first is not None and file.exists() and comparable(case, contestant):
                compared = self._ask("ours", "compare", first=str(first), second=str(file))
                result.difference = compared["difference"]  # type: ignore[assignment]
            self.results.append(result)

    def _note(self, result: Result, answer: dict[str, object]) -> None:
        for name in ("unable", "made", "peak", "weights", "trained", "score"):
            if name in answer:
                setattr(result, name, answer[name])
        if "loss" in answer:
            result.losses.append(float(answer["loss"]))  # type: ignore[arg-type]
        where = f"{result.case.key}, {result.contestant}"
        say(f"{where}: {result.unable or str(answer['first'])[:5] + ' s'}")

    def _round(self, order: list[Result], title: str) -> None:
        start = time.perf_counter()
        fastest: dict[int, float] = {}
        for turn in range(max((result.case.turns for result in order), default=0)):
            for number, result in enumerate(order):
                if result.case.turns <= turn:
                    continue
                key = result.case.key
                answer = self._ask(result.contestant, "time", contestant=result.contestant, key=key)
                seconds = float(answer["seconds"])  # type: ignore[arg-type]
                fastest[number] = min(seconds, fastest.get(number, seconds))
                if result.case.step == "training":
                    result.losses.append(float(answer["loss"]))  # type: ignore[arg-type]
        for number, seconds in fastest.items():
            order[number].seconds.append(seconds)
        say(f"{title}: {time.perf_counter() - start:.0f} s")


def comparable(case: Case, contestant: str) -> bool:
    """PEFT computes another adapter; its backbone alone is the same."""
    return contestant != "peft" or case.kind == "plain"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
