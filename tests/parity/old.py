"""Files of earlier years, made by hand out of the newest: what the peer still reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

if TYPE_CHECKING:
    from pathlib import Path

KEPT_2020 = (
    "adapter_residual_before_ln",
    "ln_after",
    "ln_before",
    "mh_adapter",
    "non_linearity",
    "original_ln_after",
    "original_ln_before",
    "output_adapter",
    "reduction_factor",
    "residual_before_ln",
)
NICE = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}


def age(folder: Path, year: str) -> None:
    """Rewrite an adapter's folder as of 2020 (nested settings, other keys) or 2021 (no version)."""
    outer = json.loads((folder / "adapter_config.json").read_text())
    stored = torch.load(folder / "pytorch_adapter.bin", weights_only=True)
    del outer["version"]
    if year == "2020":
        kind = "text_lang" if outer["config"]["inv_adapter"] else "text_task"
        outer |= {"type": kind, "config": _of_2020(outer["config"])}
        stored = {_key_of_2020(key, kind): tensor for key, tensor in stored.items()}
    elif outer["config"]["non_linearity"] == "gelu_new":
        outer["config"]["non_linearity"] = "gelu"
    text = json.dumps(outer, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(text)
    _save_as_then(stored, folder / "pytorch_adapter.bin")


def _save_as_then(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """The file format of torch until 1.5; it names storages by address, here by number."""
    found = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    names = {address: 10**14 + number for number, address in enumerate(found)}
    numbered = property(lambda storage: names[storage.data_ptr()])
    with patch.object(torch.UntypedStorage, "_cdata", numbered):
        torch.save(tensors, path, _use_new_zipfile_serialization=False)


def _of_2020(config: dict[str, Any]) -> dict[str, Any]:
    """Every pfeiffer configuration declared an invertible part, task adapters' too."""
    nested = None if config["mh_adapter"] else NICE
    kept = {key: config[key] for key in KEPT_2020}
    return kept | {"attention_type": "sent-lvl-dynamic", "invertible_adapter": nested}


def _key_of_2020(key: str, kind: str) -> str:
    for new, old in (
        ("attention.output.adapters.", f"attention.output.attention_{kind}_adapters."),
        ("output.adapters.", f"output.layer_{kind}_adapters."),
        ("attention_adapters.adapters.", f"attention_adapters.attention_{kind}_adapters."),
        ("output_adapters.adapters.", f"output_adapters.layer_{kind}_adapters."),
        ("invertible_adapters.", "invertible_lang_adapters."),
    ):
        key = key.replace(new, old)
    return key
