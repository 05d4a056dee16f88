"""The contestants of our environment: the optimised program and the literal one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from cases import SHAPES, Case, routed_rows
from measure import RATE, UnableError, Work, inference, size, training
from torch import Tensor
from transformers import AutoModel
from weights import watch_scores, write_backbone, write_part

import adaptcompose as ac


class Environment:
    """Everything is composed over one loaded backbone, whose tensors are shared."""

    def __init__(self, shape: str, folder: Path, device: str) -> None:
        self.folder = folder
        self.backbone = AutoModel.from_pretrained(write_backbone(SHAPES[shape], folder))
        self.backbone.eval().requires_grad_(False).to(device)
        self.programs: dict[str, Any] = {}

    def versions(self) -> dict[str, str]:
        return {
            "adaptcompose": ac.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": str(self.backbone.config._attn_implementation),
        }

    def write(self, names: list[str]) -> None:
        for name in names:
            write_part(name, self.backbone, self.folder)

    def make(self, contestant: str, case: Case, batch: dict[str, Any]) -> Work:
        if case.kind == "plain":
            return Work(inference(lambda: self.backbone(**batch).last_hidden_state))
        if case.step == "attach":
            return Work(inference(partial(self._attach, contestant, case, batch)))
        model = self.composed(contestant, case)
        self._refuse_twins(contestant, case, model)
        forward = forward_of(model, case, batch)
        if case.step == "training":
            return train(model, case, forward)
        scores = watch_scores(model) if contestant == "literal" else None
        return Work(inference(forward), weights=size(model.parts.parameters()), scores=scores)

    def composed(self, contestant: str, case: Case) -> Any:
        optimise = contestant == "ours"
        try:
            return ac.compose(
                expression(case), self.backbone, root=self.folder, head=None, optimise=optimise
            )
        except ac.Failed as failed:
            raise UnableError(failed.diagnostics[0].message) from None

    def _attach(self, contestant: str, case: Case, batch: dict[str, Any]) -> Tensor:
        """From files to a first answer."""
        return forward_of(self.composed(contestant, case), case, batch)()

    def _refuse_twins(self, contestant: str, case: Case, model: Any) -> None:
        """The literal program need not run where no pass has changed it."""
        if contestant == "ours":
            self.programs[case.key] = model.program
        elif self.programs.get(case.key) == model.program:
            raise UnableError("the same program as ours")

    def release(self) -> None:
        self.programs.clear()


def forward_of(model: Any, case: Case, batch: dict[str, Any]) -> Callable[[], Tensor]:
    if case.kind == "route":
        rows: list[str | None] = [*routed_rows(case.adapters, len(batch["input_ids"]))]
        return lambda: model(**batch, rows=rows).last_hidden_state
    if case.kind == "mixed":
        mixed = [("one", "fused", None)[row % 3] for row in range(len(batch["input_ids"]))]
        return lambda: model(**batch, rows=mixed).last_hidden_state
    if case.kind == "parallel":
        return lambda: torch.cat([out.last_hidden_state for out in model(**batch).values()])
    return lambda: model(**batch).last_hidden_state


def train(model: Any, case: Case, forward: Callable[[], Tensor], rate: float = RATE) -> Work:
    if case.cached:
        model.cache_trunk(case.bottom)
    part = "fuse" if case.kind == "fuse" else str(case.trained)
    names = {name: name.rpartition("/")[2] for name in model.parts.names}
    model.update(frozenset(name for name, short in names.items() if short in (part, case.trained)))
    trained = [value for _, value in model.trained()]
    return Work(
        training(model, forward, trained, rate),
        weights=size(model.parts.parameters()),
        trained=sum(value.numel() for value in trained),
    )


def expression(case: Case) -> str:
    """The case in the language.

    >>> from cases import Case
    >>> expression(Case("", "", "one", "inference", "full", ("a",), bottom=5))
    './a | drop(bottom=5)'
    """
    parts = [f"./{name}" for name in case.adapters]
    if case.kind in ("parallel", "route"):
        parts = [f"{name}=./{name}" for name in case.adapters]
    if case.fusion is not None:
        parts.append(f"load=./{case.fusion}")
    if case.kind == "mixed":
        return f"route(one={parts[0]}, fused=fuse({', '.join(parts)}))"
    text = parts[0] if case.kind == "one" else f"{case.kind}({', '.join(parts)})"
    return text + (f" | drop(bottom={case.bottom})" if case.bottom else "")
