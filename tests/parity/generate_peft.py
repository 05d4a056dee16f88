"""Make the golden folders with PEFT: `.venv-peft/bin/python tests/parity/generate_peft.py`.

The backbones are those of `generate.py`, so that one is run first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft_cases import CASES, FAMILIES, Case, shaped
from safetensors.torch import load_file, save_file

BACKBONES = Path(__file__).parent / "goldens"
GOLDENS = Path(__file__).parent / "goldens_peft"
LABELS = 3


def stream(*words: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32("/".join(words).encode()))


def load(family: str, task: str | None) -> Any:
    """The backbone in eval mode, with a new head where there is a task."""
    cls = getattr(transformers, task or "AutoModel")
    options = {"num_labels": LABELS} if task and "Classification" in task else {}
    folder = BACKBONES / family / "backbone"
    model = cls.from_pretrained(folder, attn_implementation="eager", **options)
    model.config._name_or_path = f"tiny/{family}"
    model.name_or_path = f"tiny/{family}"
    return model.eval()


def randomise(model: Any, family: str, name: str) -> None:
    """Every trained parameter random and non-zero; factors, norms and lengths around one."""
    generator = stream(family, "peft", name)
    for key, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        around_one = "ia3_l" in key or "magnitude" in key
        around_one |= "ln_tuning" in key and key.endswith("weight")
        parameter.data.copy_(1 + 0.3 * torch.tanh(noise) if around_one else 0.3 * noise)


@torch.no_grad()
def run(model: Any, batch: dict[str, torch.Tensor], task: str | None) -> torch.Tensor:
    ids, mask = shaped(task, batch["input_ids"], batch["attention_mask"])
    given = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    out = model(**given)
    if "start_logits" in out:
        found = torch.stack([out.start_logits, out.end_logits], dim=-1)
    else:
        found = out.logits if task else out.last_hidden_state
    # virtual tokens are in front
    return found[:, -batch["input_ids"].shape[1] :] if found.dim() == 3 else found


def batch_of(family: str) -> dict[str, torch.Tensor]:
    """The batch that the other goldens of the family have."""
    tensors = load_file(BACKBONES / family / "bare" / "expected.safetensors")
    return {name: tensors[name] for name in ("input_ids", "attention_mask")}


def save(model: Any, family: str, case: Case, folder: Path) -> None:
    """The adapter with random weights, as PEFT writes it."""
    with tempfile.TemporaryDirectory() as start:
        options = {}
        if case.converted:
            model.peft_config["default"].init_lora_weights = True
            model.save_pretrained(start)
            options = {"path_initial_model_for_weight_conversion": start}
        randomise(model, family, case.name)
        model.save_pretrained(folder, **options)
    (folder / "README.md").unlink(missing_ok=True)


def make_case(family: str, case: Case, root: Path) -> None:
    """One folder: what PEFT wrote, what it computed."""
    folder = root / case.name
    plain = load(family, case.task)
    batch = batch_of(family)
    before = run(plain, batch, case.task)
    model = peft.get_peft_model(plain, getattr(peft, case.config)(**case.options)).eval()
    save(model, family, case, folder / "a")
    result = run(model, batch, case.task)
    if (result - before).abs().max() < 0.1:
        raise RuntimeError(f"{case.name}: the adapter had no effect")
    tensors = {**batch, "output": result.contiguous()}
    save_file(tensors, folder / "expected.safetensors")
    described = {"family": family, "task": case.task, "note": case.note}
    described |= {"attended": case.attended} | ({"whole": True} if case.whole else {})
    (folder / "case.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    print(f"{family:12} {case.name:20} |max| {result.abs().max():.2f}", flush=True)


def main() -> None:
    """Rebuild all goldens, or only those of some families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=GOLDENS)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--case", action="append", help="only cases of these names")
    given = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    for family in given.family or FAMILIES:
        if not given.case:
            shutil.rmtree(given.out / family, ignore_errors=True)
        for case in CASES:
            if family in case.families and (not given.case or case.name in given.case):
                shutil.rmtree(given.out / family / case.name, ignore_errors=True)
                make_case(family, case, given.out / family)


if __name__ == "__main__":
    main()
