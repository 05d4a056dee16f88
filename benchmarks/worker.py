"""One environment as a process: a line of JSON in, a line of JSON out, and nothing in between.

    python worker.py ours|adapters|peft

It computes only while it is asked, so that of several workers one computes at a time.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch
from cases import SHAPES, Case
from measure import UnableError, Work, make_batch, timed, with_peak
from safetensors.torch import load_file, save_file
from transformers.utils import logging


class Worker:
    """Answers one question a line."""

    def __init__(self, name: str) -> None:
        self.module = importlib.import_module(f"with_{name}")
        self.works: dict[str, Work] = {}
        self.environment: Any = None
        self.device = "cpu"
        self.shape = ""

    def start(self, shape: str, folder: str, device: str, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.device, self.shape = device, shape
        self.environment = self.module.Environment(shape, Path(folder), device)
        with torch.no_grad():  # so that reading the weights counts as nobody's memory
            backbone = self.environment.backbone
            backbone(**make_batch(1, 8, backbone.config.vocab_size, device))
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return {"versions": self.environment.versions(), "cuda": name}

    def write(self, names: list[str]) -> dict[str, Any]:
        self.environment.write(names)
        return {}

    def prepare(self, contestant: str, case: dict[str, Any], file: str) -> dict[str, Any]:
        """Make a case, run it once for its output and its memory; the output goes to the file."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in case.items()
        }
        known = Case(**fields)
        rows, tokens = SHAPES[self.shape].batches[known.batch]
        vocabulary = self.environment.backbone.config.vocab_size
        start = time.perf_counter()
        work = self.environment.make(
            contestant, known, make_batch(rows, tokens, vocabulary, self.device)
        )
        made = time.perf_counter() - start
        if work.scores is not None:
            work.scores.clear()
        seconds, result, peak = with_peak(work, self.device)
        if not result.isfinite().all():
            raise UnableError("the output is not finite")
        self.works[f"{contestant}/{known.key}"] = work
        gc.freeze()  # so that a collection before each measurement has little to look at
        answer = {"first": seconds, "peak": peak, "made": made}
        answer |= {"weights": work.weights, "trained": work.trained}
        if known.step == "training":
            return answer | {"loss": float(result)}
        save_file({"output": result.float().cpu().contiguous()}, file)
        return answer | {"score": max(work.scores) if work.scores else None}

    def time(self, contestant: str, key: str) -> dict[str, Any]:
        seconds, result = timed(self.works[f"{contestant}/{key}"], self.device)
        return {"seconds": seconds, "loss": float(result) if result.numel() == 1 else None}

    def compare(self, first: str, second: str) -> dict[str, Any]:
        """The largest difference, relative to the largest value."""
        one, two = load_file(first)["output"], load_file(second)["output"]
        if one.shape != two.shape:
            return {"difference": None}
        return {"difference": float((one - two).abs().max() / one.abs().max())}

    def release(self) -> dict[str, Any]:
        self.works.clear()
        self.environment.release()
        gc.unfreeze()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What cannot be done is an answer too; a crash is told with its message."""
        ask = getattr(self, question.pop("ask"))
        try:
            return dict(ask(**question))
        except UnableError as reason:
            return {"unable": str(reason)}
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())
            return {"unable": f"crashes: {type(error).__name__}: {text[:160]}"}


def serve(worker: Worker, questions: TextIO, answers: TextIO) -> None:
    for line in questions:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    serve(Worker(sys.argv[1]), sys.stdin, answers)


if __name__ == "__main__":
    main()
