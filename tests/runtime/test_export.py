"""Compositions leave for other run times: compiled, exported, as ONNX; in half precision."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.runtime.compose import compose
from adaptcompose.runtime.export import exportable
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.training.cached_trunk import CachedTrunk
from tests.sampling import SOAK, daily
from tests.tiny import backbone, batch, composed, distance, make_backbone, randomise

HEAD = {"task": "text-classification", "labels": ["yes", "no"]}
TEXTS = [
    "fuse(pfeiffer(reduction=4), pfeiffer(reduction=3)) | drop(bottom=1)",
    "stack(language(reduction=4), fuse(houlsby(reduction=4), houlsby(reduction=4)))",
    "stack(bottleneck(reduction=4, ln_after=true, gate=true), compacter(reduction=4, phm_dim=3))",
    "average(pfeiffer(reduction=4), pfeiffer(reduction=3, activation=gelu))",
    "none",
]


EVERYWHERE = [
    "fuse(bottleneck(reduction=4), bottleneck(reduction=3, activation=gelu))",
    "lora(rank=2)",
    "compacter(reduction=4, phm_dim=3)",
    "unipelt(length=2, reduction=4, rank=2)",
    "prefix(length=2)",
    "prompt(length=2)",
]
FAMILIES = ["bert", "distilbert", "gpt2", "llama", "t5", "bart", "mbart"]
UNBROKEN = [
    EVERYWHERE[3],
    "route(a=pfeiffer(reduction=4), b=unipelt(length=2, reduction=4, rank=2), c=prompt())",
    "parallel(a=pfeiffer(reduction=4), b=lora(rank=2)) | drop(bottom=1)",
]


def frozen(text: str, family: str = "bert", **changes: Any) -> ComposedModel:
    """In float32, with nothing that is trained."""
    model = composed(text, make_backbone(family, **changes), head=HEAD)
    return model.requires_grad_(requires_grad=False)  # type: ignore[return-value]


def inputs(model: torch.nn.Module, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    found = batch(rows=rows)
    return found["input_ids"], found["attention_mask"]


@daily("text", TEXTS, days=3)
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_composition_is_one_graph(text: str) -> None:
    model = frozen(text)
    with torch.no_grad():
        expected = model(**batch()).logits
        torch._dynamo.reset()
        explained = torch._dynamo.explain(model)(**batch())  # type: ignore[no-untyped-call]
        assert explained.graph_break_count == 0
        compiled = torch.compile(model, backend="eager")
        assert distance(compiled(**batch()).logits, expected) < 1e-6


@daily(("family", "text"), [*itertools.product(FAMILIES, UNBROKEN)])
@pytest.mark.filterwarnings("ignore")
def test_no_family_breaks_the_graph(text: str, family: str) -> None:
    model = composed(text, make_backbone(family)).requires_grad_(requires_grad=False)
    given = dict(batch()) | ({"rows": ["b", None, "a"]} if "route" in text else {})
    torch._dynamo.reset()
    with torch.no_grad():
        assert torch._dynamo.explain(model)(**given).graph_break_count == 0  # type: ignore[no-untyped-call]


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="make soak: a minute of C++ compiling")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_composition_gives_the_same() -> None:
    model = frozen(TEXTS[0])
    with torch.no_grad():
        expected = model(**batch()).logits
        torch._dynamo.reset()
        assert distance(torch.compile(model)(**batch()).logits, expected) < 1e-5


def exported(model: ComposedModel, *, least: int = 2, open_length: bool = True) -> Any:
    """As torch.export has it, for other numbers of rows and, if it is open, of tokens."""
    shape = {0: torch.export.Dim("rows", min=1, max=64)}
    if open_length:
        shape[1] = torch.export.Dim("tokens", min=least, max=20)
    module = exportable(model)
    return torch.export.export(module, inputs(model), dynamic_shapes=(shape, shape)).module()


def off(module: Any, model: ComposedModel, rows: int, tokens: int = 6) -> float:
    ids, mask = (tensor[:, :tokens] for tensor in inputs(model, rows))
    with torch.no_grad():
        return distance(module(ids, mask), model(input_ids=ids, attention_mask=mask).logits)


@daily("text", TEXTS, days=3)
@pytest.mark.filterwarnings("ignore")
def test_an_exported_composition_gives_the_same_for_other_shapes(text: str) -> None:
    model = frozen(text)
    module = exported(model)
    assert off(module, model, 3) < 1e-6
    assert off(module, model, 5, tokens=4) < 1e-6


@daily(("family", "text"), [*itertools.product(FAMILIES, EVERYWHERE)])
@pytest.mark.filterwarnings("ignore")
def test_every_family_is_exported_with_batch_and_length_open(text: str, family: str) -> None:
    one_key_per_query = {"num_key_value_heads": 4} if family == "llama" else {}
    model = frozen(text, family, **one_key_per_query)
    assert off(exported(model), model, 5, tokens=4) < 2e-6


@daily("text", EVERYWHERE, days=3)
@pytest.mark.filterwarnings("ignore")
def test_virtual_tokens_beside_shared_keys_are_exported_for_one_length(text: str) -> None:
    """transformers repeats keys that heads share in a way that torch.export cannot follow there."""
    model = frozen(text, "llama")
    virtual = text.startswith(("prefix", "prompt", "unipelt"))
    if virtual:
        with pytest.raises(torch._dynamo.exc.UserError, match="tokens"):
            exported(model)
    module = exported(model, open_length=not virtual)
    assert off(module, model, 5, tokens=6 if virtual else 4) < 2e-6


@pytest.mark.filterwarnings("ignore")
def test_a_split_is_exported_for_rows_that_reach_every_branch() -> None:
    model = frozen("split(pfeiffer(reduction=4), bottleneck(reduction=4), at=2)")
    module = exported(model, least=4)
    assert off(module, model, 5, tokens=4) < 1e-6


@daily("text", TEXTS[:2])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_logits_of_a_folded_fusion(text: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = frozen(text)
    rows, tokens = (
        torch.export.Dim("rows", min=1, max=64),
        torch.export.Dim("tokens", min=2, max=20),
    )
    shapes = ({0: rows, 1: tokens}, {0: rows, 1: tokens})
    program = torch.onnx.export(
        exportable(model), inputs(model), dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    assert program is not None
    program.save(tmp_path / "fusion.onnx")
    session = runtime.InferenceSession(tmp_path / "fusion.onnx")
    for count in (3, 5):
        names = [found.name for found in session.get_inputs()]
        given = zip(names, (t.numpy() for t in inputs(model, count)), strict=True)
        (found,) = session.run(None, dict(given))
        with torch.no_grad():
            assert distance(torch.from_numpy(found), model(**batch(rows=count)).logits) < 3e-5


@pytest.mark.parametrize("operator", ["route", "parallel"])
def test_several_compositions_are_not_exported(operator: str) -> None:
    model = composed(f"{operator}(a=pfeiffer(), b=houlsby())")
    with pytest.raises(Failed) as failure:
        exportable(model)
    assert failure.value.diagnostics[0].code == "AC511"
    assert operator in str(failure.value)


def test_an_exported_copy_leaves_the_model_trainable() -> None:
    model = composed(TEXTS[0], make_backbone(), head=HEAD)
    exportable(model)
    assert all(value.requires_grad for _, value in model.trained())
    assert list(model.trained())


@pytest.mark.filterwarnings("ignore")
def test_live_caches_stay_behind_and_the_export_says_so(tmp_path: Path) -> None:
    model = frozen("pfeiffer() | drop(bottom=2)")
    assert "without" not in repr(exportable(model))
    model.trunk = CachedTrunk(model, 2, tmp_path)
    module = exportable(model.train())
    assert "without: the cached trunk of 2 layers" in repr(module)
    found = torch.export.export(module, inputs(model)).module()(*inputs(model))
    with torch.no_grad():
        assert distance(found, model.eval()(**batch()).logits) < 1e-6
    assert not len(model.trunk.states)
    assert "without: cached keys and values" in repr(exportable(composed("none", backbone("gpt2"))))


BFLOAT = torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("text", TEXTS)
def test_half_precision_costs_what_the_backbone_costs(text: str) -> None:
    """Adapters and folded matrices stay in float32, so a composition adds little to the error.

    Bounds, relative to the largest value: folded against literal 4 units of bfloat16; against
    float64 8 times the error of the backbone alone, and at least 4 units.
    """
    exact = backbone()
    half = make_backbone().to(torch.bfloat16)
    reference, models = {}, {}
    for name, model, optimise in (
        ("exact", exact, False),
        ("folded", half, True),
        ("literal", half, False),
    ):
        models[name] = randomise(compose(text, model, head=None, optimise=optimise)).eval()
        with torch.no_grad():
            reference[name] = models[name](**batch()).last_hidden_state.double()
    mask = batch()["attention_mask"].bool()
    with torch.no_grad():
        bare = half(**batch()).last_hidden_state.double()[mask]
        alone = distance(bare, exact(**batch()).last_hidden_state[mask])
    found = {name: state[mask] for name, state in reference.items()}
    assert distance(found["folded"], found["literal"]) <= 4 * BFLOAT
    assert distance(found["folded"], found["exact"]) <= max(8 * alone, 4 * BFLOAT)
    kinds = {value.dtype for value in models["folded"].parts.parameters()}
    assert kinds <= {torch.float32}
