"""The backbone and the adapters of the benchmark: random, none zero, in AdapterHub's format.

Written once below the build folder, and read by us and by `adapters` alike.
"""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from cases import Shape
from measure import make_batch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

import adaptcompose as ac
from adaptcompose.backbones.layout import Facts, Site, read_config, read_facts
from adaptcompose.formats.adapterhub_writer import AdapterHubWriter
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.methods.fusion import Fusion
from adaptcompose.methods.method import Method
from adaptcompose.runtime.ops.fusion import MixtureModule

AIM = 12.0
"""The largest score of a fusion on one row; batches of more rows find somewhat larger ones."""


def stream(*words: object) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, words)).encode()))


def write_backbone(shape: Shape, folder: Path) -> Path:
    """A random model of transformers; made anew if the folder is of another shape."""
    backbone, note = folder / "backbone", folder / "shape.json"
    described = json.dumps({"config": shape.config, "aim": AIM}, sort_keys=True)
    if note.is_file() and note.read_text() == described:
        return backbone
    shutil.rmtree(folder, ignore_errors=True)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model("bert", **(shape.config | off)))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            noise = torch.randn(parameter.shape, generator=stream("backbone", name))
            parameter.data.copy_(0.02 * noise)
    model.save_pretrained(backbone)
    note.write_text(described)
    return backbone


def fresh(name: str, key: str, site: Site, shape: tuple[int, ...], reach: float) -> Tensor:
    """States and contributions of order one; `reach` scales the query, and so the scores."""
    noise = torch.randn(shape, generator=stream(name, site, key))
    if key.endswith("bias"):
        return 0.05 * noise
    noise = noise / shape[-1] ** 0.5
    if key == "value.weight":
        return torch.eye(shape[0]) + 0.3 * noise
    return (reach if key == "query.weight" else 0.7) * noise


def tensors(name: str, method: Method, facts: Facts, reach: float = 1.0) -> dict[Any, Tensor]:
    return {
        (site, key): fresh(name, key, site, shape, reach)
        for site in method.sites(facts)
        for key, shape in method.tensors(site, facts).items()
    }


def write_part(name: str, model: PreTrainedModel, folder: Path) -> None:
    """One adapter or fusion, unless it is there already."""
    if (folder / name / "complete").is_file():
        return
    facts = read_facts(read_config(folder / "backbone"), None)
    writer = AdapterHubWriter(facts, pickles=False)
    if name.startswith("fusion"):
        write_fusion(name, model, folder, writer)
    else:
        language = Bottleneck(reduction=2.0, invertible="nice")
        method = language if name == "lang" else Bottleneck()
        writer.adapter(folder / name, name, method, tensors(name, method, facts))
    (folder / name / "complete").touch()


def write_fusion(name: str, model: PreTrainedModel, folder: Path, writer: AdapterHubWriter) -> None:
    """Scaled until the largest score is near the middle of what the exactness is promised for."""
    members = [f"a{number}" for number in range(int(name.removeprefix("fusion")))]
    fusion, reach = Fusion(fused_sites=tuple(writer.facts.sites("ffn.out"))), 1.0
    for _ in range(6):
        made = tensors(name, fusion, writer.facts, reach)
        writer.fusion(folder / name, members, fusion, made)
        largest = largest_score(name, members, model, folder)
        if AIM / 1.3 <= largest <= AIM * 1.3:
            return
        reach *= AIM / largest
    raise RuntimeError(f"{name}: the largest score stays at {largest:.1f}")


def largest_score(name: str, members: list[str], model: PreTrainedModel, folder: Path) -> float:
    text = f"fuse({', '.join(f'./{member}' for member in members)}, load=./{name})"
    composed = ac.compose(text, model, root=folder, head=None, optimise=False)
    scores = watch_scores(composed)
    tokens = min(128, model.config.max_position_embeddings)
    with torch.no_grad():
        composed(**make_batch(1, tokens, model.config.vocab_size, str(model.device)))
    return max(scores)


def watch_scores(model: torch.nn.Module) -> list[float]:
    """A list that every forward of a literal fusion adds its largest |score| to."""
    seen: list[float] = []

    def note(_module: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        seen.append(float(inputs[0].abs().max()))

    for module in model.modules():
        if isinstance(module, MixtureModule):
            module.dropout.register_forward_hook(note)  # the scores pass through it
    return seen
