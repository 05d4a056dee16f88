"""Training: checkpoints, interruption without loss, and the keys of `train`."""

from __future__ import annotations

import json
import os
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from adaptcompose.experiment.run import seed_training as training_module
from adaptcompose.experiment.run.seed_training import last_checkpoint
from tests.sampling import daily
from tests.workshop import Workshop

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MLM: dict[str, Any] = {
    "adapters": {"sw": "language()"},
    "compose": "stack(lang=sw)",
    "task": {"kind": "masked-lm", "mask": 0.3},
}
TAGGING: dict[str, Any] = {
    "adapters": {"new": "pfeiffer(reduction=4, dropout=0.3)"},
    "compose": "stack(lang=en, task=new) | fuse(glue/*, temperature=true)",
    "task": {"kind": "token-classification"},
}

TAGGED = {"new", "fuse", "head"}


def write(shop: Workshop, kind: dict[str, Any], name: str = "demo", **train: Any) -> Path:
    form = "txt" if kind is MLM else "conll"
    settings = {"data": "d", "epochs": 3, "batch": 3, "lr": 0.02} | train
    if "steps" in train:
        del settings["epochs"]
    return shop.spec(name, **kind, data=shop.data(form), train=settings)


def state(shop: Workshop, name: str = "demo") -> dict[str, Any]:
    return load_file(shop.root / f"runs/{name}/seed-0/trained.safetensors")


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(bool((one[n] == other[n]).all()) for n in one)


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, set[str]]]:
    """Record the files and tensors of every checkpoint when it is saved."""
    found: list[dict[str, set[str]]] = []
    plain = training_module.CompositionTrainer._save_checkpoint

    def saved(self: Any, *given: Any, **rest: Any) -> None:
        plain(self, *given, **rest)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        tensors = set(load_file(folder / "trained.safetensors"))
        found.append({"files": {path.name for path in folder.iterdir()}, "tensors": tensors})

    monkeypatch.setattr(training_module.CompositionTrainer, "_save_checkpoint", saved)
    return found


@pytest.mark.parametrize("kind", [MLM, TAGGING], ids=["masked-lm", "tagging"])
def test_only_what_is_trained_is_kept(
    shop: Workshop, kind: dict[str, Any], checkpoints: list[dict[str, set[str]]]
) -> None:
    report = shop.run(write(shop, kind, epochs=1))
    trained = report["plan"]["parameters"]["trained"]
    kept = state(shop)
    assert sum(tensor.numel() for tensor in kept.values()) == trained
    assert {name.split("/")[0] for name in kept} == ({"sw"} if kind is MLM else TAGGED)
    for checkpoint in checkpoints:
        assert checkpoint["tensors"] == kept.keys()
        assert not {name for name in checkpoint["files"] if name.startswith("model")}
    assert checkpoints
    assert not list((shop.root / "runs/demo/seed-0").glob("checkpoint-*")), "none is left"


class Stop:
    """Press Ctrl-C during one optimiser step, or kill the run there."""

    def __init__(self, at: int, *, kill: bool = False) -> None:
        self.at, self.kill, self.steps = at, kill, 0

    def event(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "step":
            self.steps += 1
            if entry["step"] == self.at:
                if self.kill:
                    raise KeyboardInterrupt
                os.kill(os.getpid(), signal.SIGINT)

    def stage(self, name: str, detail: str = "") -> None:
        pass

    def table(self, header: Any, rows: Any) -> None:
        pass


@daily(
    ("kind", "at", "settings"),
    [
        (MLM, 4, {"accumulate": 2, "batch": 2}),
        (TAGGING, 4, {"epochs": 2}),  # the last step of an epoch
        (TAGGING, 3, {"every": 2, "patience": 2, "epochs": 2}),
        (TAGGING, 5, {"keep": "last", "robust_drop": "0..1", "epochs": 2}),
    ],
    days=2,
)
def test_an_interrupted_run_ends_as_if_it_was_not(
    shop: Workshop, kind: dict[str, Any], at: int, settings: dict[str, Any]
) -> None:
    whole = shop.run(write(shop, kind, "whole", **settings))
    path = write(shop, kind, **settings)
    stop = Stop(at)
    with pytest.raises(KeyboardInterrupt):
        shop.run(path, sink=stop)
    assert not (shop.root / "runs/demo/report.json").exists()
    _, step = last_checkpoint(shop.root / "runs/demo/seed-0")
    assert at <= step <= at + 1, "the step that was interrupted is saved"
    rest = Stop(-1)
    report = shop.run(path, sink=rest)
    assert equal(state(shop), state(shop, "whole"))
    assert report["seeds"][0]["score"] == whole["seeds"][0]["score"]
    assert stop.steps + rest.steps == whole["seeds"][0]["steps"], "no step is taken twice"


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(shop: Workshop) -> None:
    shop.run(write(shop, TAGGING, "whole"))
    path = write(shop, TAGGING)
    with pytest.raises(KeyboardInterrupt):
        shop.run(path, sink=Stop(9, kill=True))
    place = shop.root / "runs/demo/seed-0"
    newest = place / "checkpoint-8"
    (newest / "trainer_state.json").write_text('{"cut off')
    (newest / "trained.safetensors").write_bytes(b"cut off")
    assert last_checkpoint(place)[1] == 4
    assert not newest.exists()
    rest = Stop(-1)
    shop.run(path, sink=rest)
    assert rest.steps == 8
    assert equal(state(shop), state(shop, "whole"))


def test_fresh_starts_over(shop: Workshop) -> None:
    path = write(shop, TAGGING)
    with pytest.raises(KeyboardInterrupt):
        shop.run(path, sink=Stop(2))
    sink = Stop(-1)
    shop.run(path, sink=sink, fresh=True)
    assert sink.steps == 12


def scores_of(report: dict[str, Any]) -> list[float]:
    return [
        entry["eval_accuracy"] for entry in report["seeds"][0]["curve"] if "eval_accuracy" in entry
    ]


def test_the_best_state_or_the_last_is_kept(shop: Workshop) -> None:
    kind = TAGGING | {"task": {"kind": "token-classification", "metric": "accuracy"}}
    kind["train"] = {}
    settings = {"lr": 0.5, "epochs": 6, "schedule": "constant"}
    made = {}
    for keep in ("best", "last"):
        path = shop.spec(
            keep,
            **{k: v for k, v in kind.items() if k != "train"},
            data=shop.data("conll"),
            train={"data": "d", "batch": 3, "keep": keep} | settings,
            evaluate=[{"name": "v", "data": "d/validation"}],
        )
        made[keep] = shop.run(path)
    curve = scores_of(made["best"])
    assert curve == scores_of(made["last"])
    assert max(curve) > curve[-1], "the settings are such that the last state is not the best"
    assert made["best"]["seeds"][0]["score"] == max(curve)
    assert made["last"]["seeds"][0]["score"] == curve[-1]
    # the scored models are the trained ones
    assert made["best"]["scores"][0]["value"] == pytest.approx(max(curve))
    assert made["last"]["scores"][0]["value"] == pytest.approx(curve[-1])


def test_patience_and_budget_stop_early(shop: Workshop) -> None:
    patient = shop.run(
        write(shop, TAGGING, "patient", epochs=30, lr=1e-9, every=1, patience=2, batch=10)
    )
    assert patient["seeds"][0]["steps"] == 3
    short = shop.run(write(shop, TAGGING, "short", epochs=500, budget="1s"))
    assert 0 < short["seeds"][0]["steps"] < 2000
    assert (shop.root / "runs/short/seed-0/done.json").is_file()
    assert short["seeds"][0]["score"] is not None, "the last state was validated"


def test_a_cached_trunk_trains_the_same(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shop.root / "cache"))
    config = shop.root / "base/config.json"
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps(json.loads(config.read_text()) | still))
    dropped = TAGGING | {
        "adapters": {"new": "pfeiffer(reduction=4)"},
        "compose": "new | keep(top=1)",
    }
    found = {}
    for trunk in ("live", "cached"):
        report = shop.run(write(shop, dropped, trunk, trunk=trunk))
        found[trunk] = [e["loss"] for e in report["seeds"][0]["curve"] if "loss" in e]
    assert found["cached"] == pytest.approx(found["live"], rel=1e-4)
    (path,) = (shop.root / "cache/adaptcompose/trunk").glob("*.states")
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("trunk", ["live", "cached"])
def test_buckets_put_examples_of_similar_length_into_a_batch(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, trunk: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shop.root / "cache"))
    words = [2 + number * 7 % 16 for number in range(64)]
    blocks = ["\n".join(["juma B-PER", "nairobi B-LOC"] + ["sees O"] * (n - 2)) for n in words]
    (shop.root / "data/train.conll").write_text("\n\n".join(blocks) + "\n")
    lengths: list[list[int]] = []
    plain = training_module.CompositionTrainer.training_step

    def step(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        lengths.append(inputs["attention_mask"].sum(dim=1).tolist())
        return plain(self, model, inputs, *rest)

    monkeypatch.setattr(training_module.CompositionTrainer, "training_step", step)
    new = {"adapters": {"new": "pfeiffer(reduction=4)"}, "compose": "new | keep(top=1)"}
    spread = {}
    for bucket in (False, True):
        lengths.clear()
        settings = {"epochs": 2, "batch": 4, "bucket": bucket, "trunk": trunk}
        shop.run(write(shop, TAGGING | new, f"bucket-{bucket}".lower(), **settings))
        assert sorted(chain.from_iterable(lengths)) == sorted(2 * [n + 2 for n in words])
        spread[bucket] = sum(max(batch) - min(batch) for batch in lengths) / len(lengths)
    assert spread[True] < spread[False] / 2


def test_accumulated_batches_are_one(shop: Workshop) -> None:
    still = TAGGING | {"adapters": {"new": "pfeiffer(reduction=4)"}, "compose": "stack(task=new)"}
    shop.run(write(shop, still, "one", batch=10, epochs=2, optimizer="sgd"))
    shop.run(write(shop, still, "ten", batch=5, accumulate=2, epochs=2, optimizer="sgd"))
    one, ten = state(shop, "one"), state(shop, "ten")
    # each batch is the mean over its own tokens, so the two differ by how long its sentences are
    assert all(bool((one[n] - ten[n]).abs().max() < 5e-3) for n in one)
    seeds = [
        json.loads((shop.root / f"runs/{n}/seed-0/done.json").read_text()) for n in ("one", "ten")
    ]
    assert seeds[0]["steps"] == seeds[1]["steps"] == 2


@pytest.mark.parametrize(
    ("update", "parts"),
    [
        (["new", "fuse", "head"], {"new", "fuse", "head"}),
        (["lang", "task", "fuse", "head"], {"lang/en", "new", "fuse", "head"}),
        (["glue/a", "new", "fuse", "head"], {"glue/a", "new", "fuse", "head"}),
    ],
)
def test_update_names_slots_aliases_and_parts(
    shop: Workshop, update: list[str], parts: set[str]
) -> None:
    report = shop.run(write(shop, TAGGING, epochs=1, update=update))
    assert {part["name"] for part in report["plan"]["items"] if part["trained"]} | {"head"} == parts
    # names of parts may contain a slash
    assert {name for name in parts if any(n.startswith(f"{name}/") for n in state(shop))} == parts
    assert all(name.startswith(tuple(f"{one}/" for one in parts)) for name in state(shop))


def test_a_tensor_that_trains_is_one_that_changes(shop: Workshop) -> None:
    settings = {"update": ["lang", "new", "fuse", "head"], "warmup": 0.0, "weight_decay": 0.0}
    shop.run(write(shop, TAGGING, "short", steps=1, lr=1e-12, **settings))
    shop.run(write(shop, TAGGING, "long", steps=6, **settings))
    before, after = state(shop, "short"), state(shop, "long")
    assert before.keys() == after.keys()
    # the bias of the keys moves all scores of a fusion alike
    same = {n for n in before if bool((before[n] == after[n]).all())}
    assert not {n for n in same if "key.bias" not in n}
