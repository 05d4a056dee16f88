"""Clock and memory, the same in every environment."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STATUS = Path("/proc/self/status")


class UnableError(Exception):
    """A contestant cannot do a case; the message says why."""


@dataclass
class Work:
    """Something to be timed: `run` computes, `reset` makes the next run the same as the first.

    `run` gives the output, in training the loss. `weights` are the bytes that the composition
    has beside the backbone, `largest_score` is filled in where a fusion's scores can be read.
    """

    run: Callable[[], Tensor]
    reset: Callable[[], None] | None = None
    weights: int = 0
    trained: int = 0
    scores: list[float] | None = None


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(work: Work, device: str) -> tuple[float, Tensor]:
    """Seconds of one run, and what it gave."""
    gc.collect()
    synchronise(device)
    start = time.perf_counter()
    result = work.run()
    synchronise(device)
    seconds = time.perf_counter() - start
    result = result.detach()
    if work.reset is not None:
        work.reset()
    return seconds, result


def with_peak(work: Work, device: str) -> tuple[float, Tensor, int | None]:
    """The same with the growth of memory while it runs, in bytes; None where it is not known."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds, result = timed(work, device)
        return seconds, result, torch.cuda.max_memory_allocated() - before
    resident = start_peak()
    seconds, result = timed(work, device)
    peak = None if resident is None else (status("VmHWM") or 0) - resident
    return seconds, result, peak


def start_peak() -> int | None:
    """Give freed memory back, forget the peak so far; resident bytes now, None if not Linux."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return status("VmRSS")


def status(name: str) -> int | None:
    """A size of this process in bytes."""
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def inference(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    @torch.no_grad()
    def run() -> Tensor:
        return forward()

    return run


RATE = 1e-5
"""At larger rates every form multiplies its own rounding in float32 by two in each step, so that
losses could not be compared (`losses.py` shows by how much)."""


def training(
    model: nn.Module,
    forward: Callable[[], Tensor],
    trained: Iterable[nn.Parameter],
    rate: float = RATE,
) -> Callable[[], Tensor]:
    """Forward, backward and AdamW against a fixed random target; dropout is off in the config."""
    parameters = list(trained)
    optimiser = torch.optim.AdamW(parameters, lr=rate)
    model.train()
    target: list[Tensor] = []

    def run() -> Tensor:
        hidden = forward()
        if not target:
            stream = torch.Generator().manual_seed(7)
            target.append(torch.randn(hidden.shape, generator=stream).to(hidden.device))
        loss = nn.functional.mse_loss(hidden, target[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    return run


def size(parameters: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in parameters)


def make_batch(rows: int, tokens: int, vocabulary: int, device: str) -> dict[str, Any]:
    """Full rows of random tokens, the same in every environment."""
    stream = torch.Generator().manual_seed(rows * 1000 + tokens)
    ids = torch.randint(5, vocabulary, (rows, tokens), generator=stream).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
