"""The environments as processes, asked one at a time over pipes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """A process that stays until it is closed; it waits on its pipe while others compute."""

    def __init__(self, name: str, python: Path, log: Path, threads: int) -> None:
        self.name, self.log = name, log
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "XDG_CACHE_HOME": str(log.parent),  # states of a cached trunk are not kept
            "TOKENIZERS_PARALLELISM": "false",
        }
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(python), str(WORKER), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )

    def ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        """The answer of `Worker.<question>` of worker.py."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"ask": question} | arguments) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SystemExit(f"the process of {self.name} ended at {question}:\n{last}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
