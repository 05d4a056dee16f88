"""The schema of spec.yaml: a composition, its task and data, and what to do with them.

The fields below are the schema: names, types, defaults, limits and help are stated here only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from adaptcompose.diagnostics.diagnostic import Source, Span
from adaptcompose.experiment.spec.section_reader import Section, key
from adaptcompose.experiment.spec.value_types import DataRef, Duration, LayerRange, Word
from adaptcompose.resolution.dataset_splits import format_of
from adaptcompose.resolution.datasets import DataSet
from adaptcompose.tasks.metrics import KINDS

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NAME = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
ROLES = {"text": 2, "tokens": 1, "labels": 1}


@dataclass(frozen=True, kw_only=True)
class BackboneSection(Section):
    """The model that everything is attached to. A bare text is its `model`."""

    shorthand: ClassVar[str | None] = "model"

    model: str = key("repository of the hub with @revision, or ./folder")
    known_as: str | None = key(
        "the name that the catalogue knows a folder's model by", None, name="as"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = key("number format", "auto")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = key("attention kernel", "sdpa")
    max_length: int | None = key("longest input in tokens; else the tokenizer's", None, least=3)
    tokenizer: str | None = key("another repository or folder for the tokenizer", None)


@dataclass(frozen=True, kw_only=True)
class TaskSection(Section):
    """What is predicted."""

    kind: str = key("kind of task", among=tuple(KINDS))
    labels: tuple[Word, ...] | None = key(
        "the labels in order; else those of the training data", None
    )
    metric: str | None = key("score that chooses the best state; else the kind's own", None)
    head: str = key("new, of-adapter, of-backbone, or a reference to an adapter with one", "auto")
    mask: float = key("share of the tokens that masked-lm hides", 0.15, above=0, most=1)


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """Examples. Used as `name`, `name[config]`, `name/split` or `name[config]/split`.

    `held` is the data set that `repo` names, once the hub was asked.
    """

    choices: ClassVar[tuple[tuple[str, ...], ...]] = (("files", "repo"),)
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("files", "repo"),)

    files: dict[str, tuple[str, ...]] = key(
        "train, validation, test: a file or a list of them; {config} stands for the config",
        {},
        single=True,
    )
    repo: str | None = key("data set of the hub, user/name@revision, or a ./folder like it", None)
    splits: dict[str, str] = key("train, validation, test: what the data set calls them", {})
    config: str | None = key(
        "configuration of the data set, or what {config} is, where a reference names none", None
    )
    columns: dict[str, tuple[Word, ...]] = key(
        "text, tokens, labels: a column by name, or number from 0; text may be [first, second]",
        {},
        single=True,
    )
    format: Literal["jsonl", "json", "csv", "tsv", "conll", "text", "parquet"] | None = key(
        "file format; else from the ending, .gz aside", None
    )
    header: bool = key("csv and tsv: the first line names the columns", True)
    limit: int | None = key("read at most this many examples of each split", None, least=1)
    shuffle_seed: int | None = key("shuffle before the limit", None, least=0)

    held: DataSet | None = field(default=None, repr=False, compare=False)

    @property
    def source(self) -> Span | None:
        """Where in the file it is said which files they are."""
        return self.place("files") or self.place("repo")

    @property
    def waiting(self) -> bool:
        """Whether its splits are known only when its hub was asked."""
        return self.repo is not None and self.held is None

    def parts(self, config: str | None) -> Mapping[str, tuple[str, ...]]:
        """The files of each split; those of a data set by its own names and by ours."""
        config = config or self.config
        if self.held is None:
            files = (self.files or {}).items()
            return {s: tuple(p.replace("{config}", config or "") for p in ps) for s, ps in files}
        found = self.held.splits(config)
        ours = {split: found[name] for split, name in self.splits.items() if name in found}
        return {**found, **ours}

    def format_of(self, path: str) -> str | None:
        """The declared format, or the one that the ending of the file names."""
        return self.format or format_of(path)


@dataclass(frozen=True, kw_only=True)
class TrainSection(Section):
    """How what is new is trained."""

    choices: ClassVar[tuple[tuple[str, ...], ...]] = (("epochs", "steps"),)
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("epochs", "steps"),)

    data: DataRef = key("training data; the split is train unless named")
    validation: DataRef | None = key("else the validation split of the same data", None)
    update: tuple[str, ...] | None = key("slots, aliases, fuse, head; else all that is new", None)
    epochs: float | None = key("passes over the data", None, above=0)
    steps: int | None = key("optimiser steps", None, least=1)
    batch: int = key("examples a step", 16, least=1)
    accumulate: int = key("batches summed before a step", 1, least=1)
    lr: float = key("learning rate", 1e-4, above=0)
    optimizer: Literal["adamw", "adafactor", "sgd"] = key("optimiser", "adamw")
    schedule: Literal["linear", "cosine", "constant"] = key("learning rate over time", "linear")
    warmup: float = key("share of the steps in which the rate rises", 0.06, least=0, most=1)
    weight_decay: float = key("decay of the weights", 0.0, least=0)
    clip: float = key("largest norm of the gradient; 0 for none", 1.0, least=0)
    seeds: tuple[int, ...] = key("one run each; the report shows mean ± sd", (0,), least=0)
    keep: Literal["best", "last"] | None = key(
        "the state that counts; else best with validation data, last without", None
    )
    every: int | None = key("validate after so many steps; else after each epoch", None, least=1)
    patience: int | None = key("stop after so many validations without a gain", None, least=1)
    budget: Duration | None = key("stop cleanly after this time", None)
    device: str = key("auto, cpu, cuda, cuda:1, mps", "auto", form=r"auto|cpu|mps|cuda(:\d+)?")
    trunk: Literal["live", "cached"] = key("compute the layers below anew, or once", "live")
    bucket: bool = key("batches of similar length", False)
    robust_drop: LayerRange | None = key(
        "robust AdapterDrop: drop(bottom=n), n drawn from this range for each batch", None
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateSection(Section):
    """A score. With `each`, one for every combination; equal names are pooled in the report."""

    choices: ClassVar[tuple[tuple[str, ...], ...]] = (("pipe", "compose"),)

    name: str = key("row of the report")
    data: DataRef = key("the split is test unless named, or validation if there is no test")
    pipe: Source | None = key("modifiers appended to the composition", None)
    compose: Source | None = key("another composition instead", None)
    metrics: tuple[str, ...] | None = key("scores; else task.metric", None)
    each: dict[str, tuple[Word, ...]] = key("variable to values; ${variable} in this item", {})

    @property
    def variables(self) -> dict[str, str]:
        """The value of each variable in this item."""
        return {name: str(values[0]) for name, values in self.each.items()}


@dataclass(frozen=True, kw_only=True)
class PredictSection(Section):
    """Predictions for examples or for texts written here."""

    choices: ClassVar[tuple[tuple[str, ...], ...]] = (("pipe", "compose"), ("data", "text"))
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("data", "text"),)

    name: str = key("name of the predictions")
    data: DataRef | None = key("the split is test unless named", None)
    text: tuple[str, ...] | None = key("a text or a list of them", None, single=True)
    pipe: Source | None = key("modifiers appended to the composition", None)
    compose: Source | None = key("another composition instead", None)
    out: str | None = key("file to write, in the run's folder", None)


@dataclass(frozen=True, kw_only=True)
class PublishSection(Section):
    """What goes to the hub, and where: the best composition of the run, or another of its parts."""

    choices: ClassVar[tuple[tuple[str, ...], ...]] = (("pipe", "compose"),)

    repo: str = key(
        "repository", form=r"[\w.-]+/[\w.-]+", expected="a repository such as user/name"
    )
    license: str = key("licence of what is published, such as apache-2.0")
    private: bool = key("whether others may not see it", True)
    weights: Literal["new", "all"] = key("what is trained here, or everything used", "new")
    tags: tuple[str, ...] = key("tags of the card", ())
    languages: tuple[str, ...] = key("languages of the card", ())
    datasets: tuple[str, ...] = key("data sets of the card, as the Hub calls them", ())
    branch: str = key("branch", "main")
    message: str | None = key("message of the commit", None)
    pipe: Source | None = key("modifiers appended to the composition", None)
    compose: Source | None = key("another composition instead", None)


@dataclass(frozen=True, kw_only=True)
class ServeSection(Section):
    """Which compositions are answered over HTTP, and how."""

    allow: dict[str, Source] = key("name of a request to the expression that answers it")
    host: str = key("address to listen at", "127.0.0.1")
    port: int = key("port", 8000, least=0, most=65535)
    batch: int = key("largest number of requests that are computed together", 32, least=1)
    wait: Duration = key("longest time that a request waits for others", Duration(0.005))
    cache: int | None = key("adapters kept in memory; else all", None, least=1)

    def items(self) -> tuple[ServedSection, ...]:
        """The compositions that may be asked for."""
        return tuple(
            ServedSection(
                name=name,
                compose=source,
                places={"name": self.key_place("allow", name) or source.span()},
            )
            for name, source in (self.allow or {}).items()
        )


@dataclass(frozen=True, kw_only=True)
class ServedSection(Section):
    """One composition that may be asked for."""

    name: str
    compose: Source
    pipe: Source | None = None


@dataclass(frozen=True, kw_only=True)
class ReportSection(Section):
    """What the report shows besides the scores."""

    plots: Literal["auto", "none"] = key("curves, bars and maps in report.html", "auto")
    baseline: str | None = key("a row of evaluate that the others are compared with", None)


@dataclass(frozen=True, kw_only=True)
class Spec(Section):
    """What is composed, on which backbone, for which task and data, and what to do with it.

    `root` is the folder of the file, where relative paths start.
    `overrides` are the values that a command line set instead of the file's.
    """

    spec: int = key("version of this format", least=1, most=1, expected="1")
    name: str = key(
        "run folder and default repository",
        form=NAME.pattern,
        expected="lower-case letters, digits and single `-`",
    )
    description: str = key("first line of the card", "")
    hub: str = key("hf, or a folder", "hf")
    backbone: BackboneSection = key("the model, or a mapping")
    adapters: dict[str, Source] = key("aliases: name to expression", {})
    compose: Source = key("the composition")
    task: TaskSection | None = key("what is predicted", None)
    data: dict[str, DataSection] = key("name to examples", {})
    train: TrainSection | None = key("how to train what is new", None)
    evaluate: tuple[EvaluateSection, ...] = key("scores", ())
    predict: tuple[PredictSection, ...] = key("predictions", ())
    publish: PublishSection | None = key("where to publish", None)
    serve: ServeSection | None = key("requests over HTTP", None)
    report: ReportSection | None = key("plots and comparisons", None)
    each: dict[str, tuple[Word, ...]] = key(
        "a sweep: variable to values; one run for each combination, ${variable} anywhere", {}
    )

    root: Path = Path()
    overrides: tuple[str, ...] = ()

    @property
    def plotted(self) -> bool:
        """Whether the report shows what there is to plot."""
        return self.report is None or self.report.plots == "auto"

    @property
    def variables(self) -> dict[str, str]:
        """The value of each variable of the sweep in this spec."""
        return {name: str(values[0]) for name, values in self.each.items()}

    def digest(self, *names: str) -> str:
        """sha256 of what the named keys (all, if none is named) say, however it is written."""
        plain = self.plain()
        chosen = {name: plain[name] for name in plain if not names or name in names}
        text = json.dumps(chosen, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def files(self, ref: DataRef) -> tuple[Path, ...]:
        """The files of a split."""
        section = self.data[ref.name]
        paths = section.parts(ref.config)[ref.split or "train"]
        if section.held is None:
            return tuple(self.root / Path(path).expanduser() for path in paths)
        folder = section.held.fetch(paths, section.place("repo"))
        return tuple(folder / path for path in paths)

    def labels(self) -> tuple[str, ...] | None:
        """The labels that the spec declares."""
        declared = self.task.labels if self.task else None
        return None if declared is None else tuple(map(str, declared))
