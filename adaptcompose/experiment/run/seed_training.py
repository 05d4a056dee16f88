"""Train one seed with the Trainer of transformers.

Checkpoints have the trained tensors only, even if a language-model head is tied to the frozen
embeddings. Resuming, and returning to the best state, read exactly these tensors.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from adaptcompose.experiment.data.encoding import EncodedDataset, make_collator, make_logits_reducer
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.run.seed_dirs import STATE_FILE, SeedResult
from adaptcompose.experiment.spec.sections import TrainSection
from adaptcompose.methods.fusion import Fusion
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.training.robust_drop import RobustDrop

# The temperature of AdapterFusion falls by this much per step, down to 1, as in its published code.
INITIAL_TEMPERATURE, TEMPERATURE_STEP = 50.0, 0.05

ProgressCallback = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainedSeed:
    """A trained model in its best (or last) state. Without training, `seed` is None."""

    seed: int | None
    model: ComposedModel
    result: SeedResult

    def as_dict(self) -> dict[str, Any]:
        """The entry of report.json."""
        return {"seed": self.seed} | vars(self.result)


def train_seed(
    prepared: PreparedRun,
    model: ComposedModel,
    data: TrainingData,
    seed: int,
    output: TrainingOutput,
) -> SeedResult:
    """Train the model in place. If there is a checkpoint of this seed, training resumes from it."""
    section, task = prepared.spec.train, prepared.task
    assert section is not None and task is not None
    arguments = _training_arguments(
        section, output.checkpoint_dir, seed, data, task.metric.higher_is_better
    )
    levels = section.robust_drop
    body = RobustDrop.from_model(model, range(levels.first, levels.last + 1)) if levels else model
    interruption = Interruption(_step_counts(section, data)[0])
    callbacks = [
        _Progress(output.on_progress, model, body),
        interruption,
        *_stopping_callbacks(section),
    ]
    if trunk := prepared.plan_trunk():
        model.cache_trunk(trunk.layers)
    collate = MaskingCollator(make_collator(task, data.tokenizer, seed), seed)
    trainer = CompositionTrainer(
        model=body,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=collate if task.kind == "masked-lm" else collate.collator,
        compute_metrics=None if data.validation is None else _scorer(data.validation),
        preprocess_logits_for_metrics=make_logits_reducer(task),
        callbacks=callbacks,
    )
    trainer.eval_collator = make_collator(task, data.tokenizer, masked=True)
    trainer.remove_callback(_printer_callback())
    started = time.monotonic()
    last, step = last_checkpoint(output.checkpoint_dir)
    collate.batch_index = _batches_before(step, section, data)
    with interruption.listen():
        trainer.train(resume_from_checkpoint=last)
    model.eval()
    model.set_temperature(1.0)
    score = _final_score(trainer.state, section, task.metric.name)
    curve = [dict(entry) for entry in trainer.state.log_history]
    seconds = round(time.monotonic() - started, 2)
    return SeedResult(score, trainer.state.global_step, seconds, curve)


def _stopping_callbacks(section: TrainSection) -> Iterator[TrainerCallback]:
    """Yield the callbacks that may end training before its last step."""
    if section.patience:
        yield EarlyStoppingCallback(section.patience)
    if section.budget:
        yield _Budget(section.budget)


def _final_score(state: Any, section: TrainSection, metric: str) -> float | None:
    """The validation score of the state that is kept; None without validation."""
    name = f"eval_{metric}"
    scores = [entry[name] for entry in state.log_history if name in entry]
    is_best = section.keep == "best" and state.best_metric is not None
    value = state.best_metric if is_best else scores[-1] if scores else None
    return None if value is None else float(value)


def last_checkpoint(folder: Path) -> tuple[str | None, int]:
    """The newest complete checkpoint and its step; (None, 0) if there is none.

    Newer incomplete checkpoints, which a killed process has left, are deleted.
    """
    by_step = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(by_step, reverse=True):
        try:
            # the Trainer writes this file last
            json.loads((by_step[step] / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(by_step[step], ignore_errors=True)
            continue
        return str(by_step[step]), step
    return None, 0


def _step_counts(section: TrainSection, data: TrainingData) -> tuple[int, int]:
    """The optimiser steps of one epoch, and of the whole training."""
    epoch = math.ceil(len(data.train) / (section.batch * section.accumulate))
    return epoch, section.steps or math.ceil(epoch * (section.epochs or 1))


def _batches_before(step: int, section: TrainSection, data: TrainingData) -> int:
    """The number of batches before a step. The last step of an epoch may take fewer batches."""
    epochs, rest = divmod(step, _step_counts(section, data)[0])
    return epochs * math.ceil(len(data.train) / section.batch) + rest * section.accumulate


@dataclass
class MaskingCollator:
    """A collator for masked-lm, whose masks depend on the seed and on the index of the batch.

    A resumed training therefore hides the same tokens as an uninterrupted one.
    """

    collator: Any
    seed: int
    batch_index: int = 0

    def __call__(self, features: Any, **rest: Any) -> Any:
        seed = random.Random(f"{self.seed}/{self.batch_index}").getrandbits(63)
        self.collator.generator = torch.Generator().manual_seed(seed)
        self.batch_index += 1
        return self.collator(features, **rest)


@dataclass(frozen=True)
class TrainingData:
    """Encoded training and validation examples, and the tokenizer that pads them."""

    tokenizer: Any
    train: EncodedDataset
    validation: EncodedDataset | None


@dataclass(frozen=True)
class TrainingOutput:
    """The folder for the checkpoints of a seed, and the callback for its progress."""

    checkpoint_dir: Path
    on_progress: ProgressCallback


class CompositionTrainer(Trainer):
    """A Trainer whose checkpoints have the trained tensors, without those of the backbone."""

    data_collator: Any
    eval_collator: Any = None
    """The collator for validation, where examples of masked-lm are already masked."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_state(self._composed_model(), folder / STATE_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_state(self._composed_model(), Path(resume_from_checkpoint) / STATE_FILE)

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            load_state(self._composed_model(), Path(self.state.best_model_checkpoint) / STATE_FILE)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        training, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        # scores are computed against the examples in their order
        return SequentialSampler(eval_dataset)

    def _composed_model(self) -> ComposedModel:
        model = self.accelerator.unwrap_model(self.model)
        inner = model.full if isinstance(model, RobustDrop) else model
        assert isinstance(inner, ComposedModel)
        return inner


def save_state(model: ComposedModel, path: Path) -> None:
    """Write the trained tensors of a model to a safetensors file."""
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in trained_tensors(model).items()
    }
    save_file(tensors, path)


def load_state(model: ComposedModel, path: Path) -> None:
    """Load saved tensors into a model. Raises RuntimeError if the model trains other tensors."""
    stored, trained = load_file(path), trained_tensors(model)
    if stored.keys() != trained.keys():
        odd = min(stored.keys() ^ trained.keys())
        raise RuntimeError(f"{path} belongs to another composition: {odd}")
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(stored[name])


def trained_tensors(model: ComposedModel) -> dict[str, torch.Tensor]:
    """Every trained tensor, named `part/site/name` or `head/name`.

    The names do not depend on how the optimised program runs the tensors.
    """
    named = {
        f"{name}/{site}/{tensor}": value
        for name, part in model.parts.items()
        for site in part.sites
        for tensor, value in part[site].items()
    }
    if model.head is not None:
        named |= {f"head/{name}": value for name, value in model.head.slots.named_parameters()}
    trained = {name: value for name, value in named.items() if value.requires_grad}
    assert {id(value) for value in trained.values()} == {id(value) for _, value in model.trained()}
    return trained


def _scorer(validation: EncodedDataset) -> Callable[[Any], dict[str, float]]:
    return lambda outputs: validation.score(outputs.predictions)


def _printer_callback() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    callback: type[TrainerCallback] = PrinterCallback
    return callback


_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_OPTIMIZERS = {"adamw": "adamw_torch", "adafactor": "adafactor", "sgd": "sgd"}


def _training_arguments(
    section: TrainSection, folder: Path, seed: int, data: TrainingData, higher: bool
) -> TrainingArguments:
    total = _step_counts(section, data)[1]
    validated = data.validation is not None
    strategy = "no" if not validated else "steps" if section.every else "epoch"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=section.batch,
        per_device_eval_batch_size=max(32, section.batch),
        gradient_accumulation_steps=section.accumulate,
        num_train_epochs=section.epochs or 1,
        max_steps=section.steps or -1,
        learning_rate=section.lr,
        lr_scheduler_type=_SCHEDULES[section.schedule],
        warmup_steps=round(section.warmup * total),
        optim=_OPTIMIZERS[section.optimizer],
        weight_decay=section.weight_decay,
        max_grad_norm=section.clip,
        seed=seed,
        data_seed=seed,
        eval_strategy=strategy,
        save_strategy=strategy if validated else "epoch",
        eval_steps=section.every,
        save_steps=section.every or 500,
        save_total_limit=2,
        load_best_model_at_end=validated and section.keep == "best",
        metric_for_best_model=data.validation.task.metric.name if data.validation else None,
        greater_is_better=higher,
        train_sampling_strategy="group_by_length" if section.bucket else "random",
        logging_steps=max(1, total // 50),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=section.device == "cpu",
        restore_callback_states_from_checkpoint=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # otherwise DataParallel would copy the model for every batch
    return arguments


class _Progress(TrainerCallback):
    """Reports progress, and sets the temperature of fusions and the level of robust AdapterDrop."""

    def __init__(self, report: ProgressCallback, model: ComposedModel, robust: Any) -> None:
        self.on_progress, self.model, self.robust = report, model, robust
        self.has_temperature = any(
            part.method.temperature
            for _, part in model.parts.items()
            if isinstance(part.method, Fusion)
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self.has_temperature:
            self.model.set_temperature(
                max(1.0, INITIAL_TEMPERATURE - TEMPERATURE_STEP * state.global_step)
            )
        if isinstance(self.robust, RobustDrop):
            self.robust.draw_level(args.seed, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.on_progress({"event": "step", "step": state.global_step, "steps": state.max_steps})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self.on_progress({"event": "loss", "loss": logs["loss"], "step": state.global_step})

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **rest: Any
    ) -> None:
        name = args.metric_for_best_model
        if metrics and name:
            score = metrics.get(f"eval_{name}")
            self.on_progress({"event": "score", "metric": name, "score": score})


class Interruption(TrainerCallback):
    """On Ctrl-C, finish the step, save a checkpoint and stop. A second Ctrl-C stops at once.

    `epoch` is the number of optimiser steps per epoch.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch, self.is_requested = epoch, False

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Handle SIGINT while a block runs. Outside the main thread this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if self.is_requested:
            raise KeyboardInterrupt

    def _request(self, number: int, frame: Any) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        # at the end of an epoch the Trainer validates and saves anyway
        is_within_epoch = args.save_strategy == "steps" or state.global_step % self.epoch
        if self.is_requested and is_within_epoch and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self.is_requested:
            raise KeyboardInterrupt


class _Budget(TrainerCallback):
    """Stop training when `train.budget` is used up, after a last validation."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        if time.monotonic() > self.deadline:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = True
        return control


def choose_device(name: str) -> torch.device:
    """The device of a name. `auto` is CUDA, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
