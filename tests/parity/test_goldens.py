"""What `adapters` wrote is read exactly, what it computed is computed, our files are as its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site, read_config, read_facts
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD, WEIGHTS
from adaptcompose.formats.adapterhub_writer import VERSION, AdapterHubWriter
from adaptcompose.formats.stored_object import StoredObject
from adaptcompose.formats.tensors import read_tensors
from adaptcompose.methods import Method
from adaptcompose.runtime.build import load_backbone
from tests.parity.closeness import TOLERANCE, distance
from tests.parity.forms import forms
from tests.sampling import SOAK, daily, share

GOLDENS = Path(__file__).parent / "goldens"
CASES = sorted(path.parent for path in GOLDENS.glob("*/*/case.json"))
ALIAS = ".prefix_tuning.pool."

Weights = dict[tuple[Site, str], torch.Tensor]


LITERAL = CASES if SOAK else share(CASES)
"""The cases that are computed literally too: laws and random compositions hold that everywhere."""


def label(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


@functools.cache
def backbone(family: str, with_head: bool) -> PreTrainedModel:
    return load_backbone(GOLDENS / family / "backbone", with_head=with_head)


@functools.cache
def facts_of(family: str) -> Facts:
    return read_facts(read_config(GOLDENS / family / "backbone"), f"tiny/{family}")


def folders(kind: str) -> list[Path]:
    return sorted(path.parent for path in GOLDENS.glob(f"*/*/*/{kind}"))


def test_there_are_goldens_for_every_family() -> None:
    families = {"bert", "roberta", "xlm-roberta", "electra", "distilbert"}
    families |= {"gpt2", "llama", "t5", "t5-gated", "bart", "mbart"}
    assert len(CASES) >= 360
    assert {path.parent.name for path in CASES} == families


@pytest.mark.parametrize("folder", CASES, ids=label)
def test_outputs_are_the_peers(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    tensors = load_file(folder / "expected.safetensors")
    head = f"./{case['head']}" if case["head"] else None
    if head is None and case["output"] == "logits":
        head = "backbone"
    body = backbone(case["family"], head == "backbone")
    for model in forms(case["compose"], body, folder, head, literal=folder in LITERAL):
        with torch.no_grad():
            out = model(tensors["input_ids"], attention_mask=tensors["attention_mask"])
        assert distance(out[case["output"]], tensors["output"]) <= TOLERANCE


def newest(kind: str) -> list[Path]:
    """Without files of earlier years and of classes of transformers, which are read only."""
    found = {path: json.loads((path / kind).read_text()) for path in folders(kind)}
    return [
        path
        for path, outer in found.items()
        if "version" in outer and outer["model_class"].endswith("AdapterModel")
    ]


@daily("folder", newest(ADAPTER), ids=lambda f: f"{label(f.parent)}/{f.name}")
def test_an_adapter_is_written_as_the_peer_writes_it(folder: Path, tmp_path: Path) -> None:
    facts = facts_of(folder.parent.parent.name)
    found = open_adapter_folder(folder, "golden").adapter
    method = adapterhub.read_method(found, facts)
    weights = adapterhub.read_weights(found, method, facts)
    AdapterHubWriter(facts).adapter(tmp_path, found.name, method, weights)
    assert_same_files(folder, tmp_path, ADAPTER)

    again = open_adapter_folder(tmp_path, "ours").adapter
    assert adapterhub.read_method(again, facts) == method
    assert_equal(adapterhub.read_weights(again, method, facts), weights)


@pytest.mark.parametrize("folder", folders(FUSION), ids=lambda f: label(f.parent))
def test_a_fusion_is_written_as_the_peer_writes_it(folder: Path, tmp_path: Path) -> None:
    facts = facts_of(folder.parent.parent.name)
    found = adapterhub.read_config(folder, FUSION, "golden")
    assert found is not None
    method = adapterhub.read_fusion(found, facts)
    weights = adapterhub.read_weights(found, method, facts, FUSION)
    AdapterHubWriter(facts).fusion(tmp_path, found.document["adapter_names"], method, weights)
    assert_same_files(folder, tmp_path, FUSION)

    again = adapterhub.read_config(tmp_path, FUSION, "ours")
    assert again is not None
    assert adapterhub.read_fusion(again, facts) == method
    assert_equal(adapterhub.read_weights(again, method, facts, FUSION), weights)


@pytest.mark.parametrize("folder", newest(HEAD), ids=lambda f: f"{label(f.parent)}/{f.name}")
def test_a_head_is_written_as_the_peer_writes_it(folder: Path, tmp_path: Path) -> None:
    facts = facts_of(folder.parent.parent.name)
    found = adapterhub.read_config(folder, HEAD, "golden")
    assert found is not None
    tensors = adapterhub.read_head(found)
    AdapterHubWriter(facts).head(tmp_path, found.name, found.config, tensors)
    assert_same_files(folder, tmp_path, HEAD)


@pytest.mark.parametrize("year", ["old_madx", "old_double", "old_gelu", "static_cls"])
def test_old_files_are_written_anew(year: str, tmp_path: Path) -> None:
    facts = facts_of("bert")
    for folder in (path for path in folders(ADAPTER) if path.parent == GOLDENS / "bert" / year):
        found = open_adapter_folder(folder, "golden").adapter
        method = adapterhub.read_method(found, facts)
        weights = adapterhub.read_weights(found, method, facts)
        AdapterHubWriter(facts).adapter(tmp_path / folder.name, found.name, method, weights)
        again = open_adapter_folder(tmp_path / folder.name, "ours").adapter
        assert again.document["version"] == VERSION
        assert adapterhub.read_method(again, facts) == method
        assert_equal(adapterhub.read_weights(again, method, facts), weights)


@pytest.mark.parametrize("reader", ["safetensors", "bin"])
def test_both_of_our_files_hold_the_same(reader: str, tmp_path: Path) -> None:
    """The peer opens `.bin` by default; without the safetensors it is what we read, too."""
    folder = GOLDENS / "bert" / "ln_both_double" / "a"
    facts = facts_of("bert")
    found = open_adapter_folder(folder, "golden").adapter
    method = adapterhub.read_method(found, facts)
    weights = adapterhub.read_weights(found, method, facts)
    AdapterHubWriter(facts).adapter(tmp_path, "a", method, weights)
    safe, pickle = (tmp_path / name for name in WEIGHTS[ADAPTER])
    assert read_tensors(safe).keys() == read_tensors(pickle).keys()
    (pickle if reader == "safetensors" else safe).unlink()
    again = open_adapter_folder(tmp_path, "ours").adapter
    assert_equal(adapterhub.read_weights(again, method, facts), weights)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(scaling="often"), "scaling"),
        (lambda c: c.update(reduction_factor=0), "reduction_factor"),
        (lambda c: c.update(reduction_factor={"0": 2}), "reduction_factor"),
        (lambda c: c.update(reduction_factor="16"), "reduction_factor"),
        (lambda c: c.update(reduction_factor=float("nan")), "reduction_factor"),
        (lambda c: c.update(leave_out=["first"]), "leave_out"),
        (lambda c: c.update(use_gating="no"), "use_gating"),
        (lambda c: c.update(dropout=1.5), "dropout"),
        (lambda c: c.update(residual_before_ln="pre"), "residual_before_ln"),
        (lambda c: c.pop("non_linearity"), "non_linearity"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(
    change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    outer = json.loads((GOLDENS / "bert" / "seq_bn" / "a" / ADAPTER).read_text())
    change(outer["config"])
    (tmp_path / ADAPTER).write_text(json.dumps(outer))
    found = open_adapter_folder(tmp_path, "spoilt").adapter
    with pytest.raises(adapterhub.Failed, match=rf"AC413(.|\n)*{says}"):
        adapterhub.read_method(found, facts_of("bert"))


def test_an_integer_scaling_is_written_as_the_float_that_the_peer_needs() -> None:
    facts = facts_of("bert")
    outer = json.loads((GOLDENS / "bert" / "seq_bn" / "a" / ADAPTER).read_text())
    method = families(outer["config"] | {"scaling": 4}, facts)
    assert method == families(outer["config"] | {"scaling": 4.0}, facts)
    assert isinstance(method.adapterhub_config(facts)["scaling"], float)


def families(config: dict[str, Any], facts: Facts) -> Method:
    found = StoredObject(Path(), "golden", "a", config, {"config": config})
    return adapterhub.read_method(found, facts)


def assert_equal(first: Weights, second: Weights) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def assert_same_files(peer: Path, ours: Path, kind: str) -> None:
    """The JSON key for key, the tensors by name, shape and value; more files are not written."""
    assert plain(ours / kind) == plain(peer / kind)
    theirs = next(peer / name for name in WEIGHTS[kind] if (peer / name).is_file())
    # a prefix is there once more for every layer
    expected = {k: tensor for k, tensor in read_tensors(theirs).items() if ALIAS not in k}
    for name in WEIGHTS[kind]:
        written = read_tensors(ours / name)
        assert written.keys() == expected.keys()
        for key, tensor in expected.items():
            assert written[key].dtype == tensor.dtype
            assert torch.equal(written[key], tensor)
    assert {path.name for path in ours.iterdir()} == {kind, *WEIGHTS[kind]}


def plain(path: Path) -> dict[str, Any]:
    """JSON in which 16 and 16.0 are equal, but 1 and true are not."""

    def mark(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mark(inner) for key, inner in value.items()}
        return ("flag", value) if isinstance(value, bool) else value

    found: dict[str, Any] = mark(json.loads(path.read_text()))
    return found
