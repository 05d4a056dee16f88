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
from typing import Any

import torch
from peft_cases import CLASSES, shaped
from safetensors.torch import load_file, save_file
from transformers.utils import logging
from write import fresh

from adaptcompose.backbones.layout import Facts, read_config, read_facts
from adaptcompose.formats import peft, peft_writer
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.peft_modules import ModelClass
from adaptcompose.formats.tensors import read_shapes
from adaptcompose.formats.transformers_heads import from_slots
from adaptcompose.runtime.build import load_backbone
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.transformers_class import class_by_name

BACKBONES = Path(__file__).parent / "goldens"
GOLDENS = Path(__file__).parent / "goldens_peft"

UNWRITTEN = {"lora_all_biases_tagger", "prefix_language_model"}
"""Biases of a class without a pooler, and layers that run with the keys of others."""


def write_adapter(golden: Path, folder: Path, base: Any, within: ModelClass) -> bool:
    """The adapter of a golden with other weights; False where PEFT has no form for it."""
    facts = facts_of(golden.parents[1].name)
    found = open_adapter_folder(golden, golden.parent.name).adapter
    contents = peft.read_contents(found, facts, read_shapes(golden / peft.WEIGHTS[0]))
    method, seed = contents.method, f"{facts.model_type}/{golden.parent.name}/peft"
    if contents.head.name:
        slots = {k: fresh(f"{seed}/{k}", t) for k, t in peft.read_head(found, contents).items()}
        head = from_slots(contents.head.name, slots)
        within = class_by_name(contents.head.name, base.config, facts, head)
    if not peft_writer.can_write(method, facts, within):
        return False
    weights = {
        (site, name): fresh(f"{seed}/{site}.{name}", torch.empty(shape))
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }
    peft_writer.write(folder, method, weights, facts, within)
    return True


def facts_of(family: str) -> Facts:
    return read_facts(read_config(BACKBONES / family / "backbone"), f"tiny/{family}")


def write_case(golden: Path, folder: Path) -> bool:
    """One case: the adapter with its head, and what we compute with it."""
    family = golden.parent.name
    case = json.loads((golden / "case.json").read_text())
    speaks = "LM" in str(case["task"])
    base = load_backbone(BACKBONES / family / "backbone", with_head=speaks)
    within = ModelClass(*CLASSES[family]) if speaks else ModelClass()
    if not write_adapter(golden / "a", folder / "a", base, within):
        return False
    batch = load_file(golden / "expected.safetensors")
    stored = batch.pop("output")
    brought = "vocabulary" in golden.name
    model = compose("./a", base, root=folder, head="backbone" if speaks and not brought else "auto")
    ids, mask = shaped(case["task"], batch["input_ids"], batch["attention_mask"])
    more = {"decoder_input_ids": ids} if base.config.is_encoder_decoder else {}
    with torch.no_grad():
        out = model(ids, attention_mask=mask, **more)
    output = out.logits if case["task"] else out.last_hidden_state
    if stored.shape == output.shape and (output - stored).abs().max() < 0.01:
        raise RuntimeError(f"{golden}: other weights, the same output")
    save_file(batch | {"output": output.contiguous()}, folder / "expected.safetensors")
    described = case | {"note": "written by adaptcompose"}
    (folder / "case.json").write_text(json.dumps(described, indent=2) + "\n")
    return True


def main() -> int:
    """All cases, below DIR as they are below goldens_peft."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR")
    root: Path = parser.parse_args().root
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shutil.rmtree(root, ignore_errors=True)
    folders = sorted(path.parent for path in GOLDENS.glob("*/*/case.json"))
    left = [str(g) for g in folders if not write_case(g, root / g.relative_to(GOLDENS))]
    print(f"{len(folders) - len(left)} cases written to {root}; no form for {', '.join(left)}")
    return 0 if {Path(one).name for one in left} == UNWRITTEN else 1


if __name__ == "__main__":
    sys.exit(main())
