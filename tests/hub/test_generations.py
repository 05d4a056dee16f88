"""Files of earlier years mean what they were trained as: made by hand out of the newest ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adaptcompose.backbones.layout import read_config, read_facts
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER, FUSION
from adaptcompose.formats.adapterhub_versions import (
    NAMED,
    modern_config,
    modern_key,
    unusual_settings,
)
from adaptcompose.formats.stored_object import StoredObject
from adaptcompose.formats.tensors import read_tensors
from adaptcompose.formats.transformers_heads import STATIC_HEADS, renumber_slots
from adaptcompose.methods import Method
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.methods.compacter import Compacter
from adaptcompose.runtime.compose import compose
from tests.parity.closeness import distance

GOLDENS = Path(__file__).parents[1] / "parity" / "goldens" / "bert"
FACTS = read_facts(read_config(GOLDENS / "backbone"), "tiny/bert")


def rewrite(
    folder: Path,
    kind: str,
    change: Callable[[dict[str, Any]], object],
    rename: Callable[[str], str] = str,
) -> None:
    """Change a configuration, and write the weights as torch wrote them before 2020-08."""
    outer = json.loads((folder / kind).read_text())
    change(outer)
    (folder / kind).write_text(json.dumps(outer))
    safe, pickle = (folder / name for name in adapterhub.WEIGHTS[kind])
    stored = read_tensors(pickle if pickle.is_file() else safe)
    safe.unlink(missing_ok=True)
    renamed = {rename(key): tensor for key, tensor in stored.items()}
    torch.save(renamed, pickle, _use_new_zipfile_serialization=False)


def of_2020(kind: str, declared: Mapping[str, Any] | None) -> Callable[[dict[str, Any]], None]:
    def change(outer: dict[str, Any]) -> None:
        known = ("mh_adapter", "output_adapter", "non_linearity", "reduction_factor", "ln_before")
        known += ("ln_after", "original_ln_before", "original_ln_after", "residual_before_ln")
        known += ("adapter_residual_before_ln",)
        config = {key: outer["config"][key] for key in known}
        config |= {"attention_type": "sent-lvl-dynamic", "new_attention_norm": False}
        outer["config"] = config | {"invertible_adapter": declared}
        outer["type"] = kind
        del outer["version"]

    return change


def keys_of_2020(kind: str) -> Callable[[str], str]:
    def rename(key: str) -> str:
        key = key.replace(
            "attention.output.adapters.", f"attention.output.attention_{kind}_adapters."
        )
        key = key.replace("output.adapters.", f"output.layer_{kind}_adapters.")
        return key.replace("invertible_adapters.", "invertible_lang_adapters.")

    return rename


def output(case: Path, **options: Any) -> torch.Tensor:
    """What a case computes, with the parts that lie in its folder."""
    description = json.loads((case / "case.json").read_text())
    tensors = load_file(case / "expected.safetensors")
    head = f"./{description['head']}" if description["head"] else None
    backbone = GOLDENS / "backbone"
    model = compose(description["compose"], backbone, root=case, head=options.get("head", head))
    with torch.no_grad():
        out = model(tensors["input_ids"], attention_mask=tensors["attention_mask"])
    found: torch.Tensor = out[description["output"]]
    return found


def expected(case: Path) -> torch.Tensor:
    return load_file(case / "expected.safetensors")["output"]


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the golden that the test names."""
    return Path(shutil.copytree(GOLDENS / request.param, tmp_path / request.param))


NICE = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}


@pytest.mark.parametrize("case", ["cls_two_layers"], indirect=True)
@pytest.mark.parametrize("declared", [NICE, None])
def test_a_task_adapter_of_2020_has_no_invertible_part(
    case: Path, declared: Mapping[str, Any] | None
) -> None:
    change, rename = of_2020("text_task", declared), keys_of_2020("text_task")
    rewrite(case / "task", ADAPTER, change, rename)
    stored = read_tensors(case / "task" / "pytorch_adapter.bin")
    assert all("layer_text_task_adapters.task." in key for key in stored)
    assert torch.equal(output(case), output(GOLDENS / "cls_two_layers"))


@pytest.mark.parametrize("case", ["madx"], indirect=True)
def test_a_language_adapter_of_2020_has_one(case: Path) -> None:
    rewrite(case / "lang", ADAPTER, of_2020("text_lang", NICE), keys_of_2020("text_lang"))
    rewrite(case / "task", ADAPTER, of_2020("text_task", NICE), keys_of_2020("text_task"))
    assert torch.equal(output(case), output(GOLDENS / "madx"))


@pytest.mark.parametrize("case", ["seq_bn_inv"], indirect=True)
def test_a_task_adapter_of_2020_that_has_one(case: Path) -> None:
    rewrite(case / "a", ADAPTER, of_2020("text_task", NICE), keys_of_2020("text_task"))
    assert any("invertible" in key for key in read_tensors(case / "a" / "pytorch_adapter.bin"))
    assert torch.equal(output(case), output(GOLDENS / "seq_bn_inv"))


@pytest.mark.parametrize("case", ["double_seq_bn"], indirect=True)
def test_keys_of_both_sites(case: Path) -> None:
    rewrite(case / "a", ADAPTER, of_2020("text_task", None), keys_of_2020("text_task"))
    stored = read_tensors(case / "a" / "pytorch_adapter.bin")
    assert sum(".attention_text_task_adapters.a." in key for key in stored) == len(stored) / 2
    assert torch.equal(output(case), output(GOLDENS / "double_seq_bn"))


def test_the_invertible_part_of_2020_keeps_its_own_activation() -> None:
    """The peer has lost it since 2021, and runs the part with the adapter's activation."""
    config = {"invertible_adapter": NICE, "non_linearity": "gelu", "reduction_factor": 2}
    config |= {"mh_adapter": False, "output_adapter": True, "original_ln_before": True}
    method = method_of({"config": config, "type": "text_lang"})
    assert str(method) == "language(activation=gelu_new, invertible_activation=relu)"
    again = method_of({"config": method.adapterhub_config(FACTS), "version": "adapters.1.3.0"})
    assert again == method
    plain = {**config, "invertible_adapter": NICE | {"non_linearity": "gelu"}}
    assert str(method_of({"config": plain})) == "language(activation=gelu_new)"


def method_of(outer: Mapping[str, Any]) -> Method:
    found = StoredObject(Path(), "hand-made", "a", modern_config(outer), outer)
    return adapterhub.read_method(found, FACTS)


@pytest.mark.parametrize("case", ["act_gelu_new"], indirect=True)
def test_gelu_without_a_version_is_the_approximation(case: Path) -> None:
    def change(outer: dict[str, Any]) -> None:
        outer["config"]["non_linearity"] = "gelu"
        del outer["version"]

    rewrite(case / "a", ADAPTER, change)
    assert torch.equal(output(case), output(GOLDENS / "act_gelu_new"))


@pytest.mark.parametrize("case", ["act_gelu"], indirect=True)
@pytest.mark.parametrize(("name", "version"), [("gelu_orig", None), ("gelu", "3.2.1")])
def test_gelu_with_a_version_is_gelu(case: Path, name: str, version: str | None) -> None:
    def change(outer: dict[str, Any]) -> None:
        outer["config"]["non_linearity"] = name
        del outer["version"]
        outer |= {"version": version} if version else {}

    rewrite(case / "a", ADAPTER, change)
    assert torch.equal(output(case), output(GOLDENS / "act_gelu"))


@pytest.mark.parametrize(
    ("config", "call"),
    [
        (None, "bottleneck()"),
        ("pfeiffer", "bottleneck()"),
        (
            "seq_bn[reduction_factor=4, non_linearity='gelu']",
            "bottleneck(reduction=4, activation=gelu)",
        ),
        ("houlsby+inv", "double_seq_bn_inv()"),
        ("parallel", "par_bn()"),
        ("compacter++[phm_dim=2]", "compacter_pp(phm_dim=2)"),
        ("double_seq_bn[leave_out=[0, 1]]", "houlsby(leave_out=[0..1])"),
    ],
)
def test_a_configuration_may_be_a_name(config: str | None, call: str) -> None:
    assert str(method_of({"config": config})) == call


@pytest.mark.parametrize(
    "text",
    [
        "pfeifer",
        "pfeiffer[x]",
        "pfeiffer[",
        "seq_bn[a=__import__('os')]",
        f"seq_bn[a={'(' * 900}]",
        f"seq_bn[a={'[' * 90_000}]",
    ],
)
def test_a_name_that_means_nothing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / ADAPTER).write_text(json.dumps({"config": text, "name": "a"}))
    with pytest.raises(Failed, match="AC413"):
        assert open_adapter_folder(tmp_path, "odd").adapter


REFT_AND_MORE = {"architecture": "union", "configs": [{"architecture": "reft"}, NAMED["par_bn"]]}


def test_what_cannot_be_run_is_told_with_what_can() -> None:
    for config, says in (
        (REFT_AND_MORE, "a union of reft and bottleneck"),
        ({"architecture": "reft"}, "reft"),
        ({**NAMED["seq_bn"], "inv_adapter": "flow"}, "invertible parts of kind flow"),
    ):
        with pytest.raises(Failed) as failure:
            method_of({"config": config, "version": "adapters.1.3.0"})
        (found,) = failure.value.diagnostics
        assert found.code == "AC407"
        assert says in found.message
        assert "bottleneck" in str(found.help) and "compacter" in str(found.help)


def test_alpha_of_the_years_in_which_it_was_not_heeded() -> None:
    lora = {"architecture": "lora", "r": 8, "alpha": 16}
    for version, alpha in (
        ("adapters.1.0.1", 8),
        ("adapters.1.1.0.dev0", 8),
        ("adapters.1.1.0", 16),
        ("0.2.1", 8),
        ("3.2.1", 16),
    ):
        assert modern_config({"config": lora, "version": version})["alpha"] == alpha
        union = {"architecture": "union", "configs": [lora, {"reduction_factor": 2}]}
        (inner, other) = modern_config({"config": union, "version": version})["configs"]
        assert inner["alpha"] == alpha and other == {"reduction_factor": 2}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_numbers_of_low_precision_are_read_as_they_are(dtype: str, tmp_path: Path) -> None:
    case = Path(shutil.copytree(GOLDENS / "lora", tmp_path / "lora"))
    rewrite(case / "a", ADAPTER, lambda outer: outer["config"].update(dtype=dtype))
    path = case / "a" / "pytorch_adapter.bin"
    kind = getattr(torch, dtype)
    torch.save({key: t.to(kind) for key, t in read_tensors(path).items()}, path)
    low = output(case)
    torch.save({key: t.to(kind).float() for key, t in read_tensors(path).items()}, path)
    assert torch.equal(low, output(case))
    assert distance(low, expected(case)) <= 0.02


@pytest.mark.parametrize("case", ["fuse_dynamic", "fuse_static"], indirect=True)
def test_a_fusion_of_before_2024(case: Path) -> None:
    def change(outer: dict[str, Any]) -> None:
        del outer["config"]["dropout_prob"], outer["adapter_names"], outer["version"]

    rewrite(case / "fusion", FUSION, change)
    found = adapterhub.read_config(case / "fusion", FUSION, "old")
    assert found is not None and found.document["adapter_names"] == ["a", "b"]
    assert adapterhub.read_fusion(found, FACTS).dropout is None
    assert torch.equal(output(case), output(GOLDENS / case.name))


@pytest.mark.parametrize("case", ["fuse_static"], indirect=True)
def test_a_fusion_may_name_its_settings(case: Path) -> None:
    rewrite(case / "fusion", FUSION, lambda outer: outer.update(config="static"))
    assert torch.equal(output(case), output(GOLDENS / "fuse_static"))


@pytest.mark.parametrize("case", ["fuse_dynamic"], indirect=True)
def test_a_fusion_file_may_hold_another_whose_name_begins_alike(case: Path) -> None:
    path = case / "fusion" / "pytorch_model_adapter_fusion.bin"
    stored = read_tensors(path)
    other = {key.replace(".a,b.", ".a,b2."): tensor * 2 for key, tensor in stored.items()}
    torch.save(stored | other, path)
    assert torch.equal(output(case), output(GOLDENS / "fuse_dynamic"))


@pytest.mark.parametrize("case", ["cls_two_layers"], indirect=True)
def test_a_head_file_may_hold_another_whose_name_begins_alike(case: Path) -> None:
    path = case / "task" / "model_head.safetensors"
    stored = read_tensors(path)
    other = {key.replace("heads.task.", "heads.task2."): t * 2 for key, t in stored.items()}
    path.unlink()
    torch.save(stored | other, case / "task" / "pytorch_model_head.bin")
    assert torch.equal(output(case), output(GOLDENS / "cls_two_layers"))


@pytest.mark.parametrize("case", ["cls_two_layers"], indirect=True)
def test_heads_of_the_years_that_did_not_count_dropout(case: Path) -> None:
    path = case / "task" / "model_head.safetensors"
    stored = read_tensors(path)
    path.unlink()
    older = {key.replace(".1.", ".0.").replace(".4.", ".2."): t for key, t in stored.items()}
    assert older.keys() != stored.keys()
    torch.save(older, case / "task" / "pytorch_model_head.bin")
    assert torch.equal(output(case), output(GOLDENS / "cls_two_layers"))


def test_slots_that_are_counted_stay() -> None:
    config = {"head_type": "classification", "layers": 3, "activation_function": None}
    tensors = {f"{slot}.weight": torch.ones(1) for slot in (1, 3, 5)}
    assert renumber_slots(config, tensors).keys() == tensors.keys()


def test_every_static_class_has_as_many_slots_as_layers() -> None:
    assert len(STATIC_HEADS) >= 70
    for name, static in STATIC_HEADS.items():
        maps = len(static.slots) - bool(static.settings.get("layer_norm"))
        assert maps == static.settings["layers"], name


def test_keys_are_renamed_whole_words_only() -> None:
    assert modern_key("x.my_layer_text_task_adapters.y") == "x.my_layer_text_task_adapters.y"


def test_what_is_unusual_is_told() -> None:
    config = {"non_linearity": "gelu", "invertible_adapter": NICE}
    found = list(unusual_settings({"config": config, "type": "text_task"}))
    assert found == [
        "has no version, so it was written before 2022",
        "has the activation gelu, which then meant gelu_new",
        "declares an invertible part, which task adapters of 2020 seldom have",
    ]
    assert list(unusual_settings({"config": "pfeiffer"})) == ["names its configuration: pfeiffer"]
    modern = json.loads((GOLDENS / "seq_bn" / "a" / ADAPTER).read_text())
    assert list(unusual_settings(modern)) == []


def test_families_of_named_configurations() -> None:
    for name in ("seq_bn", "double_seq_bn", "par_bn", "scaled_par_bn", "seq_bn_inv"):
        assert isinstance(method_of({"config": name}), Bottleneck)
    for name in ("compacter", "compacter++"):
        assert isinstance(method_of({"config": name}), Compacter)
