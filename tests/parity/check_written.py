"""Read folders with the peer: `.venv-peer/bin/python tests/parity/check_written.py DIR`.

Every case.json below DIR is one case. The peer must find every key it knows, no other one, and
compute the stored output.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from adapters.loading import AdapterFusionLoader
from closeness import TOLERANCE, distance
from peer import activate, fused, leaves, load_backbone, read_case, run
from transformers.utils import logging

ALIAS = ".prefix_tuning.pool."  # a prefix, once more for every layer; we write it once
GOLDENS = Path(__file__).parent / "goldens"
# What classes of transformers wrote and the peer's flexible class does not read as they ran it:
# Llama's for questions has its base model under another name, and T5's scales no states.
UNREAD = ("llama/static_qa", "t5/static_qa")
# Under these a static language model's head has the bias of its vocabulary a second time.
AGAIN = ("cls.predictions.bias", "lm_head.bias")


def demand(what: str, name: str, expected: str, info: dict[str, Any]) -> None:
    """The part has the expected name, and its file exactly the expected keys."""
    if name != expected:
        raise ValueError(f"{what}: the folder holds {name!r}, not {expected!r}")
    for kind in ("missing_keys", "unexpected_keys"):
        if kind not in info:
            raise ValueError(f"{what}: the peer reports no {kind}, so it loaded no weights")
        if odd := [key for key in info[kind] if ALIAS not in key]:
            raise ValueError(f"{what}: {kind} {sorted(odd)}")


def load_parts(model: Any, folder: Path, peer: dict[str, Any]) -> None:
    """Adapters from `<name>/`, the fusion from `fusion/`, the head from `<head>/`."""
    for name in leaves(peer["setup"]):
        info: dict[str, Any] = {}
        found = model.load_adapter(
            str(folder / name), with_head=False, use_safetensors=True, loading_info=info
        )
        demand(f"adapter {name}", found, name, info)
    if names := fused(peer["setup"]):
        info = {}
        # The model's load_adapter_fusion drops `loading_info` and the name; its loader does not.
        loader = AdapterFusionLoader(model, use_safetensors=True)
        _, found = loader.load(str(folder / "fusion"), loading_info=info, set_active=False)
        demand("fusion", found, ",".join(names), info)
    if peer["head"]:
        info = {}
        _, found = model.load_head(
            str(folder / peer["head"]),
            load_as=peer["head"],  # a static head has no name
            use_safetensors=True,
            loading_info=info,
        )
        info["unexpected_keys"] = [key for key in info["unexpected_keys"] if key not in AGAIN]
        demand(f"head {peer['head']}", found, peer["head"], info)


def backbone_of(folder: Path, case: dict[str, Any], root: Path) -> Path:
    """The case's own `backbone`, else `<DIR>/<family>/backbone`."""
    if "backbone" in case:
        return (folder / case["backbone"]).resolve()
    return root / case["family"] / "backbone"


def check(folder: Path, root: Path) -> float:
    """How far the peer's output is from the stored one."""
    case, tensors = read_case(folder)
    model = load_backbone(backbone_of(folder, case, root))
    peer = case["peer"]
    load_parts(model, folder, peer)
    activate(model.eval(), peer["setup"], peer["skip_layers"], peer["head"])
    output = run(model, tensors, case["output"])
    found = distance(output, tensors["output"])
    if not found <= TOLERANCE:  # so that nan fails too
        raise ValueError(f"the output differs by {found:.1e} of the largest value")
    return found


def main() -> int:
    """One line a case; fails if one of them does, or if there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR")
    root = parser.parse_args().root
    logging.set_verbosity_error()
    folders = sorted(path.parent for path in root.rglob("case.json"))
    if root.resolve() == GOLDENS.resolve():
        folders = [path for path in folders if str(path.relative_to(root)) not in UNREAD]
    failures = 0
    for folder in folders:
        label = str(folder.relative_to(root))
        try:
            print(f"ok    {label:45} {check(folder, root):.1e}", flush=True)
        except Exception as error:
            failures += 1
            print(f"FAIL  {label:45} {type(error).__name__}: {error}", flush=True)
    print(f"{len(folders) - failures} of {len(folders)} cases pass")
    return 1 if failures or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
