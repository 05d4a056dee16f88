"""A place to work in: a tiny backbone with its tokenizer, a folder hub, data, specs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

from adaptcompose.cli.main import main
from adaptcompose.cli.terminal import Terminal
from adaptcompose.experiment.prepare.preparer import lock_path, prepare_runs
from adaptcompose.experiment.run.run import Run
from adaptcompose.experiment.spec.spec import read_specs
from adaptcompose.hub.folder import FolderStore
from adaptcompose.hub.store import walk_files
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.storage.yaml_source import dump_yaml

LAYERS, WIDTH = 3, 16
PATIENCE = 900.0
"""Seconds after which a process counts as hung, also on a slow machine that does much else."""

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
PEOPLE, PLACES, OTHERS = ["amina", "juma"], ["mombasa", "nairobi"], ["lives", "in", "sees", "and"]
WORDS = PEOPLE + PLACES + OTHERS


def make_tokenizer(folder: Path) -> None:
    numbers = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        model_max_length=32,
    ).save_pretrained(str(folder))  # fmt: skip


def make_checkpoint(folder: Path, family: str = "xlm-roberta", **changes: Any) -> Path:
    """A random backbone with its masked-lm head and its tokenizer."""
    sizes = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": WIDTH,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "type_vocab_size": 1,
        "initializer_range": 0.3,
    }
    torch.manual_seed(7)
    config = AutoConfig.for_model(family, **(sizes | changes))
    model = AutoModelForMaskedLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def sentences(count: int, start: int = 0) -> list[list[str]]:
    """Deterministic sentences: a person does something in a place, of growing length."""
    found = []
    for number in range(start, start + count):
        person, place = PEOPLE[number % 2], PLACES[(number // 2) % 2]
        found.append([person, OTHERS[number % 4], place, *OTHERS[: number % 3]])
    return found


def tags(words: list[str]) -> list[str]:
    kinds = dict.fromkeys(PEOPLE, "B-PER") | dict.fromkeys(PLACES, "B-LOC")
    return [kinds.get(word, "O") for word in words]


def write_data(folder: Path) -> None:
    """The same sentences in every format, with a class (the place) or tags (the names)."""
    folder.mkdir(exist_ok=True)
    for split, start in (("train", 0), ("validation", 3), ("test", 5)):
        found = sentences(10 if split == "train" else 5, start)
        rows = [(" ".join(words), words[2], words) for words in found]
        records = [json.dumps({"text": text, "labels": label}) for text, label, _ in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(records) + "\n")
        lines = [f"{text},{label}" for text, label, _ in rows]
        (folder / f"{split}.csv").write_text("text,labels\n" + "\n".join(lines) + "\n")
        (folder / f"{split}.tsv").write_text(
            "text\tlabels\n" + "".join(f"{text}\t{label}\n" for text, label, _ in rows)
        )
        blocks = [
            "\n".join(f"{word} {tag}" for word, tag in zip(words, tags(words), strict=True))
            for _, _, words in rows
        ]
        (folder / f"{split}.conll").write_text("\n\n".join(blocks) + "\n")
        (folder / f"{split}.txt").write_text("".join(f"{text}\n" for text, _, _ in rows))


@dataclass(frozen=True)
class Workshop:
    """A folder with `base/` (the backbone), `hub/`, `data/`, `hub_cards/`, and specs."""

    root: Path

    @property
    def hub(self) -> FolderStore:
        return FolderStore(self.root / "hub", "./hub")

    def spec(self, name: str = "demo", **entries: Any) -> Path:
        """Write a spec with the usual start."""
        start = {
            "spec": 1,
            "name": name,
            "hub": "./hub",
            "backbone": {"model": "./base", "as": "demo/base"},
        }
        path = self.root / f"{name}.yaml"
        path.write_text(dump_yaml(start | entries))
        return path

    def data(self, form: str, *splits: str) -> dict[str, Any]:
        """The `data:` section of one format, called `d`."""
        wanted = splits or ("train", "validation", "test")
        return {"d": {"files": {split: f"data/{split}.{form}" for split in wanted}}}

    def run(self, path: Path, sink: Any = None, **options: Any) -> dict[str, Any]:
        """What `adaptcompose run` does, in this process; runs/ is beside the spec."""
        prepared = prepare_runs(read_specs(path), path)[0]
        prepared.read_inputs()
        made = Run(
            prepared,
            prepared.make_plan(),
            self.root / "runs" / prepared.spec.name,
            sink or Terminal(quiet=True),
            **options,
        )
        prepared.lock.write(lock_path(path))
        return made.run()

    def publish(self, repo: str, expression: str, seed: int = 0, **options: Any) -> str:
        """An adapter of random weights in the hub, and its card if the space is given."""
        torch.manual_seed(seed)
        model = compose(
            expression, self.root / "base", hub=str(self.root / "hub"), root=self.root, **options
        )
        randomise(model)
        folder = self.root / "drafts" / repo
        save_composition(model, folder)
        part = next(path for path in folder.iterdir() if path.is_dir())
        return self.commit(repo, part)

    def commit(self, repo: str, folder: Path) -> str:
        files: dict[str, Path | bytes] = {path: folder / path for path in walk_files(folder)}
        return self.hub.commit(repo, files, message="test")

    def card(self, name: str, repo: str, base: str = "demo/base") -> None:
        """`space/name` means the repository on the tiny backbone."""
        path = self.root / "hub_cards" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"title": name, "variants": {base: {"default": {"repo": repo}}}}
        path.write_text(f"---\n{dump_yaml(entry)}---\n")

    def copy(self, root: Path) -> Workshop:
        """The same workshop elsewhere, to change it."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Workshop(root)

    def files(self) -> dict[str, bytes]:
        """Everything that is there, to see that nothing was written."""
        paths = sorted(path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}


def randomise(model: ComposedModel) -> None:
    for parameter in model.parts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if model.head is not None:
        for parameter in model.head.slots.parameters():
            torch.nn.init.normal_(parameter, std=0.3)


def make_workshop(root: Path) -> Workshop:
    """Backbone, data, and adapters lang/en, lang/sw, task/ner (with a head), glue/a, glue/b."""
    shop = Workshop(root)
    make_checkpoint(root / "base")
    write_data(root / "data")
    for number, name in enumerate(("en", "sw")):
        shop.publish(f"demo/{name}", "language()", number, head=None)
        shop.card(f"lang/{name}", f"demo/{name}")
    for number, name in enumerate(("a", "b")):
        shop.publish(f"demo/glue-{name}", "pfeiffer(reduction=4)", 10 + number, head=None)
        shop.card(f"glue/{name}", f"demo/glue-{name}")
    labels = ["B-LOC", "B-PER", "O"]
    head = {"task": "token-classification", "labels": labels}
    shop.publish("demo/ner", "pfeiffer(reduction=4)", 20, head=head)
    shop.card("task/ner", "demo/ner")
    return shop


def logits(model: ComposedModel) -> torch.Tensor:
    """The outputs for a padded batch."""
    ids = torch.tensor([[0, 5, 9, 7, 10, 2], [0, 6, 11, 2, 1, 1]])
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=(ids != 1).long())
    found = out.logits if out.logits is not None else out.last_hidden_state
    assert found is not None
    return found


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in this process, which need not start and import torch first."""
    out, err = io.StringIO(), io.StringIO()
    with inside(cwd), redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def command(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "adaptcompose", *arguments],
        cwd=cwd,
        text=True,
        capture_output=True,
        env=dict(os.environ) | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | dict(environment or {}),
        check=False,
    )
