"""Write the cases of the goldens as PEFT does: `.venv/bin/python tests/parity/write_peft.py DIR`.

The settings are those of the golden, the weights are fresh, random and non-zero; what we compute
goes into expected.safetensors. `check_peft.py DIR` then reads it with PEFT.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging
from write import fresh

from adaptcompose.backbones.layout import Facts, read_config, read_facts
from adaptcompose.hub.formats import adapterhub, peft, peft_writing
from adaptcompose.hub.formats.tensors import read_shapes
from adaptcompose.runtime.compose import compose, load_backbone

BACKBONES = Path(__file__).parent / "goldens"
GOLDENS = Path(__file__).parent / "goldens_peft"


def write_adapter(golden: Path, folder: Path, facts: Facts) -> bool:
    """The adapter of a golden with other weights; False where PEFT has no form for it."""
    found = adapterhub.describe_adapter(golden, golden.name)
    method = peft.read(found, facts, read_shapes(golden / peft.WEIGHTS[0])).method
    if not peft_writing.writes(method, facts):
        return False
    seed = f"{facts.type}/{golden.parent.name}/peft"
    weights = {
        (site, name): fresh(f"{seed}/{site}.{name}", torch.empty(shape))
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }
    peft_writing.write(folder, method, weights, facts)
    return True


def write_case(golden: Path, folder: Path) -> None:
    """One case: the adapter, and what we compute with it."""
    family = golden.parent.name
    backbone = BACKBONES / family / "backbone"
    facts = read_facts(read_config(backbone), f"tiny/{family}")
    if not write_adapter(golden / "a", folder / "a", facts):
        raise RuntimeError(f"{golden}: PEFT has no form for what it wrote itself")
    batch = load_file(golden / "expected.safetensors")
    stored = batch.pop("output")
    model = compose("./a", load_backbone(backbone), root=folder, head=None)
    more = {"decoder_input_ids": batch["input_ids"]} if family == "t5" else {}
    with torch.no_grad():
        output = model(**batch, **more).last_hidden_state
    if stored.shape == output.shape and (output - stored).abs().max() < 0.01:
        raise RuntimeError(f"{golden}: other weights, the same output")
    save_file(batch | {"output": output.contiguous()}, folder / "expected.safetensors")
    case = json.loads((golden / "case.json").read_text())
    described = case | {"task": None, "note": "written by adaptcompose"}
    (folder / "case.json").write_text(json.dumps(described, indent=2) + "\n")


def main() -> int:
    """All cases, below DIR as they are below goldens_peft."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR")
    root: Path = parser.parse_args().root
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shutil.rmtree(root, ignore_errors=True)
    folders = sorted(path.parent for path in GOLDENS.glob("*/*/case.json"))
    for golden in folders:
        write_case(golden, root / golden.relative_to(GOLDENS))
    print(f"{len(folders)} cases written to {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
