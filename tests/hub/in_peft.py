"""An adapter's folder in PEFT's own environment: `in_peft.py BACKBONE FOLDER INPUTS OUTPUT`."""

from __future__ import annotations

import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel


def main(backbone: str, folder: str, inputs: str, output: str) -> None:
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), folder).eval()
    with torch.no_grad():
        found = model(**load_file(inputs)).last_hidden_state
    save_file({"output": found.contiguous()}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
