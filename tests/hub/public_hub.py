"""Repositories under the names of the public Hub, filled with tiny backbones and adapters.

The adapters are as AdapterHub's are: pickles only, the early names of the backbones, cards without
a base model; and at the commits that the catalogue pins.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from adaptcompose.catalogue.cards import Catalogue, Variant
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.writer import save_composition
from tests.workshop import make_checkpoint, randomise

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Hub

XLMR, BERT = "FacebookAI/xlm-roberta-base", "google-bert/bert-base-uncased"
CARD = """\
---
tags:
- {type}
- adapter-transformers
- adapterhub:{name}
language:
- {language}
license: apache-2.0
---
# Adapter `{repo}`
"""


def fill(hub: Hub, root: Path, names: tuple[str, ...] = ("lang/en", "lang/sw")) -> None:
    """XLM-R with these adapters."""
    make_checkpoint(root / "xlmr")
    hub.add_folder(XLMR, root / "xlmr")
    _adapters(hub, root, XLMR, root / "xlmr", names)


def fill_glue(hub: Hub, root: Path) -> None:
    """BERT with the adapters of GLUE."""
    make_checkpoint(root / "bert", "bert", type_vocab_size=2)
    hub.add_folder(BERT, root / "bert")
    names = [f"glue/{name}" for name in Catalogue.open(resource_folder("hub_cards")).names("glue")]
    _adapters(hub, root, BERT, root / "bert", tuple(names))


def _adapters(hub: Hub, root: Path, base: str, place: Path, names: tuple[str, ...]) -> None:
    cards = Catalogue.open(resource_folder("hub_cards"))
    for number, name in enumerate(names):
        variant = cards.resolve_variant(*name.split("/"), base)
        files = _adapter(root / "drafts" / name, place, variant, number)
        kind = "bert" if base == BERT else "xlm-roberta"
        about = {"type": kind, "name": name, "language": name[-2:], "repo": variant.repo}
        hub.add(variant.repo, files | {"README.md": CARD.format(**about).encode()})
        if variant.revision:
            hub.repos[variant.repo] = [(variant.revision, hub.files(variant.repo))]
            hub.branches[variant.repo, "main"] = variant.revision


def _adapter(folder: Path, place: Path, variant: Variant, seed: int) -> dict[str, bytes]:
    """The files of a random adapter, as the library wrote them before safetensors."""
    torch.manual_seed(seed)
    head = {"task": "text-classification", "labels": ["no", "yes"]}
    method = str(variant.method)
    model = compose(method, place, head=None if method.startswith("language") else head)
    save_composition(randomise(model) or model, folder)
    part = next(path for path in folder.iterdir() if path.is_dir())
    files = {
        path.name: path.read_bytes() for path in part.iterdir() if path.suffix != ".safetensors"
    }
    early = variant.backbone.split("/")[-1]
    for name in [name for name in files if name.endswith(".json")]:
        outer = json.loads(files[name]) | {"model_name": early}
        files[name] = json.dumps(outer).encode()
    return files
