"""PEFT's folders: what is read, what is refused and why, and compositions with AdapterHub's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import adaptcompose as ac
from adaptcompose.backbones.layout import Facts, read_config, read_facts
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats import peft
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER
from adaptcompose.formats.tensors import read_shapes
from adaptcompose.runtime.build import load_backbone
from adaptcompose.runtime.compose import compose
from tests.parity.closeness import TOLERANCE, distance

PARITY = Path(__file__).parents[1] / "parity"
GOLDENS = PARITY / "goldens_peft" / "bert"
BACKBONE = PARITY / "goldens" / "bert" / "backbone"
ADAPTERHUB = PARITY / "goldens" / "bert" / "seq_bn" / "a"

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def facts() -> Facts:
    return read_facts(read_config(BACKBONE), "tiny/bert")


def read(folder: Path, facts: Facts) -> peft.Contents:
    found = open_adapter_folder(folder, "theirs").adapter
    return peft.read_contents(found, facts, read_shapes(folder / peft.WEIGHTS[0]))


def spoilt(case: str, change: Change, folder: Path) -> Path:
    """A golden with something changed in its configuration or its tensors."""
    config = json.loads((GOLDENS / case / "a" / ADAPTER).read_text())
    tensors = load_file(GOLDENS / case / "a" / peft.WEIGHTS[0])
    change(config, tensors)
    (folder / ADAPTER).write_text(json.dumps(config))
    save_file(tensors, folder / peft.WEIGHTS[0])
    return folder


WORDS = "base_model.model.embeddings.word_embeddings"
POSITIONS = "base_model.model.embeddings.position_embeddings"
QUERY = "base_model.model.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("case", "change", "code", "says"),
    [
        ("lora", lambda c, t: c.update(peft_type="OFT"), "AC407", "OFT"),
        ("lora", lambda c, t: c.update(peft_type=None), "AC407", "NONE"),
        ("lora", lambda c, t: c.update(layer_replication=[[0, 2]]), "AC407", "layer_replication"),
        ("lora", lambda c, t: c.update(target_parameters=["x"]), "AC407", "target_parameters"),
        ("lora", lambda c, t: c.update(something_new=1), "AC407", "something_new"),
        ("lora", lambda c, t: c.update(init_lora_weights="pissa_niter_4"), "AC407", "saved with"),
        ("lora", lambda c, t: c.update(init_lora_weights="corda"), "AC407", "saved with"),
        ("vera", lambda c, t: c.update(init_lora_weights="pissa"), "AC407", "saved with"),
        ("pissa_raw", lambda c, t: c.update(lora_alpha=-2), "AC413", "lora_alpha must be above 0"),
        (
            "lora_head",
            lambda c, t: c.update(init_lora_weights="pissa"),
            "AC407",
            "LORA with init_lora_weights=pissa for the vocabulary",
        ),
        ("lora", lambda c, t: c.update(loftq_config={"bits": 4}), "AC407", "loftq_config"),
        ("lora", lambda c, t: c.update(bias="some"), "AC407", "bias=some"),
        ("lora", lambda c, t: c.update(bias="all"), "AC418", "bias at embed.norm"),
        ("lora_layers", lambda c, t: c.update(bias="all"), "AC407", "some of the layers"),
        (
            "lora_all_biases",
            lambda c, t: [t.pop(f"{QUERY}.lora_{kind}.weight") for kind in "AB"],
            "AC407",
            "LORA with bias=all and lora_A in only some of the layers",
        ),
        (
            "lora",
            lambda c, t: t.update({f"{WORDS}.lora_embedding_A": torch.ones(3, 60)}),
            "AC418",
            "B at embed.tokens",
        ),
        (
            "lora_words_states",
            lambda c, t: t.update({f"{WORDS}.lora_embedding_A": torch.ones(2, 61)}),
            "AC408",
            r"A at embed.tokens has shape \(2, 61\)",
        ),
        (
            "lora_words_states",
            lambda c, t: t.update({f"{WORDS}.lora_A.weight": torch.ones(2, 60)}),
            "AC408",
            "does not account for the tensor .*word_embeddings.lora_A.weight",
        ),
        (
            "lora",
            lambda c, t: t.update({f"{QUERY}.lora_embedding_A": torch.ones(3, 16)}),
            "AC408",
            "does not account for the tensor .*query.lora_embedding_A",
        ),
        (
            "lora_words_states",
            lambda c, t: c.update(ensure_weight_tying=True),
            "AC407",
            "LORA with ensure_weight_tying",
        ),
        (
            "lora_words_states",
            lambda c, t: t.update({f"{WORDS}.base_layer.weight": torch.ones(62, 16)}),
            "AC408",
            r"has 62 tokens, but the backbone has 60(.|\n)*resize_token_embeddings\(62\)",
        ),
        (
            "lora",
            lambda c, t: c.update(trainable_token_indices=[1]),
            "AC407",
            "LORA with trainable_token_indices",
        ),
        (
            "lora",
            lambda c, t: (
                c.update(modules_to_save=["word_embeddings"]),
                t.update({f"{WORDS}.weight": torch.ones(62, 16)}),
            ),
            "AC408",
            "has 62 tokens, but the backbone has 60",
        ),
        (
            "lora",
            lambda c, t: (
                c.update(modules_to_save=["word_embeddings"]),
                t.update({f"{WORDS}.weight": torch.ones(60, 17)}),
            ),
            "AC408",
            r"word_embeddings.weight has shape \(60, 17\), but the backbone needs \(60, 16\)",
        ),
        (
            "lora",
            lambda c, t: t.update({f"{QUERY}.lora_A.weight": torch.tensor(1.0)}),
            "AC408",
            r"A at 0.attn.q has shape \(\)",
        ),
        (
            "lora_words_states",
            lambda c, t: t.update({f"{WORDS}.base_layer.weight": torch.ones(60, 17)}),
            "AC408",
            r"but the backbone needs \(60, 16\)",
        ),
        (
            "lora_words_states",
            lambda c, t: t.update({f"{WORDS}.base_layer.weight": torch.tensor(1.0)}),
            "AC408",
            r"but the backbone needs \(60, 16\)",
        ),
        (
            "lora_classifier",
            lambda c, t: t.update({"base_model.model.classifier.weight": torch.tensor(1.0)}),
            "AC407",
            "modules_to_save=classifier",
        ),
        (
            "lora",
            lambda c, t: t.update({f"{WORDS}.weight": torch.ones(62, 16)}),
            "AC408",
            "has 62 tokens, but the backbone has 60",
        ),
        (
            "lora",
            lambda c, t: (
                c.update(modules_to_save=["embeddings"]),
                t.update({f"{POSITIONS}.weight": torch.ones(40, 16)}),
            ),
            "AC407",
            "LORA with modules_to_save=embeddings",
        ),
        (
            "saved_pooler",
            lambda c, t: t.pop("base_model.model.bert.pooler.dense.weight"),
            "AC418",
            "weight at pooler",
        ),
        (
            "ia3",
            lambda c, t: (
                c.update(modules_to_save=["pooler"]),
                t.update({"base_model.model.pooler.dense.bias": torch.ones(16)}),
            ),
            "AC407",
            "IA3 with modules_to_save=pooler",
        ),
        ("vera", lambda c, t: c.update(bias="all"), "AC407", "VERA with bias=all"),
        ("lora", lambda c, t: c.update(r="8"), "AC413", "r must be a whole number"),
        ("lora", lambda c, t: c.update(lora_alpha=float("nan")), "AC413", "lora_alpha"),
        ("lora", lambda c, t: c.update(lora_dropout=1.0), "AC413", "lora_dropout"),
        ("lora", lambda c, t: c.update(alpha_pattern=[1]), "AC413", "alpha_pattern"),
        ("lora", lambda c, t: c.update(alpha_pattern={"(a+)+b": 2}), "AC407", "forever"),
        ("lora", lambda c, t: c.update(alpha_pattern={"a" * 300: 2}), "AC407", "forever"),
        ("lora", lambda c, t: c.update(alpha_pattern={"(e|e)" * 40: 2}), "AC407", "forever"),
        (
            "lora",
            lambda c, t: c.update(alpha_pattern={"[z-a]": 2}),
            "AC413",
            "is not a regular expression",
        ),
        ("lora", lambda c, t: c.update(use_dora=True), "AC418", "m at 0.attn.q"),
        ("dora", lambda c, t: c.update(use_dora=False), "AC408", "lora_magnitude_vector"),
        ("lora", lambda c, t: t.pop(f"{QUERY}.lora_B.weight"), "AC418", "B at 0.attn.q"),
        ("lora", lambda c, t: t.pop(f"{QUERY}.lora_A.weight"), "AC413", "0.attn.q has no lora_A"),
        (
            "lora",
            lambda c, t: t.update({f"{QUERY}.lora_B.weight": torch.ones(9, 3)}),
            "AC408",
            r"B at 0.attn.q has shape \(9, 3\)",
        ),
        (
            "lora",
            lambda c, t: t.update({"base_model.model.lm.lora_A.weight": torch.ones(3, 9)}),
            "AC407",
            "weights for lm",
        ),
        (
            "lora",
            lambda c, t: t.update({"base_model.model.pooler.dense.weight": torch.ones(3, 9)}),
            "AC408",
            "does not account for the tensor base_model.model.pooler.dense.weight",
        ),
        ("vera", lambda c, t: c.update(r=7), "AC408", "needs"),
        ("ia3", lambda c, t: c.update(base_model_name_or_path="other/model"), "AC403", "other"),
    ],
)
def test_what_is_not_understood_is_refused(
    case: str, change: Change, code: str, says: str, facts: Facts, tmp_path: Path
) -> None:
    folder = spoilt(case, change, tmp_path)
    with pytest.raises(Failed, match=rf"{code}(.|\n)*{says}"):
        read(folder, facts)


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        (r"layer\.\d+\.attention\.self\.query", {0, 1, 2}),
        (r".*layer\.1.*", {1}),
        (r"layer\.[02]\..*\.(?:query|key)", {0, 2}),
        (r"^encoder.layer.(0|1).attention.self.query", {0, 1}),
        (r"(layer\.(0|2)\.)?attention\.self\.query", {0, 1, 2}),
        (r"layer\.1\.query", set()),
    ],
)
@pytest.mark.parametrize("alpha", [1.7e-5, -2, 1e-5, 1234567, 0.1234567, 7])
def test_patterns_are_those_of_peft(
    pattern: str, layers: set[int], alpha: float, facts: Facts, tmp_path: Path
) -> None:
    """As `get_pattern_key` has it: at the end of a module's path."""
    folder = spoilt("lora", lambda c, t: c.update(alpha_pattern={pattern: alpha}), tmp_path)
    method = read(folder, facts).method
    assert list(method.problems(facts)) == []
    alphas = {site: method.alpha_at(site) for site in method.target_sites(facts)}
    for site, found in alphas.items():
        at = site.layer in layers and (site.name == "attn.q" or pattern == r".*layer\.1.*")
        assert found == (alpha if at else 5)


def test_numbers_have_to_be_finite(facts: Facts, tmp_path: Path) -> None:
    def spoil(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{QUERY}.lora_A.weight"][0, 0] = float("nan")

    folder = spoilt("lora", spoil, tmp_path)
    found = open_adapter_folder(folder, "theirs").adapter
    with pytest.raises(Failed, match="AC413"):
        peft.read_weights(found, read(folder, facts), facts)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("lora", "lora(rank=3, alpha=5)"),
        (
            "lora_patterns",
            "lora(targets=[attn.k, attn.q, attn.v], rank=2, alpha=3,"
            ' ranks=["attn.k=4", "1.attn.q=3"], alphas=["2.attn.q=7", "2.attn.v=7"])',
        ),
        ("lora_layers", "lora(targets=[attn.q], leave_out=[1], rank=2, alpha=3)"),
        ("lora_biases", "lora(rank=2, alpha=3, bias=backbone)"),
        ("lora_all_biases", "lora(rank=2, alpha=3, bias=all)"),
        ("lora_all_biases_tagger", "lora(without=[pooler], rank=2, alpha=3, bias=all)"),
        ("vera_seed", "vera(rank=5, seed=11)"),
        ("norms", "layernorm()"),
        (
            "pissa_raw",
            'lora(targets=[attn.q], rank=4, alpha=6, ranks=["1.attn.q=6"])',
        ),
        ("saved_pooler", "lora(rank=2, alpha=3, whole=[pooler])"),
        (
            "saved_norms",
            "lora(targets=[attn.q], rank=2, alpha=3, whole=[attn.norm, embed.norm, ffn.norm])",
        ),
    ],
)
def test_what_a_file_means_is_said_in_the_language(case: str, expected: str, facts: Facts) -> None:
    assert str(read(GOLDENS / case / "a", facts).method) == expected


def test_a_copy_of_another_backbone_is_refused(facts: Facts, tmp_path: Path) -> None:
    """PEFT puts the matrix of the backbone beside a change of it."""
    own = load_file(BACKBONE / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    key, base = f"{WORDS}.base_layer.weight", load_backbone(BACKBONE)
    (folder := tmp_path / "a").mkdir()
    spoilt("lora_words_states", lambda c, t: t.update({key: own.half()}), folder)
    model = compose("./a", base, root=tmp_path)
    plain = compose("./a", base, root=GOLDENS / "lora_words_states")
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).last_hidden_state, plain(ids).last_hidden_state)
    spoilt("lora_words_states", lambda c, t: t.update({key: own + 0.01}), folder)
    with pytest.raises(Failed, match=r"AC408(.|\n)*other backbone weights at embed.tokens"):
        compose("./a", base, root=tmp_path)


@pytest.mark.parametrize("case", ["pissa_raw", "olora_raw"])
def test_what_peft_takes_away_is_in_what_is_saved(case: str, tmp_path: Path) -> None:
    """A LoRA of twice the rank, which needs nothing but the backbone as it is."""
    base = load_backbone(BACKBONE)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = compose("./a", base, root=GOLDENS / case)
    ids = torch.arange(5, 13)[None]
    model.save(str(tmp_path))
    with torch.no_grad():
        expected = model(ids).last_hidden_state
        assert torch.equal(ac.load(tmp_path, base)(ids).last_hidden_state, expected)
    (path,) = (p.parent for p in tmp_path.rglob(peft.WEIGHTS[0]))
    assert json.loads((path / ADAPTER).read_text())["init_lora_weights"] is True
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_a_regular_expression_of_a_stranger_is_never_run(facts: Facts, tmp_path: Path) -> None:
    """It would take longer than the sun has left; the names of the tensors say the same."""
    folder = spoilt("lora", lambda c, t: c.update(target_modules="(.*a*)*" * 20 + "!"), tmp_path)
    assert str(read(folder, facts).method) == "lora(rank=3, alpha=5)"


def test_a_classifier_comes_along(facts: Facts) -> None:
    contents = read(GOLDENS / "lora_classifier" / "a", facts)
    assert contents.head.config is not None
    assert contents.head.config["head_type"] == "classification"
    assert contents.head.config["use_pooler"]
    assert set(contents.head.slots) == {"1.weight", "1.bias"}


def test_pickled_files_are_read_too(tmp_path: Path) -> None:
    tensors = load_file(GOLDENS / "lora" / "a" / peft.WEIGHTS[0])
    (tmp_path / "a").mkdir()
    shutil.copy(GOLDENS / "lora" / "a" / ADAPTER, tmp_path / "a")
    torch.save(tensors, tmp_path / "a" / peft.WEIGHTS[1])
    base = load_backbone(BACKBONE)
    first = compose("./a", base, root=tmp_path, head=None)
    second = compose("./a", base, root=GOLDENS / "lora", head=None)
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        assert torch.equal(first(ids).last_hidden_state, second(ids).last_hidden_state)


def test_a_lora_of_peft_stands_under_an_adapter_of_adapterhub(tmp_path: Path) -> None:
    """Saved and read again bit for bit, each in its own format, and routed row by row."""
    root = tmp_path / "parts"
    shutil.copytree(GOLDENS / "lora" / "a", root / "lora")
    shutil.copytree(GOLDENS / "ia3" / "a", root / "ia3")
    shutil.copytree(ADAPTERHUB, root / "task")
    base = load_backbone(BACKBONE)
    ids = torch.arange(5, 21).view(2, 8)
    mixed = compose("stack(lang=./lora, task=./task)", base, root=root, head=None)
    with torch.no_grad():
        expected = mixed(ids).last_hidden_state
    mixed.save(str(tmp_path / "saved"))
    with torch.no_grad():
        again = ac.load(tmp_path / "saved", base)(ids).last_hidden_state
    assert torch.equal(again, expected)

    rows = "route(both=stack(lang=./lora, task=./task), user=./ia3, task=./task)"
    routed = compose(rows, base, root=root, head=None)
    alone = compose("./ia3", base, root=root, head=None)
    with torch.no_grad():
        out = routed(ids, rows=["user", "both"]).last_hidden_state
        other = alone(ids).last_hidden_state
    assert distance(out[0], other[0]) <= TOLERANCE
    assert distance(out[1], expected[1]) <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "task", "path"),
    [
        ("bert", None, "bert."),
        ("gpt2", "CAUSAL_LM", "transformer."),
        ("llama", "CAUSAL_LM", "model."),
        ("t5", "SEQ_2_SEQ_LM", ""),
    ],
)
def test_a_file_is_of_the_class_whose_head_is_used(
    family: str, task: str | None, path: str, tmp_path: Path
) -> None:
    """PEFT finds tensors by whole paths; what it does not find it leaves at the start."""
    folder = PARITY / "goldens" / family / "backbone"
    for name, head in (("base", None), ("whole", "backbone")):
        base = load_backbone(folder, with_head=head is not None)
        place = "attn.qkv" if family == "gpt2" else "attn.q"
        compose(f'lora(targets=[{place}], ranks=["{place}=4"])', base, head=head).save(
            str(tmp_path / name)
        )
        stem = f"base_model.model.{path if head else ''}"
        file = tmp_path / name / "lora" / peft.WEIGHTS[0]
        layers = {key.removeprefix(stem).partition(".")[0] for key in load_file(file)}
        assert layers <= {"encoder", "decoder", "h", "layers"}
        config = json.loads((file.parent / ADAPTER).read_text())
        assert config["task_type"] == (task if head else None)


HEADS: dict[str, Any] = {
    "SEQ_CLS": {"task": "text-classification", "labels": ["a", "b", "c"]},
    "TOKEN_CLS": {"task": "token-classification", "labels": ["O", "B-PER", "I-PER"]},
}


@pytest.mark.parametrize("call", ["lora(rank=2)", "ia3()", "prefix(flat=true, positions=shifted)"])
@pytest.mark.parametrize("task", list(HEADS))
def test_a_head_is_in_the_file_for_peft(task: str, call: str, tmp_path: Path) -> None:
    """Of RoBERTa's classes, whose heads are ours: two layers, a tanh; one layer for a tagger."""
    base = load_backbone(PARITY / "goldens" / "roberta" / "backbone")
    model = compose(call, base, head=HEADS[task])
    model.save(str(tmp_path))
    (path,) = (p.parent for p in tmp_path.rglob(peft.WEIGHTS[0]))
    config, tensors = json.loads((path / ADAPTER).read_text()), load_file(path / peft.WEIGHTS[0])
    assert config["task_type"] == task and config["modules_to_save"] == ["classifier"]
    last = "classifier.out_proj" if task == "SEQ_CLS" else "classifier"
    stem = "base_model." if "prompt_embeddings" in tensors else "base_model.model."
    assert model.head is not None
    assert torch.equal(tensors[f"{stem}{last}.bias"], list(model.head.tensors().values())[-1])
    ids = torch.arange(5, 13)[None]
    shutil.copytree(path, tmp_path / "alone" / "a")
    again = compose("./a", base, root=tmp_path / "alone")
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
        assert torch.equal(ac.load(tmp_path, base)(ids).logits, model(ids).logits)


def test_a_head_that_no_class_has_is_not_in_the_file(tmp_path: Path) -> None:
    """BERT's classes have one layer on the pooler: the file is of the base model."""
    model = compose("lora(rank=2)", load_backbone(BACKBONE), head=HEADS["SEQ_CLS"])
    model.save(str(tmp_path))
    (path,) = (p.parent for p in tmp_path.rglob(peft.WEIGHTS[0]))
    config, tensors = json.loads((path / ADAPTER).read_text()), load_file(path / peft.WEIGHTS[0])
    assert config["task_type"] is None and config["modules_to_save"] is None
    assert all(".lora_" in key for key in tensors)


def test_each_branch_has_its_head_in_its_own_file(tmp_path: Path) -> None:
    base = load_backbone(PARITY / "goldens" / "roberta" / "backbone")
    text = "let a = lora(rank=2); let b = lora(rank=3); parallel(x=a, y=b)"
    tasks = dict(zip("xy", HEADS, strict=True))
    model = compose(text, base, head={name: HEADS[task] for name, task in tasks.items()})
    model.save(str(tmp_path))
    for part, task in zip("ab", HEADS, strict=True):
        config = json.loads((tmp_path / part / "peft" / ADAPTER).read_text())
        assert config["task_type"] == task


def test_what_adapterhub_has_no_form_for_is_written_for_peft(tmp_path: Path) -> None:
    base = load_backbone(BACKBONE)
    for name, call in {
        "ia3": "ia3()",
        "patterns": 'lora(ranks=["attn.q=4"])',
        "norms": "layernorm()",
        "dora": "dora()",
    }.items():
        compose(call, base, head=None).save(str(tmp_path / name))
        (config,) = (tmp_path / name).glob("*/adapter_config.json")
        assert "peft_type" in json.loads(config.read_text())
    compose("lora()", base, head=None).save(str(tmp_path / "plain"))
    (config,) = (tmp_path / "plain").glob("*/adapter_config.json")
    assert json.loads(config.read_text())["config"]["architecture"] == "lora"
