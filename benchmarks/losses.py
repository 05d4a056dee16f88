"""How far training drifts from the literal form over 20 steps, in float64 and in float32.

    python benchmarks/losses.py

Fuse of 8 on a bert-base of random weights, 2×32 tokens, AdamW, the same start for all. In float64
the forms are one function. In float32 each rounds, and large rates of learning multiply that in
every step: the literal form leaves its own float64 curve as far as ours does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from cases import SHAPES, fuse
from measure import RATE, make_batch
from with_ours import Environment, forward_of, train

RATES = (RATE, 5e-5, 1e-4)
STEPS = 20
FOLDER = Path("build/benchmarks/losses")


def curve(contestant: str, kind: torch.dtype, rate: float) -> list[float]:
    """The loss of every step."""
    shape = SHAPES["bert-base"]
    case = fuse(shape, 8, "training", "full")
    environment = Environment(shape.name, FOLDER, "cpu")
    environment.write([*case.adapters, str(case.fusion)])
    environment.backbone.to(kind)
    batch = make_batch(2, 32, environment.backbone.config.vocab_size, "cpu")
    model = environment.composed(contestant, case).to(kind)
    step = train(model, case, forward_of(model, case, batch), rate).run
    return [float(step()) for _ in range(STEPS)]


def drift(one: list[float], other: list[float]) -> float:
    """The largest relative difference of any step."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def main() -> None:
    print(f"largest relative difference of a loss over {STEPS} steps")
    print("rate   float64, ours-literal   float32: ours-literal  literal-float64  ours-float64")
    for rate in RATES:
        exact = curve("literal", torch.float64, rate)
        literal, ours = (curve(who, torch.float32, rate) for who in ("literal", "ours"))
        found = (
            drift(curve("ours", torch.float64, rate), exact),
            drift(ours, literal),
            drift(literal, exact),
            drift(ours, exact),
        )
        print(f"{rate:.0e}  {found[0]:22.1e}  {found[1]:21.1e}  {found[2]:15.1e}  {found[3]:12.1e}")


if __name__ == "__main__":
    main()
