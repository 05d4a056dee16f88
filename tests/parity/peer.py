"""The peer, driven through its public surface: load a backbone, activate a composition, run it."""

from __future__ import annotations

import json
import logging
import tempfile
from typing import TYPE_CHECKING, Any

import adapters
import torch
import transformers
from adapters import AutoAdapterModel
from adapters.composition import Fuse, Stack
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

if TYPE_CHECKING:
    from pathlib import Path

# Each activation warns, wrongly, that no adapter is active: the check runs before the change.
logging.getLogger("adapters").setLevel(logging.ERROR)

LABELS = {task: {"num_labels": 3} for task in ("SequenceClassification", "TokenClassification")}
LABELS["MultipleChoice"] = {"num_labels": 3}  # read as the number of choices
BLOCKS = {"Stack": Stack, "Fuse": Fuse}
OWN_HEAD = "default"  # what the peer calls the head that it converts from the backbone's own


def load_backbone(folder: Path) -> Any:
    """The peer's model on a saved backbone, in eval mode with eager attention."""
    config = AutoConfig.from_pretrained(folder)
    config.architectures = None  # else the peer adds the MLM head, without its bias, as active
    model, info = AutoAdapterModel.from_pretrained(
        folder, config=config, attn_implementation="eager", output_loading_info=True
    )
    if info["missing_keys"]:
        raise RuntimeError(f"{folder}: the backbone lacks {sorted(info['missing_keys'])}")
    # The peer writes this into every JSON file; a path of this machine has no place there.
    for config in (model.config, model.base_model.config):
        config._name_or_path = f"tiny/{folder.parent.name}"
    model.active_head = None
    return model.eval()


def load_static(folder: Path, kind: str) -> Any:
    """A class of transformers with the peer's adapters in it."""
    model = getattr(transformers, kind).from_pretrained(
        folder, attn_implementation="eager", **LABELS.get(kind.partition("For")[2], {})
    )
    # LlamaForQuestionAnswering has its base model under another name, and finds no weights
    model.base_model.load_state_dict(AutoModel.from_pretrained(folder).state_dict(), strict=False)
    adapters.init(model)
    for config in (model.config, model.base_model.config):
        config._name_or_path = f"tiny/{folder.parent.name}"
    return model.eval()


def add_own_head(model: Any, folder: Path) -> None:
    """The backbone's MLM head as a flexible head, the only kind where the peer runs the inverse.

    Through the file of a static head: the direct conversion in `from_pretrained` looks for the
    vocabulary's bias under a name that checkpoints do not carry, and leaves it at zero.
    """
    static = AutoModelForMaskedLM.from_pretrained(folder)
    adapters.init(static)
    info: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        static.save_head(scratch)
        model.load_head(scratch, load_as=OWN_HEAD, loading_info=info)
    if info["missing_keys"]:  # the bias under its other name is left over
        raise RuntimeError(f"{folder}: the MLM head did not convert: {info}")


def leaves(setup: Any) -> list[str]:
    """Names of the adapters of a setup, from left to right."""
    if setup is None:
        return []
    return [setup] if isinstance(setup, str) else [n for child in setup[1:] for n in leaves(child)]


def fused(setup: Any) -> list[str] | None:
    """The adapters of the setup's fusion, or None without one."""
    if setup is None or isinstance(setup, str):
        return None
    if setup[0] == "Fuse":
        return list(setup[1:])
    return next((found for child in setup[1:] if (found := fused(child))), None)


def block(setup: Any) -> Any:
    """["Stack", "lang", ["Fuse", "a", "b"]] as the peer's objects."""
    if isinstance(setup, str):
        return setup
    return BLOCKS[setup[0]](*(block(child) for child in setup[1:]))


def activate(model: Any, setup: Any, skip_layers: list[int], head: str | None) -> None:
    """Make exactly this composition and this head active."""
    if setup is not None:
        model.set_active_adapters(block(setup), skip_layers=skip_layers or None)
    # Naming a head last, for the peer else picks one by the last adapter's name, or keeps the old.
    model.active_head = head


@torch.no_grad()
def run(model: Any, batch: dict[str, torch.Tensor], output: str) -> torch.Tensor:
    """`last_hidden_state` of the backbone, or the `logits` of the active head."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if output == "logits":
        if type(model).__name__.endswith("ForMultipleChoice"):
            inputs = {name: tensor[None] for name, tensor in inputs.items()}
        out = model(**inputs)
        return (
            out.logits if "logits" in out else torch.stack([out.start_logits, out.end_logits], -1)
        )
    if hasattr(model, "_shift_right"):  # others do that themselves
        inputs["decoder_input_ids"] = model._shift_right(inputs["input_ids"])
    return model.base_model(**inputs).last_hidden_state


def write_case(folder: Path, case: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """case.json and expected.safetensors."""
    (folder / "case.json").write_text(json.dumps(case, indent=2) + "\n", encoding="utf-8")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")


def read_case(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The two files of `write_case`."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return case, load_file(folder / "expected.safetensors")
