"""A pulled composition in the library `adapters`: `in_adapters.py BACKBONE FOLDER INPUTS OUTPUT`.

The composition is the one of test_whole.py; below the drop its fusion has no weights, and the peer
skips those layers too.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
from peer import activate, load_backbone, run
from safetensors.torch import load_file, save_file

MEMBERS = ("glue-a", "glue-b")


def main(backbone: str, folder: str, inputs: str, output: str) -> None:
    model = load_backbone(Path(backbone))
    for name in ("en", "ner", *MEMBERS):
        model.load_adapter(f"{folder}/{name}", with_head=False, use_safetensors=True)
    model.load_adapter_fusion(f"{folder}/fuse", use_safetensors=True)
    model.load_head(f"{folder}/ner", use_safetensors=True)
    setup = ["Stack", "en", "ner", ["Fuse", *MEMBERS]]
    activate(model.eval(), setup, skip_layers=[0], head="ner")
    save_file({"output": run(model, load_file(inputs), "logits").contiguous()}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
