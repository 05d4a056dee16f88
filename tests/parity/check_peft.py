"""Read folders with PEFT: `.venv-peft/bin/python tests/parity/check_peft.py DIR`.

Every case.json below DIR is one case. PEFT must hold exactly the tensors of the file, and compute
the stored output.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from closeness import TOLERANCE, distance
from generate_peft import load, run
from safetensors.torch import load_file


def check(folder: Path) -> float:
    """How far PEFT's output is from the stored one."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "expected.safetensors")
    plain = load(case["family"], case["task"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(plain, str(folder / "a")).eval()
    told = [str(w.message) for w in caught if "adapter keys" in str(w.message)]
    if told:
        raise ValueError(told[0])
    compare(model, load_file(folder / "a" / "adapter_model.safetensors"))
    output = run(model, tensors, case["task"])
    stored, attended = tensors["output"], tensors["attention_mask"].bool()
    if case["task"] is None:  # behind a prompt, PEFT gives RoBERTa's padding positions of tokens
        output, stored = output[attended], stored[attended]
    if case.get("whole"):  # behind a prompt, PEFT's classifier reads the last place
        output, stored = output[attended.all(dim=1)], stored[attended.all(dim=1)]
    found = distance(output, stored)
    if not found <= TOLERANCE:  # so that nan fails too
        raise ValueError(f"the output differs by {found:.1e} of the largest value")
    return found


def compare(model: peft.PeftModel, stored: dict[str, torch.Tensor]) -> None:
    """PEFT would save what the file holds: nothing was missing, nothing left over.

    Its copies of matrices of the backbone are in its own files only.
    """
    held = peft.get_peft_model_state_dict(model)
    held = {k: t for k, t in held.items() if k in stored or not k.endswith("base_layer.weight")}
    if held.keys() != stored.keys():
        raise ValueError(f"other keys: {sorted(held.keys() ^ stored.keys())[:4]}")
    for key, tensor in stored.items():
        if not torch.equal(held[key], tensor):
            raise ValueError(f"{key} is not what the file holds")


def main() -> int:
    """One line a case; fails if one of them does, or if there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR")
    root = parser.parse_args().root
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folders = sorted(path.parent for path in root.rglob("case.json"))
    failures = 0
    for folder in folders:
        label = str(folder.relative_to(root))
        try:
            print(f"ok    {label:45} {check(folder):.1e}", flush=True)
        except Exception as error:
            failures += 1
            print(f"FAIL  {label:45} {type(error).__name__}: {error}", flush=True)
    print(f"{len(folders) - failures} of {len(folders)} cases pass")
    return 1 if failures or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
