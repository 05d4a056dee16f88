"""Whether gaps.py is still right: `.venv-peer/bin/python tests/parity/check_gaps.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch
from backbones import generator, make_batch
from cases import Case
from gaps import GAPS, Form, Gap, report
from generate import GOLDENS, add_parts, randomise_parts
from peer import activate, load_backbone, run
from torch import Tensor, nn
from transformers.utils import logging

CLOSE, FAR = 1e-4, 1e-2


class Trial:
    """A form of a gap on a family, with random weights: what it computes, and what is changed."""

    def __init__(self, family: str, form: Form) -> None:
        names = "abc"[: len(form)]
        setup = names if len(form) == 1 else ["Stack", *names]
        case = Case("gap", dict(zip(names, form, strict=True)), setup, "")
        self.model = load_backbone(GOLDENS / family / "backbone")
        self.batch = make_batch(family, self.model.config.pad_token_id)
        known = {id(parameter) for parameter in self.model.parameters()}
        add_parts(self.model, case)
        randomise_parts(self.model, known, generator(family, str(form)))
        activate(self.model.eval(), setup, [], None)

    def output(self) -> Tensor:
        return run(self.model, self.batch, "last_hidden_state")

    def named(self, *words: str) -> Iterator[nn.Parameter]:
        """The parameters of adapters that have all these words in their names."""
        for name, parameter in self.model.named_parameters():
            if all(word in f".{name}." for word in words):
                yield parameter

    def moves(self, *words: str) -> float:
        """How far the output is from what it is with another value of these parameters."""
        before, found = self.output(), list(self.named(*words))
        if not found:
            raise RuntimeError(f"nothing is named {words}")
        for parameter in found:
            parameter.data.mul_(1.5).add_(0.1)
        return distance(before, self.output())


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def ignores_the_lengths(trial: Trial) -> bool:
    return trial.moves(".m.") == 0 and trial.moves(".lora_B.") > FAR


def ignores_the_lower(trial: Trial) -> bool:
    return trial.moves(".adapters.a.") == 0 and trial.moves(".adapters.b.") > FAR


def adds_what_the_upper_makes_of_the_lower(trial: Trial) -> bool:
    """B₂ A₂ B₁ A₁ x instead of B₁ A₁ x + B₂ A₂ x: nothing is left where B₁ is zero."""
    before = trial.output()
    for parameter in trial.named(".loras.a.", ".lora_B."):
        parameter.data.zero_()
    without = trial.output()
    trial.model.set_active_adapters(None)
    return distance(before, without) > FAR and distance(without, trial.output()) == 0


def multiplies_what_it_does_not_change(trial: Trial) -> bool:
    """With factors of 1 / alpha nothing should change; what does is the queries."""
    seen: list[Tensor] = []
    for parameter in trial.named(".lora_B."):
        parameter.data.fill_(0.5)
    attention = trial.model.base_model.h[0].attn
    attention.c_attn.register_forward_hook(lambda _, args, out: seen.append(out.detach()))
    trial.output()
    trial.model.set_active_adapters(None)
    trial.output()
    changed, plain = (one.chunk(3, dim=-1) for one in seen)
    kept = all(
        distance(one, other) < CLOSE for one, other in zip(changed[1:], plain[1:], strict=True)
    )
    return kept and distance(changed[0], 2 * plain[0]) < CLOSE


def forgets_the_distances(trial: Trial) -> bool:
    """The scores by distance among the tokens of the first row, which is without padding."""
    seen: list[float] = []
    for block in trial.model.base_model.encoder.block:
        block.register_forward_hook(lambda _, args, out: seen.append(float(out[1][0].abs().max())))
    trial.output()
    return seen[0] > FAR and seen[1] == 0


DEFECTS: dict[str, Callable[[Trial], bool]] = {
    check.__name__: check
    for check in (
        ignores_the_lengths,
        ignores_the_lower,
        adds_what_the_upper_makes_of_the_lower,
        multiplies_what_it_does_not_change,
        forgets_the_distances,
    )
}


def still(gap: Gap, family: str, form: Form) -> bool:
    """Whether a form is refused as the row says, or has its defect."""
    if gap.defect is not None:
        return DEFECTS[gap.defect](Trial(family, form))
    try:
        Trial(family, form).output()
    except Exception as error:
        return str(gap.error) in str(error)
    return False


def main() -> int:
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    return report(GAPS, still)


if __name__ == "__main__":
    sys.exit(main())
