"""The sections of spec.yaml. Their fields are the schema.

Names, types, defaults, limits and help of all keys are defined here only.
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
from adaptcompose.experiment.spec.value_types import DataRef, Duration, LayerRange, ScalarText
from adaptcompose.resolution.dataset_splits import format_of
from adaptcompose.resolution.datasets import DataSet
from adaptcompose.tasks.metrics import TASK_KINDS

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NAME_PATTERN = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
MAX_COLUMNS_BY_ROLE = {"text": 2, "tokens": 1, "labels": 1}


@dataclass(frozen=True, kw_only=True)
class BackboneSection(Section):
    """The model that adapters are attached to. A plain string stands for `model`."""

    shorthand: ClassVar[str | None] = "model"

    model: str = key("a repository, with @revision if you like, or a ./folder")
    known_as: str | None = key("the name on the Hub of the model in a folder", None, name="as")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = key(
        "number format of the weights", "auto"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = key(
        "attention implementation", "sdpa"
    )
    max_length: int | None = key(
        "longest input in tokens (default: the limit of the tokenizer)", None, minimum=3
    )
    tokenizer: str | None = key("repository or folder of another tokenizer", None)


@dataclass(frozen=True, kw_only=True)
class TaskSection(Section):
    """What the composition predicts."""

    kind: str = key("kind of task", allowed_values=tuple(TASK_KINDS))
    labels: tuple[ScalarText, ...] | None = key(
        "the labels in order (default: those of the training data)", None
    )
    metric: str | None = key(
        "score that selects the best state (default: that of the task kind)", None
    )
    head: str = key(
        "new, of-adapter, of-backbone, or the name of an adapter that has a head", "auto"
    )
    mask: float = key(
        "share of the tokens that masked-lm hides", 0.15, exclusive_minimum=0, maximum=1
    )


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """Examples. Used as `name`, `name[config]`, `name/split` or `name[config]/split`.

    `dataset` is the data set that `repo` names; None until its hub is queried.
    """

    exclusive_keys: ClassVar[tuple[tuple[str, ...], ...]] = (("files", "repo"),)
    required_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("files", "repo"),)

    files: dict[str, tuple[str, ...]] = key(
        "a file or a list of files for train, validation, test; {config} stands for the config",
        {},
        accepts_scalar=True,
    )
    repo: str | None = key(
        "a data set of the hub (user/name@revision), or a ./folder with the same layout", None
    )
    splits: dict[str, str] = key("the names of train, validation, test in the data set", {})
    config: str | None = key("default configuration of the data set, or value of {config}", None)
    columns: dict[str, tuple[ScalarText, ...]] = key(
        "column (name, or number from 0) of text, tokens, labels; text may be a pair of columns",
        {},
        accepts_scalar=True,
    )
    format: Literal["jsonl", "json", "csv", "tsv", "conll", "text", "parquet"] | None = key(
        "file format (default: from the file ending, without .gz)", None
    )
    header: bool = key("whether the first line of csv and tsv names the columns", True)
    limit: int | None = key("read at most this many examples of each split", None, minimum=1)
    shuffle_seed: int | None = key(
        "shuffle with this seed before applying the limit", None, minimum=0
    )

    dataset: DataSet | None = field(default=None, repr=False, compare=False)

    @property
    def files_span(self) -> Span | None:
        """The span of `files` or `repo`."""
        return self.span_of("files") or self.span_of("repo")

    @property
    def is_unresolved(self) -> bool:
        """Whether the data set is on a hub that has not been queried yet."""
        return self.repo is not None and self.dataset is None

    def files_by_split(self, config: str | None) -> Mapping[str, tuple[str, ...]]:
        """The files of each split.

        The splits of a data set have their own names, and train, validation, test as in `splits`.
        """
        config = config or self.config
        if self.dataset is None:
            files = (self.files or {}).items()
            return {s: tuple(p.replace("{config}", config or "") for p in ps) for s, ps in files}
        files_by_name = self.dataset.splits(config)
        renamed = {
            split: files_by_name[name]
            for split, name in self.splits.items()
            if name in files_by_name
        }
        return {**files_by_name, **renamed}

    def format_of(self, path: str) -> str | None:
        """The declared format, or that of the file ending; None for an unknown ending."""
        return self.format or format_of(path)


@dataclass(frozen=True, kw_only=True)
class TrainSection(Section):
    """How new parts are trained."""

    exclusive_keys: ClassVar[tuple[tuple[str, ...], ...]] = (("epochs", "steps"),)
    required_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("epochs", "steps"),)

    data: DataRef = key("training data (default split: train)")
    validation: DataRef | None = key(
        "validation data (default: the validation split of the same data)", None
    )
    update: tuple[str, ...] | None = key(
        "slots, aliases, fuse or head to train (default: everything new)", None
    )
    epochs: float | None = key("number of passes over the data", None, exclusive_minimum=0)
    steps: int | None = key("number of optimiser steps", None, minimum=1)
    batch: int = key("examples per batch", 16, minimum=1)
    accumulate: int = key("batches to accumulate per optimiser step", 1, minimum=1)
    lr: float = key("learning rate", 1e-4, exclusive_minimum=0)
    optimizer: Literal["adamw", "adafactor", "sgd"] = key("optimiser", "adamw")
    schedule: Literal["linear", "cosine", "constant"] = key(
        "schedule of the learning rate", "linear"
    )
    warmup: float = key("share of the steps used for warm-up", 0.06, minimum=0, maximum=1)
    weight_decay: float = key("weight decay", 0.0, minimum=0)
    clip: float = key("largest norm of the gradient; 0 turns clipping off", 1.0, minimum=0)
    seeds: tuple[int, ...] = key("train once per seed; the report shows mean ± sd", (0,), minimum=0)
    keep: Literal["best", "last"] | None = key(
        "which state to keep (default: best with validation data, last without)", None
    )
    every: int | None = key(
        "validate every so many steps (default: after each epoch)", None, minimum=1
    )
    patience: int | None = key(
        "stop after this many validations without improvement", None, minimum=1
    )
    budget: Duration | None = key("stop cleanly after this time", None)
    device: str = key(
        "device: auto, cpu, cuda, cuda:1 or mps", "auto", pattern=r"auto|cpu|mps|cuda(:\d+)?"
    )
    trunk: Literal["live", "cached"] = key(
        "cached: compute the layers below the first trained one only once per example", "live"
    )
    bucket: bool = key("group examples of similar length into batches", False)
    robust_drop: LayerRange | None = key(
        "robust AdapterDrop: drop(bottom=n), with n drawn from this range for each batch", None
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateSection(Section):
    """A row of scores. `each` makes one per combination; equal names share a row of the report."""

    exclusive_keys: ClassVar[tuple[tuple[str, ...], ...]] = (("pipe", "compose"),)

    name: str = key("name of the row in the report")
    data: DataRef = key("data to score (default split: test, or validation if there is no test)")
    pipe: Source | None = key("modifiers to append to the composition", None)
    compose: Source | None = key("another composition to use instead", None)
    metrics: tuple[str, ...] | None = key("scores to compute (default: task.metric)", None)
    each: dict[str, tuple[ScalarText, ...]] = key(
        "variables with their values, used as ${variable} in this item", {}
    )

    @property
    def variables(self) -> dict[str, str]:
        """The value of each variable of `each` in this row."""
        return {name: str(values[0]) for name, values in self.each.items()}


@dataclass(frozen=True, kw_only=True)
class PredictSection(Section):
    """Predictions for examples, or for texts written here."""

    exclusive_keys: ClassVar[tuple[tuple[str, ...], ...]] = (("pipe", "compose"), ("data", "text"))
    required_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("data", "text"),)

    name: str = key("name of the predictions")
    data: DataRef | None = key("data to predict (default split: test)", None)
    text: tuple[str, ...] | None = key(
        "a text or a list of texts to predict", None, accepts_scalar=True
    )
    pipe: Source | None = key("modifiers to append to the composition", None)
    compose: Source | None = key("another composition to use instead", None)
    out: str | None = key("file to write in the folder of the run", None)


@dataclass(frozen=True, kw_only=True)
class PublishSection(Section):
    """What to publish, and where: the best composition of the run, or another one of its parts."""

    exclusive_keys: ClassVar[tuple[tuple[str, ...], ...]] = (("pipe", "compose"),)

    repo: str = key(
        "repository to publish to",
        pattern=r"[\w.-]+/[\w.-]+",
        expected="a repository such as user/name",
    )
    license: str = key("licence of the publication, such as apache-2.0")
    private: bool = key("whether a new repository is private", True)
    weights: Literal["new", "all"] = key(
        "publish only new weights, or all weights that are used", "new"
    )
    tags: tuple[str, ...] = key("tags for the card", ())
    languages: tuple[str, ...] = key("languages for the card", ())
    datasets: tuple[str, ...] = key("data sets for the card, by their names on the Hub", ())
    branch: str = key("branch to publish to", "main")
    message: str | None = key("commit message", None)
    pipe: Source | None = key("modifiers to append to the composition", None)
    compose: Source | None = key("another composition to use instead", None)


@dataclass(frozen=True, kw_only=True)
class ServeSection(Section):
    """Which compositions are served over HTTP, and how."""

    allow: dict[str, Source] = key("names of requests with the expressions that answer them")
    host: str = key("address to listen on", "127.0.0.1")
    port: int = key("port", 8000, minimum=0, maximum=65535)
    batch: int = key("largest number of requests in one batch", 32, minimum=1)
    wait: Duration = key("longest time that a request waits for others", Duration(0.005))
    cache: int | None = key("number of adapters to keep in memory (default: all)", None, minimum=1)

    def served_sections(self) -> tuple[ServedSection, ...]:
        """The compositions that requests may name."""
        return tuple(
            ServedSection(
                name=name,
                compose=source,
                spans={"name": self.key_span_of("allow", name) or source.span()},
            )
            for name, source in (self.allow or {}).items()
        )


@dataclass(frozen=True, kw_only=True)
class ServedSection(Section):
    """A composition that requests may name."""

    name: str
    compose: Source
    pipe: Source | None = None


@dataclass(frozen=True, kw_only=True)
class ReportSection(Section):
    """What the report shows in addition to the scores."""

    plots: Literal["auto", "none"] = key("whether report.html has curves, bars and maps", "auto")
    baseline: str | None = key("the row of evaluate to compare the others with", None)


@dataclass(frozen=True, kw_only=True)
class Spec(Section):
    """A composition, its backbone, task and data, and what to do with them.

    `root` is the folder of the file, where relative paths start.
    `overrides` are the assignments of the command line that replace values of the file.
    """

    spec: int = key("version of this format", minimum=1, maximum=1, expected="1")
    name: str = key(
        "name of the run and its folder",
        pattern=NAME_PATTERN.pattern,
        expected="lower-case letters, digits and single `-`",
    )
    description: str = key("first line of the card", "")
    hub: str = key("hf, a URL or a folder", "hf")
    backbone: BackboneSection = key("the model, or a mapping with more settings")
    adapters: dict[str, Source] = key("aliases: names with their expressions", {})
    compose: Source = key("the composition")
    task: TaskSection | None = key("what the composition predicts", None)
    data: dict[str, DataSection] = key("data sets by name", {})
    train: TrainSection | None = key("how to train new parts", None)
    evaluate: tuple[EvaluateSection, ...] = key("rows of scores", ())
    predict: tuple[PredictSection, ...] = key("predictions", ())
    publish: PublishSection | None = key("what to publish, and where", None)
    serve: ServeSection | None = key("how to serve compositions over HTTP", None)
    report: ReportSection | None = key("plots and comparisons in the report", None)
    each: dict[str, tuple[ScalarText, ...]] = key(
        "a sweep: variables with their values, used as ${variable}; one run per combination", {}
    )

    root: Path = Path()
    overrides: tuple[str, ...] = ()

    @property
    def has_plots(self) -> bool:
        """Whether report.html has plots."""
        return self.report is None or self.report.plots == "auto"

    @property
    def variables(self) -> dict[str, str]:
        """The value of each variable of the sweep in this spec."""
        return {name: str(values[0]) for name, values in self.each.items()}

    def digest(self, *names: str) -> str:
        """The sha256 of the values of the named keys, or of all keys without names."""
        plain = self.as_plain()
        chosen = {name: value for name, value in plain.items() if not names or name in names}
        text = json.dumps(chosen, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def split_files(self, ref: DataRef) -> tuple[Path, ...]:
        """The files of a split."""
        section = self.data[ref.name]
        paths = section.files_by_split(ref.config)[ref.split or "train"]
        if section.dataset is None:
            return tuple(self.root / Path(path).expanduser() for path in paths)
        folder = section.dataset.fetch(paths, section.span_of("repo"))
        return tuple(folder / path for path in paths)

    def declared_labels(self) -> tuple[str, ...] | None:
        """The labels in `task.labels`; None without them."""
        declared = self.task.labels if self.task else None
        return None if declared is None else tuple(map(str, declared))
