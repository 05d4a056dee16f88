"""How long `adaptcompose check` takes from a cold process, beside what peers need to be imported.

    .venv/bin/python benchmarks/check.py [--runs 9]

Every figure is the time of whole processes, one after another, on a machine that does nothing else;
files are in the disk cache, and all modules have their bytecode, as pip leaves them. A peer whose
environment is not there is left out: `.venv-peft` and `.venv-peer` beside the checkout (see the
Makefile).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.4
SPEC = "examples/quickstart.yaml"
SMALL = "examples/demo/specs/ner.yaml"
EXPRESSION = "stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=5)"
HEAVY = ("torch", "transformers", "huggingface_hub", "numpy", "rich")


def commands() -> dict[str, list[str]]:
    """What is measured, by the name of its row."""
    ours = [sys.executable, "-m", "adaptcompose", "check"]
    found = {
        f"adaptcompose check '{EXPRESSION}'": [*ours, EXPRESSION],
        f"adaptcompose check {SMALL}": [*ours, SMALL],
        f"adaptcompose check {SPEC}": [*ours, SPEC],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    }
    for module, folder in (("peft", ".venv-peft"), ("adapters", ".venv-peer")):
        python = ROOT / folder / "bin" / "python"
        if python.exists():
            found[f"python -c 'import {module}'"] = [str(python), "-c", f"import {module}"]
    return found


def seconds(command: list[str]) -> tuple[float, float]:
    """The wall time and the processor time of one process, which has to succeed."""
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, os.times()
    used = after.children_user - before.children_user
    return wall, used + after.children_system - before.children_system


def heavy() -> list[str]:
    """What is heavy and was imported by a check of a spec."""
    script = (
        "import sys; from adaptcompose.cli import main as cli;"
        f"cli.main(['check', {SPEC!r}]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in HEAVY if name in done.stdout.split()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=9, help="processes a row, after one to warm up")
    runs = parser.parse_args().runs
    print("| from a cold process | median s | fastest s | processor s |")
    print("|---|---|---|---|")
    slow = []
    for name, command in commands().items():
        seconds(command)
        found = [seconds(command) for _ in range(runs)]
        median = statistics.median(wall for wall, _ in found)
        fastest, used = (min(times) for times in zip(*found, strict=True))
        print(f"| `{name}` | {median:.2f} | {fastest:.2f} | {used:.2f} |", flush=True)
        if "adaptcompose" in name and median > LIMIT:
            slow.append(name)
    print(f"\nimported by a check, of {', '.join(HEAVY)}: {', '.join(heavy()) or 'nothing'}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in slow:
        print(f"slower than {LIMIT} s: {name}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
