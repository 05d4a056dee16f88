"""Time compositions here, in `adapters` and in PEFT, side by side.

    python benchmarks/run.py                            everything; docs/benchmarks.{md,json,svg}
    python benchmarks/run.py --only fuse,route --rounds 3
    python benchmarks/run.py --shape tiny               a smoke test in seconds

Each environment is a process that waits while another computes. Every round asks each of them once
for each case, so that a slow moment of the machine meets all alike.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from cases import FAMILIES, SHAPES
from criteria import Criterion, criteria
from plot import draw
from report import page, write_page
from results import Results, compare_losses, earlier
from rounds import Family, say
from workers import Worker

ROOT = Path(__file__).resolve().parents[1]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="bert-base")
    parser.add_argument("--only", default="", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("all", "cpu", "cuda"), default="all")
    parser.add_argument("--adapters", type=Path, default=ROOT / ".venv-peer/bin/python")
    parser.add_argument("--peft", type=Path, default=ROOT / ".venv-peft/bin/python")
    parser.add_argument("--without", default="", help="peers to leave out: adapters,peft")
    parser.add_argument("--weights", type=Path, default=ROOT / "build/benchmarks")
    parser.add_argument("--onto", type=Path, help="an earlier benchmarks.json: other families stay")
    parser.add_argument("--out", type=Path, help="docs for all of bert-base, else build/benchmarks")
    given = parser.parse_args()
    given.families = [name for name in given.only.split(",") if name] or list(FAMILIES)
    if unknown := set(given.families) - set(FAMILIES):
        parser.error(f"--only: {', '.join(sorted(unknown))}: not one of {', '.join(FAMILIES)}")
    whole = given.families == list(FAMILIES) and given.shape == "bert-base"
    given.out = given.out or ROOT / ("docs" if whole else "build/benchmarks")
    return given


def start_workers(given: argparse.Namespace, logs: Path) -> dict[str, Worker]:
    """Our process and those of the peers that have an environment."""
    pythons = {"ours": Path(sys.executable), "adapters": given.adapters, "peft": given.peft}
    for name in given.without.split(","):
        pythons.pop(name, None)
    workers = {}
    for name, python in pythons.items():
        if python.is_file():
            workers[name] = Worker(name, python, logs / f"{name}.log", given.threads)
        else:
            say(f"{name} is left out: no {python}; `make benchmarks` makes it")
    return workers


def measure(
    given: argparse.Namespace, workers: dict[str, Worker], scratch: Path
) -> tuple[Results, dict[str, Any], str | None]:
    """All families on the CPU, and on the GPU if every environment sees one."""
    results, versions = [], {}
    devices = ["cpu"] if given.device == "all" else [given.device]
    folder = str(given.weights / given.shape)
    for device in devices:
        cards = []
        for name, worker in workers.items():
            start = {"shape": given.shape, "folder": folder, "device": device}
            answer = worker.ask("start", threads=given.threads, **start)
            if "unable" in answer:
                raise SystemExit(f"{name}: {answer['unable']}")
            versions[name] = answer["versions"]
            cards.append(answer["cuda"])
        if given.device == "all" and all(cards) and "cuda" not in devices:
            devices.append("cuda")
        for name in given.families:
            family = Family(name, SHAPES[given.shape], workers, device, scratch)
            results += family.measure(given.rounds)
    compare_losses(results)
    return Results(results), versions, cards[0]


def processor() -> str:
    """The name that Linux gives it, else Python's."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> int:
    given = read_arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    given.weights.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        workers = start_workers(given, Path(scratch))
        try:
            results, versions, card = measure(given, workers, Path(scratch))
        finally:
            for worker in workers.values():
                worker.close()
    now = datetime.datetime.now(datetime.UTC).isoformat(" ", "minutes")
    times = dict.fromkeys(given.families, now)
    if given.onto is not None:
        before = json.loads(given.onto.read_text())
        kept = [one for one in before["results"] if one["family"] not in given.families]
        every = [*results, *earlier(kept, SHAPES[given.shape])]
        results = Results(sorted(every, key=lambda one: FAMILIES.index(one.case.family)))
        times = before["measured"] | times
    found = criteria(results, given.shape)
    machine = {"processor": processor(), "cores": os.cpu_count(), "threads": given.threads}
    document = {
        "measured": times,
        "shape": given.shape,
        "rounds": given.rounds,
        "machine": machine | {"gpu": card},
        "environments": versions,
        "criteria": [vars(one) | {"met": one.met} for one in found],
        "results": list(results.documents()),
    }
    write(document, results, found, given.out)
    return 0


def write(document: dict[str, Any], results: Results, found: list[Criterion], out: Path) -> None:
    """JSON, plot and page; the page is printed too."""
    (out / "benchmarks.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    plot: Path | None = out / "benchmarks.svg"
    try:
        draw(document, out / "benchmarks.svg")
    except ImportError:
        plot = None
        say("no plot: pip install -r benchmarks/requirements-plot.txt")
    text = page(document, results, found, plot)
    write_page(out / "benchmarks.md", text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
