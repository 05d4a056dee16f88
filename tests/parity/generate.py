"""Make the golden folders with the peer: `.venv-peer/bin/python tests/parity/generate.py`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from adapters import AdapterConfig, AdapterFusionConfig
from backbones import LAYERS, STACKS, generator, make_backbone, make_batch, randomise
from cases import CASES, FAMILIES, SAFETENSORS, Case
from decoder_cases import DECODER_CASES, DECODERS, GATED
from old import age
from peer import (
    OWN_HEAD,
    activate,
    add_own_head,
    fused,
    load_backbone,
    load_static,
    run,
    write_case,
)
from torch import nn
from transformers.utils import logging

GOLDENS = Path(__file__).parent / "goldens"
LANGUAGE = ("AutoModelForMaskedLM", "AutoModelForSeq2SeqLM")


def expression(case: Case) -> str:
    """The composition in the language, with references relative to the case's folder."""

    def text(setup: Any) -> str:
        if isinstance(setup, str):
            return f"./{setup}"
        parts = [text(child) for child in setup[1:]]
        if setup[0] == "Fuse":
            parts.append("load=./fusion")
        return f"{setup[0].lower()}({', '.join(parts)})"

    stages = ["none" if case.setup is None else text(case.setup)]
    if case.drop:
        stages.append("drop(" + ", ".join(f"{k}={v}" for k, v in case.drop.items()) + ")")
    return " | ".join(stages)


def skipped(family: str, case: Case) -> list[int]:
    """Layers without adapters; the peer counts a decoder's on from those of the encoder."""
    bottom, top = case.drop.get("bottom", 0), case.drop.get("top", 0)
    found, start = [], 0
    for layers in STACKS.get(family, (LAYERS,)):
        found += [start + layer for layer in (*range(bottom), *range(layers - top, layers))]
        start += layers
    return found


def add_parts(model: Any, case: Case) -> None:
    """Adapters, fusion and head of the case, with the peer's own initial values."""
    for name, (base, changes) in case.adapters.items():
        model.add_adapter(name, config=AdapterConfig.load(base, **changes))
    if names := fused(case.setup):
        options = dict(case.fusion or {})
        config = AdapterFusionConfig.load(options.pop("kind"), temperature=False, **options)
        model.add_adapter_fusion(names, config)
    if case.head:
        name, kind, arguments = case.head
        getattr(model, f"add_{kind}_head")(name, **arguments)


def randomise_parts(model: Any, known: set[int], stream: torch.Generator) -> None:
    """Every new parameter random and non-zero: zeros of an initialisation would hide errors.

    Parameters in `known` are the backbone's; a vocabulary tied to the embeddings is one of them.
    """
    seen = set(known)
    for path, module in sorted(model.named_modules()):
        fresh = {n: p for n, p in module.named_parameters(recurse=False) if id(p) not in seen}
        seen.update(id(p) for p in fresh.values())
        if not fresh:
            continue
        if len(fresh) < len(list(module.parameters(recurse=False))):  # a tied vocabulary's bias
            for parameter in fresh.values():
                parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=stream))
        elif "scaling" in fresh:
            noise = torch.randn(fresh["scaling"].shape, generator=stream)
            fresh["scaling"].data.copy_(1 + 0.3 * noise)
        else:
            randomise({path: module}, stream, spread_of(path, module))


def spread_of(path: str, module: nn.Module) -> float:
    """Outputs and attention scores of order one."""
    if not hasattr(module, "weight"):  # the factors of Kronecker products, or of LoRA
        return 0.3 if ".loras." in path else 0.5
    if path.endswith((".query", ".key")) and "adapter_fusion_layer" in path:
        return 0.1
    return 0.2 if min(module.weight.shape) > 8 else 0.3


def in_safetensors(family: str, case: Case) -> bool:
    """Which file format; the peer cannot write safetensors of what it lists twice."""
    twice = case.static in LANGUAGE  # the vocabulary, or its bias
    twice |= any(base.startswith("prefix_tuning") for base, _ in case.adapters.values())
    if twice or any(changes.get("ln_before") for _, changes in case.adapters.values()):
        return False
    return case.safetensors or family == SAFETENSORS


def save_parts(model: Any, case: Case, folder: Path, safetensors: bool) -> None:
    """The folders as the peer writes them; a head of an adapter's name goes into its folder."""
    for name in case.adapters:
        model.save_adapter(str(folder / name), name, use_safetensors=safetensors)
    if names := fused(case.setup):
        model.save_adapter_fusion(str(folder / "fusion"), names, use_safetensors=safetensors)
    if case.own_head:
        model.save_head(str(folder / OWN_HEAD), OWN_HEAD, use_safetensors=safetensors)


def assert_used(
    model: Any, case: Case, batch: dict[str, torch.Tensor], output: str, result: torch.Tensor
) -> None:
    """A golden of inactive adapters would prove nothing."""
    model.set_active_adapters(None)
    if (run(model, batch, output) - result).abs().max() < 0.1:
        raise RuntimeError(f"{case.name}: the adapters had no effect")


def make_case(family: str, case: Case, root: Path) -> None:
    """One folder: what the peer wrote, what it computed, and how to say it in the language."""
    folder = root / case.name
    folder.mkdir(parents=True)
    if case.static:
        make_static_case(family, case, root)
        return
    model = load_backbone(root / "backbone")
    if case.own_head:
        add_own_head(model, root / "backbone")
    known = {id(p) for p in model.parameters()}
    add_parts(model, case)
    randomise_parts(model, known, generator(family, case.name))
    save_parts(model, case, folder, in_safetensors(family, case))
    if case.unrun:
        return
    if case.old:
        model = reload_old(case, folder, root)

    peer_head = OWN_HEAD if case.own_head else (case.head[0] if case.head else None)
    activate(model.eval(), case.setup, skipped(family, case), peer_head)
    output = "logits" if peer_head else "last_hidden_state"
    batch = make_batch(family, model.config.pad_token_id)
    result = run(model, batch, output)
    if case.setup is not None:
        assert_used(model, case, batch, output, result)
    describe_case(folder, family, case, peer_head, batch | {"output": result})


def reload_old(case: Case, folder: Path, root: Path) -> Any:
    """What the peer reads out of files of an earlier year."""
    model = load_backbone(root / "backbone")
    for name in case.adapters:
        age(folder / name, str(case.old))
        model.load_adapter(str(folder / name), with_head=False)
    return model


def make_static_case(family: str, case: Case, root: Path) -> None:
    """The head of a class of transformers, saved beside the adapter."""
    folder, stream = root / case.name, generator(family, case.name)
    model = load_static(root / "backbone", str(case.static))
    known = {id(p) for p in model.base_model.parameters()}
    ((name, (base, changes)),) = case.adapters.items()
    model.add_adapter(name, config=AdapterConfig.load(base, **changes))
    known |= {id(p) for p in model.parameters()} if case.static in LANGUAGE else set()
    own = (f".{name}.", "qa_outputs.")  # T5 is its own base model
    known -= {id(p) for key, p in model.named_parameters() if any(one in key for one in own)}
    randomise_parts(model, known, stream)
    safe = in_safetensors(family, case)
    model.save_adapter(str(folder / name), name, with_head=True, use_safetensors=safe)
    model.set_active_adapters(name)
    batch = make_batch(family, model.config.pad_token_id)
    result = run(model.eval(), batch, "logits")
    model.set_active_adapters(None)
    if (run(model, batch, "logits") - result).abs().max() < 0.05:
        raise RuntimeError(f"{case.name}: the adapter had no effect")
    describe_case(folder, family, case, name, batch | {"output": result})


def describe_case(
    folder: Path, family: str, case: Case, head: str | None, tensors: dict[str, torch.Tensor]
) -> None:
    """case.json and expected.safetensors."""
    description = {
        "family": family,
        "backbone": "../backbone",
        "compose": expression(case),
        "head": head if case.static else case.head[0] if case.head else None,
        "output": "logits" if head else "last_hidden_state",
        "note": case.note,
        "peer": {"setup": case.setup, "skip_layers": skipped(family, case), "head": head},
    }
    write_case(folder, description, tensors)
    print(f"{family:12} {case.name:30} |max| {tensors['output'].abs().max():.2f}", flush=True)


def main() -> None:
    """Rebuild all goldens, or only some families and cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=GOLDENS)
    every = (*FAMILIES, *DECODERS, *GATED)
    parser.add_argument("--family", choices=every, action="append")
    parser.add_argument("--case", action="append", help="only this case, with a fresh backbone")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    for family in arguments.family or every:
        root = arguments.out / family
        shutil.rmtree(root, ignore_errors=True)
        make_backbone(family, root / "backbone")
        for case in CASES if family in FAMILIES else DECODER_CASES:
            if family in case.families and case.name in (arguments.case or [case.name]):
                make_case(family, case, root)


if __name__ == "__main__":
    main()
