"""The contestant PEFT. It has no bottleneck adapters: LoRA of as many numbers takes their place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from cases import MOST_LOADED, Case, routed_rows
from measure import UnableError, Work, inference, size, training
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModel

CANNOT = {
    "stack": "no stack, and no invertible adapters",
    "fuse": "no AdapterFusion",
    "parallel": "no outputs side by side",
    "mixed": "no AdapterFusion",
}


class Environment:
    """Every case has a model of its own, whose backbone's tensors are shared."""

    def __init__(self, shape: str, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.backbone = AutoModel.from_pretrained(folder / "backbone")
        self.backbone.eval().requires_grad_(False).to(device)
        self.layers = self.backbone.config.num_hidden_layers

    def versions(self) -> dict[str, str]:
        return {
            "peft": peft.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": str(self.backbone.config._attn_implementation),
        }

    def make(self, contestant: str, case: Case, batch: dict[str, Any]) -> Work:
        if case.kind == "plain":
            return Work(inference(lambda: self.backbone(**batch).last_hidden_state))
        if case.kind in CANNOT:
            raise UnableError(CANNOT[case.kind])
        if case.cached:
            raise UnableError("no cache of the trunk")
        if len(case.adapters) > MOST_LOADED:
            raise UnableError(f"takes minutes to load {len(case.adapters)} adapters; not timed")
        if case.step == "attach":
            return self._attaching(batch)
        model = get_peft_model(share(self.backbone), self._config(case), case.adapters[0])
        for name in case.adapters[1:]:
            model.add_adapter(name, self._config(case))
        model.to(self.device).eval()
        own = [value for name, value in model.named_parameters() if "lora_" in name]
        if case.step == "training":
            trained = [value for value in own if value.requires_grad]
            count = sum(value.numel() for value in trained)
            run = training(model, forward_of(model, batch), trained)
            return Work(run, weights=size(own), trained=count)
        if case.kind == "route":
            batch = batch | {"adapter_names": routed_rows(case.adapters, len(batch["input_ids"]))}
        return Work(inference(forward_of(model, batch)), weights=size(own))

    def _config(self, case: Case | None = None) -> LoraConfig:
        """On query and value, so that 4·width·rank is the bottleneck's 2·width·(width/16)."""
        return LoraConfig(
            r=max(1, self.backbone.config.hidden_size // 32),
            target_modules=["query", "value"],
            layers_to_transform=list(range(case.bottom if case else 0, self.layers)),
            init_lora_weights=False,  # B is not zero
            lora_dropout=0.0,
        )

    def _attaching(self, batch: dict[str, Any]) -> Work:
        folder = self.folder / "peft"
        if not folder.is_dir():
            get_peft_model(share(self.backbone), self._config()).save_pretrained(str(folder))
        made: list[Any] = []

        def attach() -> Tensor:
            made.append(PeftModel.from_pretrained(share(self.backbone), str(folder)))
            return forward_of(made[0].eval(), batch)()

        return Work(inference(attach), reset=made.clear)

    def release(self) -> None:
        """Nothing is kept beside the backbone."""


def share(model: Any) -> Any:
    """Modules of its own over the same tensors."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in model.parameters()}
    memo |= {id(tensor): tensor for tensor in model.buffers()}
    return copy.deepcopy(model, memo)


def forward_of(model: Any, batch: dict[str, Any]) -> Callable[[], Tensor]:
    return lambda: model(**batch).last_hidden_state
