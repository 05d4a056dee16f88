"""Write the cases of the goldens with our tool: `.venv/bin/python tests/parity/write.py DIR`.

The settings of each part are those of the golden, its weights are fresh, random and non-zero; what
we compute goes into expected.safetensors. `check_written.py DIR` then reads it with the peer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from adaptcompose.backbones.layout import Facts, Site, read_config, read_facts
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD
from adaptcompose.formats.adapterhub_writer import AdapterHubWriter
from adaptcompose.methods import Method
from adaptcompose.runtime.compose import compose

GOLDENS = Path(__file__).parent / "goldens"


def fresh(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Weights of norms and scales around one, the others normal; the same for the same key."""
    stream = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    noise = torch.randn(tensor.shape, generator=stream)
    if tensor.dim() == 1 and not key.endswith("bias"):
        return 1 + 0.3 * torch.tanh(noise)
    return (0.1 if ".query" in key or ".key" in key else 0.2) * noise


def weights(method: Method, facts: Facts, seed: str) -> dict[tuple[Site, str], torch.Tensor]:
    return {
        (site, name): fresh(f"{seed}/{site}.{name}", torch.empty(shape))
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }


def write_part(golden: Path, folder: Path, facts: Facts) -> None:
    """Adapter, fusion and head that the golden's folder holds, with other weights."""
    writer, seed = AdapterHubWriter(facts), f"{facts.model_type}/{golden.parent.name}/{golden.name}"
    if (golden / ADAPTER).is_file():
        found = open_adapter_folder(golden, golden.name).adapter
        method = adapterhub.read_method(found, facts)
        writer.adapter(folder, found.name, method, weights(method, facts, seed))
    if (found_fusion := adapterhub.read_config(golden, FUSION, golden.name)) is not None:
        fusion = adapterhub.read_fusion(found_fusion, facts)
        names = found_fusion.document["adapter_names"]
        writer.fusion(folder, names, fusion, weights(fusion, facts, seed))
    if (found_head := adapterhub.read_config(golden, HEAD, golden.name)) is not None:
        tensors = adapterhub.read_head(found_head)
        if not found_head.config["head_type"].endswith("_lm"):  # tied to the backbone
            tensors = {key: fresh(f"{seed}/head.{key}", old) for key, old in tensors.items()}
        writer.head(folder, found_head.name or golden.name, found_head.config, tensors)


def write_case(golden: Path, folder: Path) -> None:
    """One case: its parts, what we compute with them, and how the peer is to be set up."""
    case: dict[str, Any] = json.loads((golden / "case.json").read_text())
    backbone = (golden / case["backbone"]).resolve()
    facts = read_facts(read_config(backbone), f"tiny/{case['family']}")
    for part in sorted(path for path in golden.iterdir() if path.is_dir()):
        write_part(part, folder / part.name, facts)
    folder.mkdir(parents=True, exist_ok=True)
    batch = load_file(golden / "expected.safetensors")
    stored = batch.pop("output")
    head = f"./{case['head']}" if case["head"] else None
    if head is None and case["output"] == "logits":
        head = "backbone"
    model = compose(case["compose"], backbone, root=folder, head=head)
    with torch.no_grad():
        output = model(**batch)[case["output"]]
    if case["peer"]["setup"] is not None and (output - stored).abs().max() < 0.01:
        raise RuntimeError(f"{golden}: other weights, the same output")
    save_file(batch | {"output": output.contiguous()}, folder / "expected.safetensors")
    (folder / "case.json").write_text(json.dumps(case | {"backbone": str(backbone)}, indent=2))


def main() -> int:
    """All cases, below DIR as they are below goldens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--bin", action="store_true", help="leave only the peer's default files")
    parser.add_argument("--case", action="append", help="only cases of this name")
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    root: Path = given.root
    shutil.rmtree(root, ignore_errors=True)
    folders = sorted(path.parent for path in GOLDENS.glob("*/*/case.json"))
    folders = [path for path in folders if path.name in (given.case or [path.name])]
    for golden in folders:
        write_case(golden, root / golden.relative_to(GOLDENS))
    for path in root.rglob("*.safetensors") if given.bin else ():
        if path.name != "expected.safetensors":
            path.unlink()
    print(f"{len(folders)} cases written to {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
