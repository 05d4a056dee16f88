"""`make soak`: random compositions, compiled and literal, then every random test many times over.

    .venv/bin/python -m tests.soak [--seed 20260101] [--count 5000] [--times 40]

What is printed is a page to keep, docs/soak.txt; what pytest says on the way goes to stderr. The
exit code is 0 only if everything held.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

LIBRARIES = ("adaptcompose", "torch", "transformers", "hypothesis")
KEPT = 8  # of what became of the texts of a test, so many kinds are named


class Page:
    """The outcome of random tests, a line each, collected while pytest runs them."""

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self.reports.append(report)

    def lines(self) -> Iterator[str]:
        """The tests that tried something by file, then how many others there were, and the sum."""
        tried = sorted((one for one in self.reports if counts(one)), key=lambda one: one.nodeid)
        file = ""
        for one in tried:
            path, _, name = one.nodeid.partition("::")
            if path != file:
                yield path
            file, seconds = path, dict(one.user_properties)["seconds"]
            count = sum(counts(one).values())
            yield f"  {name:<64}{count:>9,}{seconds:>8.1f} s{'' if one.passed else '  FAILED'}"
            if "examples" not in counts(one):
                yield f"    {told(counts(one))}"
        others = [one for one in self.reports if not counts(one)]
        passed = sum(one.passed for one in others)
        yield f"and {passed} of {len(others)} tests of long texts and of compiled code"

    def failures(self) -> Iterator[str]:
        for one in self.reports:
            if one.failed:
                yield f"\n{one.nodeid}\n{one.longreprtext}"

    def total(self) -> str:
        every = [counts(one) for one in self.reports]
        examples = sum(one["examples"] for one in every)
        texts = sum(map(Counter.total, every)) - examples
        return f"{examples:,} examples and {texts:,} texts"


def counts(report: pytest.TestReport) -> Counter[str]:
    """What a test has tried."""
    found: dict[str, Any] = dict(report.user_properties)
    return Counter(found.get("tried", {}))


def told(outcomes: Counter[str]) -> str:
    shown = [f"{name} {count:,}" for name, count in outcomes.most_common(KEPT)]
    more = len(outcomes) - len(shown)
    return ", ".join([*shown, *([f"and {more} codes more"] if more > 0 else [])])


def compositions(seed: int, count: int, workers: int) -> bool:
    """Whether random compositions are the same compiled and literal; their page goes to stdout."""
    command = [sys.executable, "-m", "tests.differential", "--seed", str(seed)]
    command += ["--count", str(count), "--workers", str(workers)]
    return subprocess.run(command, check=False).returncode == 0


def properties(seed: int, times: int, workers: int) -> bool:
    """Whether every random test holds with so many times its examples."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "ADAPTCOMPOSE_SEED": str(seed),
        "ADAPTCOMPOSE_SOAK": str(times),
    }
    page, chosen = Page(), "soak or (hypothesis and not slow)"
    spread = ["-n", str(workers), "--dist", "worksteal"]
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([*spread, "-q", "-m", chosen, "tests"], load_plugins=[page])
    print(*page.lines(), *page.failures(), sep="\n")
    print(f"{page.total()}: {'everything holds' if code == 0 else f'pytest ended with {code!r}'}")
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    today = int(datetime.date.today().strftime("%Y%m%d"))
    parser.add_argument("--seed", type=int, default=today)
    parser.add_argument("--count", type=int, default=5000, help="compositions")
    parser.add_argument("--times", type=int, default=40, help="so many times the examples")
    parser.add_argument("--workers", type=int, default=2)
    given, started = parser.parse_args(), time.perf_counter()
    print(f"{datetime.date.today()}, seed {given.seed}, {given.workers} workers")
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    print(f"Python {platform.python_version()}, {versions}\n", flush=True)
    same = compositions(given.seed, given.count, given.workers)
    print(f"\nRandom tests, {given.times} times the usual: examples, processor time", flush=True)
    held = properties(given.seed, given.times, given.workers)
    print(f"{(time.perf_counter() - started) / 60:.0f} minutes")
    return 0 if same and held else 1


if __name__ == "__main__":
    sys.exit(main())
