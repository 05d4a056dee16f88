"""The contestant `adapters`: files written by us, driven through its public surface."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from adapters.composition import BatchSplit, Fuse, Parallel, Stack
from cases import MOST_LOADED, Case, routed_rows
from measure import UnableError, Work, inference, size, training
from torch import Tensor
from transformers import AutoModel

# Each activation warns, wrongly, that no adapter is active: the check runs before the change.
logging.getLogger("adapters").setLevel(logging.ERROR)


class Environment:
    """Every case has a model of its own, whose backbone's tensors are shared."""

    def __init__(self, shape: str, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.backbone = AutoModel.from_pretrained(folder / "backbone")
        self.backbone.eval().requires_grad_(False).to(device)

    def versions(self) -> dict[str, str]:
        return {
            "adapters": adapters.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": str(self.backbone.config._attn_implementation),
        }

    def make(self, contestant: str, case: Case, batch: dict[str, Any]) -> Work:
        if case.kind == "plain":
            return Work(inference(lambda: self.backbone(**batch).last_hidden_state))
        if case.cached:
            raise UnableError("no cache of the trunk")
        if len(case.adapters) > MOST_LOADED:
            raise UnableError(f"takes minutes to load {len(case.adapters)} adapters; not timed")
        model = share(self.backbone)
        adapters.init(model)
        shared = {id(parameter) for parameter in model.parameters()}
        if case.step == "attach":
            return self._attaching(model, case, batch)
        self._load(model, case)
        own = [value for value in model.parameters() if id(value) not in shared]
        if case.step == "training":
            names = self._train(model, case, batch)
            trained = [value for value in own if value.requires_grad]
            run = training(model, forward_of(model, batch), trained)
            return Work(run, weights=size(own), trained=names)
        self._activate(model, case, batch)
        return Work(inference(forward_of(model, batch)), weights=size(own))

    def _load(self, model: Any, case: Case) -> None:
        for name in case.adapters:
            model.load_adapter(
                str(self.folder / name), with_head=False, use_safetensors=True, set_active=False
            )
        if case.fusion is not None:
            model.load_adapter_fusion(
                str(self.folder / case.fusion), use_safetensors=True, set_active=False
            )
        model.to(self.device).eval()

    def _activate(self, model: Any, case: Case, batch: dict[str, Any]) -> None:
        setup = block(case, len(batch["input_ids"]))
        model.set_active_adapters(setup, skip_layers=list(range(case.bottom)) or None)

    def _train(self, model: Any, case: Case, batch: dict[str, Any]) -> int:
        """Freeze all but the part; how many numbers are trained in the layers that are kept."""
        if case.kind == "fuse":
            model.train_adapter_fusion(block(case, 0))
        else:
            model.train_adapter(Stack(str(case.trained)))
        self._activate(model, case, batch)
        return sum(
            value.numel()
            for name, value in model.named_parameters()
            if value.requires_grad
            and not any(f".layer.{layer}." in name for layer in range(case.bottom))
        )

    def _attaching(self, model: Any, case: Case, batch: dict[str, Any]) -> Work:
        def attach() -> Tensor:
            self._load(model, case)
            self._activate(model, case, batch)
            return forward_of(model, batch)()

        def detach() -> None:
            model.set_active_adapters(None)
            if case.fusion is not None:
                model.delete_adapter_fusion(",".join(case.adapters))
            for name in case.adapters:
                model.delete_adapter(name)

        return Work(inference(attach), reset=detach)

    def release(self) -> None:
        """Nothing is kept beside the backbone."""


def share(model: Any) -> Any:
    """Modules of its own over the same tensors."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in model.parameters()}
    memo |= {id(tensor): tensor for tensor in model.buffers()}
    return copy.deepcopy(model, memo)


def block(case: Case, rows: int) -> Any:
    """The case as the peer's objects."""
    if case.kind == "mixed":
        raise UnableError("BatchSplit takes no fusion, and every row needs an adapter")
    if case.kind == "route":
        chosen = routed_rows(case.adapters, rows)
        names = list(dict.fromkeys(chosen))
        if len(names) == 1:
            raise UnableError("BatchSplit needs two adapters")
        return BatchSplit(*names, batch_sizes=[chosen.count(name) for name in names])
    blocks = {"one": Stack, "stack": Stack, "fuse": Fuse, "parallel": Parallel}
    return blocks[case.kind](*case.adapters)


def forward_of(model: Any, batch: dict[str, Any]) -> Callable[[], Tensor]:
    return lambda: model(**batch).last_hidden_state
