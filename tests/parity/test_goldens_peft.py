"""What PEFT wrote is read exactly, what it computed is computed, and what we write is the same."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site, read_config, read_facts
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats import adapterhub, peft, peft_modules, peft_virtual, peft_writer
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.peft_modules import ModelClass
from adaptcompose.formats.tensors import read_shapes
from adaptcompose.formats.transformers_heads import from_slots
from adaptcompose.runtime.build import load_backbone
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.saving.transformers_class import class_by_name
from tests.parity import peft_cases
from tests.parity.closeness import TOLERANCE, distance
from tests.parity.forms import forms
from tests.parity.peft_cases import CLASSES, shaped
from tests.sampling import SOAK, share

BACKBONES = Path(__file__).parent / "goldens"
GOLDENS = Path(__file__).parent / "goldens_peft"
CASES = sorted(path.parent for path in GOLDENS.glob("*/*/case.json"))
UNWRITTEN = [
    "bert/lora_all_biases_tagger",
    *(f"{family}/prefix_language_model" for family in ("t5", "bart", "mbart")),
]


LITERAL = CASES if SOAK else share(CASES)
"""The cases that are computed literally too."""


def label(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


UNREAD = (".modules_to_save.bias", ".original_module.bias")


def within_of(folder: Path) -> ModelClass:
    """The class of models that a case is of."""
    family, case = folder.parent.name, json.loads((folder / "case.json").read_text())
    return ModelClass(*CLASSES[family]) if "LM" in str(case["task"]) else ModelClass()


each = pytest.mark.parametrize("folder", CASES, ids=label)


@functools.cache
def backbone(family: str, *, with_head: bool = False) -> PreTrainedModel:
    return load_backbone(BACKBONES / family / "backbone", with_head=with_head)


@functools.cache
def facts_of(family: str) -> Facts:
    return read_facts(read_config(BACKBONES / family / "backbone"), f"tiny/{family}")


def test_every_case_has_a_name_and_a_golden_of_its_own() -> None:
    table = [f"{family}/{case.name}" for case in peft_cases.CASES for family in case.families]
    assert sorted(table) == sorted(set(table))
    assert set(table) == {label(folder) for folder in CASES}
    assert {folder.parent.name for folder in CASES} == set(peft_cases.FAMILIES)


@each
def test_outputs_are_those_of_peft(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    tensors = load_file(folder / "expected.safetensors")
    writes_text = "LM" in str(case["task"])
    head = "backbone" if writes_text and "vocabulary" not in folder.name else "auto"
    base = backbone(case["family"], with_head=writes_text)
    more = {"decoder_input_ids": tensors["input_ids"]} if base.config.is_encoder_decoder else {}
    ids, mask = shaped(case["task"], tensors["input_ids"], tensors["attention_mask"])
    kept = tensors["attention_mask"].bool() if case["attended"] else ...
    if case.get("whole"):
        kept = tensors["attention_mask"].bool().all(dim=1)
        assert kept.any() and not kept.all()
    for model in forms("./a", base, folder, head, literal=folder in LITERAL):
        with torch.no_grad():
            out = model(ids, attention_mask=mask, **more)
        got = out.logits if case["task"] else out.last_hidden_state
        assert got.shape == tensors["output"].shape
        assert distance(got[kept], tensors["output"][kept]) <= TOLERANCE


@each
def test_it_is_written_as_peft_writes_it(folder: Path, tmp_path: Path) -> None:
    """Tensors by name, shape and value; what is read again is the same.

    What is not read is not written: copies of the backbone, and modules that are never called.
    """
    facts = facts_of(folder.parent.name)
    found = open_adapter_folder(folder / "a", "golden").adapter
    theirs = folder / "a" / peft.WEIGHTS[0]
    contents = peft.read_contents(found, facts, read_shapes(theirs))
    weights = peft.read_weights(found, contents, facts)
    within = within_of(folder)
    if contents.head.name:
        head = from_slots(contents.head.name, peft.read_head(found, contents))
        config = backbone(folder.parent.name).config
        within = class_by_name(contents.head.name, config, facts, head)
    if not peft_writer.can_write(contents.method, facts, within):
        assert label(folder) in UNWRITTEN
        return
    peft_writer.write(tmp_path, contents.method, weights, facts, within)
    stored = load_file(tmp_path / peft.WEIGHTS[0])
    prefix = f"{peft_modules.STEM}{facts.layout.base_attribute(facts.model_type)}."
    unread = {*contents.backbone_copies.values()}
    unread |= {key for key in load_file(theirs) if key.endswith(UNREAD) or ".shared." in key}
    expected = {
        key if within.name or within.path else key.replace(prefix, peft_modules.STEM): tensor
        for key, tensor in load_file(theirs).items()
        if key not in unread
    }
    assert stored.keys() == expected.keys()
    key = peft_virtual.KEY
    if (
        len(facts.layers_by_part) > 1 and key in stored
    ):  # of the encoder; PEFT never uses the other half
        expected[key] = expected[key][: len(stored[key])]
    if peft.residual_init_kind(
        found
    ):  # ours is beside the backbone's own weights, theirs is the first half
        halves = {key: tuple(map(slice, tensor.shape)) for key, tensor in expected.items()}
        assert any(stored[key].shape != expected[key].shape for key in expected)
        stored = {key: stored[key][half] for key, half in halves.items()}
    assert all(torch.equal(stored[key], expected[key]) for key in expected)

    again = open_adapter_folder(tmp_path, "ours").adapter
    read = peft.read_contents(again, facts, read_shapes(tmp_path / peft.WEIGHTS[0]))
    assert read.method == contents.method
    assert read.head == contents.head


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_classifier_behind_a_prompt_reads_the_last_token(family: str) -> None:
    """PEFT gives it embeddings without ids, and so it reads the state of the padding.

    Ours is what it is without the padding.
    """
    folder = GOLDENS / family / "prompt_classifier"
    tensors = load_file(folder / "expected.safetensors")
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    model = compose("./a", backbone(family), root=folder)
    with torch.no_grad():
        padded = model(ids, attention_mask=mask).logits
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            alone = model(ids[row : row + 1, :length]).logits
            assert distance(padded[row], alone[0]) <= TOLERANCE
            defect = (padded[row] - tensors["output"][row]).abs().max()
            assert (defect > 0.05) == (length < ids.shape[1])


def test_a_prefix_of_an_encoder_decoder_is_what_peft_runs() -> None:
    """PEFT gives layer i of T5's decoder the pair of layer 2i, and the encoder nothing.

    It cuts keys and values for two attentions a layer, and then leaves the second attention out.
    """
    folder, facts = GOLDENS / "t5" / "prefix_language_model" / "a", facts_of("t5")
    found = open_adapter_folder(folder, "golden").adapter
    contents = peft.read_contents(found, facts, read_shapes(folder / peft.WEIGHTS[0]))
    assert str(contents.method) == "deep_prompt(length=3, encoder=false, cross=false)"
    weights = peft.read_weights(found, contents, facts)
    pairs = load_file(folder / peft.WEIGHTS[0])[peft_virtual.KEY].view(3, 3, 2, 12)
    for layer, pair in ((0, 0), (1, 2)):
        site = Site("attn.kv", layer, "decoder")
        for kind, name in enumerate(("key", "value")):
            assert torch.equal(weights[site, name], pairs[:, pair, kind])
    assert len(weights) == 4
    assert not peft_writer.can_write(contents.method, facts)  # in an even number, pairs are shared


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_transformer_submodules": 1}, "AC413(.|\n)*num_transformer_submodules must be 2"),
        ({"num_layers": 1}, "AC413(.|\n)*num_layers must be a whole number, at least 2"),
        ({"num_layers": 5}, r"AC408(.|\n)*key at decoder.0.attn.kv has shape \(3, 72\)"),
    ],
)
def test_settings_that_peft_does_not_run_are_refused(
    change: dict[str, int], says: str, tmp_path: Path
) -> None:
    folder = GOLDENS / "t5" / "prefix_language_model" / "a"
    config = json.loads((folder / adapterhub.ADAPTER).read_text()) | change
    (tmp_path / adapterhub.ADAPTER).write_text(json.dumps(config))
    found = open_adapter_folder(tmp_path, "theirs").adapter
    with pytest.raises(Failed, match=says):
        peft.read_contents(found, facts_of("t5"), read_shapes(folder / peft.WEIGHTS[0]))
