"""Plans: expression → exact text, parameters against transformers' own and published counts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adaptcompose.backbones.layout import Facts, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.plan import WIDTH, Plan
from adaptcompose.compiler.planning import head_parameter_count, make_plan
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.graph import Adapter, Block, Head, transform
from adaptcompose.composition.heads import HEAD_TYPES_BY_TASK, choose_head, new_head
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.lock import Pin
from adaptcompose.hub.store import FileRecord
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.methods.invertible import EMBEDDINGS_SITE
from adaptcompose.storage.yaml_source import dump_yaml

PLANS = sorted((Path(__file__).parent / "fixtures" / "plans").glob("*.txt"))
REVISION = "9c1f2e7a" * 5

BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
BERT = {**BASE, "model_type": "bert", "vocab_size": 30522}
LONG = {"max_position_embeddings": 514, "type_vocab_size": 1}
CAMEMBERT = {**BASE, **LONG, "model_type": "camembert", "vocab_size": 32005}
XLMR = {**BASE, **LONG, "model_type": "xlm-roberta", "vocab_size": 250002}
ROBERTA = {**BASE, **LONG, "model_type": "roberta", "vocab_size": 50265}
ELECTRA = {
    **BERT,
    "model_type": "electra",
    "hidden_size": 256,
    "embedding_size": 128,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
}

T5 = {"model_type": "t5", "d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 3072}
DISTILBERT = {
    "model_type": "distilbert",
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}


def bart(layers: int, width: int, vocabulary: int, model_type: str = "bart") -> dict[str, Any]:
    """A configuration of BART's families; its feed-forward is four times as wide."""
    found = {
        f"{part}_{what}": n
        for part in ("encoder", "decoder")
        for what, n in (("layers", layers), ("ffn_dim", 4 * width), ("attention_heads", 16))
    }
    sizes = {"d_model": width, "vocab_size": vocabulary, "max_position_embeddings": 1024}
    return found | sizes | {"model_type": model_type}


BART_BASE, BART_LARGE = bart(6, 768, 50265), bart(12, 1024, 50265)
MBART = bart(12, 1024, 250027, "mbart")
GPT2 = {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16}

BACKBONES = {
    "google-t5/t5-base": {**T5, "num_layers": 12, "num_decoder_layers": 10, "vocab_size": 32128},
    "openai-community/gpt2-medium": {**GPT2, "vocab_size": 50257, "n_positions": 1024},
    "xlm-roberta-base": XLMR,
    "bert-base-uncased": BERT,
    "bert-large-uncased": {**BERT, **LARGE},
    "google/electra-small-discriminator": ELECTRA,
    "demo/deep": {**BERT, "num_hidden_layers": 48},
}
GLUE = ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb"]
METHODS = {
    "lang/sw": "language()",
    "lang/en": "language()",
    "task/ner": "pfeiffer()",
    "task/upper": "pfeiffer(leave_out=0..5)",
    "task/houlsby": "houlsby()",
    **{f"glue/{name}": "pfeiffer()" for name in GLUE},
}


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    root = tmp_path_factory.mktemp("cards")
    for name, method in METHODS.items():
        space, entry = name.split("/")
        variants = {}
        for backbone, config in BACKBONES.items():
            repo = f"AdapterHub/{backbone.rsplit('/')[-1]}-{entry}-{space}"
            named = read_facts(config, backbone).name
            variants[str(named)] = {"default": {"repo": repo, "method": method}}
        (root / space).mkdir(exist_ok=True)
        header = dump_yaml({"title": entry, "variants": variants})
        (root / space / f"{entry}.md").write_text(f"---\n{header}---\nA card.\n")
    return Catalogue.open(root)


def locked(expression: str, facts: Facts, catalogue: Catalogue) -> Block:
    """What locking makes of an expression whose adapters are as their cards say."""
    context = CheckContext(catalogue, facts)

    def pin(block: Block) -> Block:
        if isinstance(block, Adapter) and block.ref is not None:
            variant = block.variant
            method = check_source(
                variant.method if variant else "pfeiffer()", context
            ).raise_errors()
            assert isinstance(method, Adapter)
            assert method.method is not None
            size = 4 * method.method.parameter_count(facts) + 2000
            entry = Pin(path=block.ref.path)
            if block.ref.kind != "local":
                repo = variant.repo if variant else block.ref.repo
                entry = Pin(repo, REVISION, files={"adapter.safetensors": FileRecord(size)})
            base = facts.name if variant else None
            config = new_head("text-classification", ["no", "yes"]).config
            head = Head(block.name, config)
            return replace(
                block, pin=entry, method=method.method, declared_backbone=base, head=head
            )
        return block

    return transform(check_source(expression, context).raise_errors(), pin)


def planned(expression: str, catalogue: Catalogue, settings: dict[str, str]) -> Plan:
    name = settings["backbone"]
    facts = read_facts(BACKBONES[name], None if settings.get("anonymous") else name)
    graph = locked(expression, facts, catalogue)
    wanted: Any = settings.get("head")
    if wanted in HEAD_TYPES_BY_TASK:
        wanted = {"task": wanted, "labels": settings["labels"].split()}
    trained = settings.get("trained")
    pin = Pin(path="./base") if settings.get("anonymous") else Pin(facts.name, REVISION)
    return make_plan(
        graph,
        facts,
        trained=None if trained is None else trained.split(),
        head=choose_head(graph, wanted),
        cached=settings.get("cached", "").split(),
        title=settings.get("title", ""),
        expression=expression if settings.get("written") else None,
        pin=pin,
    )


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_text(path: Path, catalogue: Catalogue) -> None:
    head, _, wanted = path.read_text().partition("\n---\n")
    *lines, expression = head.split("\n")
    settings = dict(line.split(": ", 1) for line in lines)
    plan = planned(expression, catalogue, settings)
    assert f"{plan}\n" == wanted
    assert max(map(len, wanted.splitlines())) <= WIDTH


def test_there_are_fixtures() -> None:
    assert len(PLANS) >= 10


def plan(expression: str, catalogue: Catalogue, **settings: str) -> Plan:
    return planned(expression, catalogue, {"backbone": "xlm-roberta-base", **settings})


FLAGSHIP = "stack(lang=sw, task=ner) | fuse(glue/*) | drop(bottom=5)"


def test_the_flagship_makes_a_fusion_of_seven_layers(catalogue: Catalogue) -> None:
    found = plan(FLAGSHIP, catalogue)
    assert {i.name: i.parameters for i in found.rows if i.new} == {"fuse": 7 * 1_771_008}
    assert found.trained_parameters == 7 * 1_771_008
    assert found.total_parameters == 278_043_648 + found.trained_parameters + sum(
        i.parameters for i in found.rows if not i.new
    )


def test_json(catalogue: Catalogue) -> None:
    settings = {"head": "token-classification", "labels": "O B I"}
    found = json.loads(json.dumps(plan(FLAGSHIP, catalogue, **settings).as_dict()))
    assert found["parameters"]["trained"] == 7 * 1_771_008 + 3 * 768 + 3
    assert found["parameters"]["backbone"] == 278_043_648
    assert found["parameters"]["head"] == 3 * 768 + 3
    assert list(found["parameters"]["parts"]) == [
        "lang/sw",
        "task/ner",
        *(f"glue/{name}" for name in GLUE),
        "fuse",
    ]
    assert found["items"][0] | {"parameters": 0, "fetch": 0} == {
        "name": "lang/sw",
        "kind": "adapter",
        "mark": "=",
        "slots": ["lang"],
        "trained": False,
        "parameters": 0,
        "sites": {"ffn.out": 7, "embed.out": 1},
        "layers": [5, 6, 7, 8, 9, 10, 11],
        "method": "language()",
        "reference": "lang/sw",
        "unused": {"ffn.out": 5},
        "pin": {"repo": "AdapterHub/xlm-roberta-base-sw-lang", "revision": REVISION},
        "base": "FacebookAI/xlm-roberta-base",
        "fetch": 0,
    }


def test_trained_names_replace_the_default(catalogue: Catalogue) -> None:
    found = plan(FLAGSHIP, catalogue, trained="lang/sw")
    assert found.trained_parameters == 7 * 590_976 + 296_064
    assert [item.name for item in found.rows if item.trained] == ["lang/sw"]


def test_a_part_used_twice_counts_once(catalogue: Catalogue) -> None:
    text = "let a = bottleneck(); stack((a | keep(bottom=2)), (a | keep(layers=1..3)))"
    assert [i.parameters for i in plan(text, catalogue).rows] == [4 * 894_528 // 12]


def test_files_are_fetched_once_and_not_if_they_are_here(catalogue: Catalogue) -> None:
    twice = plan("stack(lang=sw, glue/cola, glue/cola)", catalogue)
    once = plan("stack(lang=sw, glue/cola)", catalogue)
    assert twice.download_bytes == once.download_bytes > 4 * 894_528
    assert (
        plan("stack(lang=sw, glue/cola)", catalogue, cached="lang/sw glue/cola").download_bytes == 0
    )


def test_a_head_of_an_adapter_is_loaded(catalogue: Catalogue) -> None:
    head = plan("stack(lang=sw, task=ner)", catalogue, head="auto").rows[-1]
    assert (head.kind, head.name, head.new, head.trained) == ("head", "task/ner", False, False)
    assert head.parameters == 768 * 768 + 768 + 2 * 768 + 2


def test_a_head_that_cannot_run_is_refused() -> None:
    head = Head("x", {"head_type": "dependency_parsing"})
    with pytest.raises(Failed, match="AC416"):
        head_parameter_count(head, read_facts(BERT))


@pytest.mark.parametrize(
    "config",
    [
        *(BERT, ROBERTA, XLMR, CAMEMBERT, ELECTRA, {**BERT, **LARGE}),
        *(DISTILBERT, BART_BASE, BART_LARGE, MBART),
    ],
)
def test_the_backbone_is_as_large_as_transformers_makes_it(config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    settings = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(config["model_type"], **settings))
    assert read_facts(config).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (DISTILBERT, 66_362_880),
        (CAMEMBERT, 110_621_952),
        (BART_BASE, 139_420_416),
        (BART_LARGE, 406_291_456),
    ],
)
def test_published_sizes(config: dict[str, Any], count: int) -> None:
    assert read_facts(config).parameters == count


@pytest.mark.parametrize("config", [BERT, ELECTRA])
@pytest.mark.parametrize(
    "settings",
    [
        {"head_type": "classification", "layers": 2, "num_labels": 3},
        {"head_type": "classification", "layers": 3, "num_labels": 3, "bias": False},
        {"head_type": "tagging", "layers": 1, "num_labels": 9},
        {"head_type": "masked_lm", "layers": 2, "layer_norm": True, "bias": True},
        {"head_type": "masked_lm", "layers": 2, "layer_norm": False, "bias": False},
        {"head_type": "masked_lm", "layers": 1, "bias": True, "layer_norm": True},
    ],
)
def test_a_head_is_as_large_as_it_runs(config: dict[str, Any], settings: dict[str, Any]) -> None:
    import torch

    from adaptcompose.runtime.heads import FlexHead

    head, facts = Head("head", {"activation_function": "tanh", **settings}), read_facts(config)
    with torch.device("meta"):
        slots = FlexHead(head, facts).slots
    assert head_parameter_count(head, facts) == sum(p.numel() for p in slots.parameters())


PUBLISHED = [
    # Pfeiffer et al. (2021), reduction 2, 16, 64
    (BERT, Bottleneck(reduction=2.0), 7_091_712),
    (BERT, Bottleneck(reduction=16.0), 894_528),
    (BERT, Bottleneck(reduction=64.0), 230_544),
    # Houlsby et al. (2019), 64 wide, adapters alone; BERT-large with 8, 64, 256
    (BERT, Bottleneck(reduction=12.0, attention=True), 2_379_264),
    ({**BERT, **LARGE}, Bottleneck(reduction=128.0, attention=True), 835_968),
    ({**BERT, **LARGE}, Bottleneck(reduction=16.0, attention=True), 6_343_680),
    ({**BERT, **LARGE}, Bottleneck(reduction=4.0, attention=True), 25_227_264),
    # MAD-X (Pfeiffer et al., 2020b) with its biases: language adapter and invertible part
    (XLMR, Bottleneck(reduction=2.0, invertible="nice"), 7_091_712 + 296_064),
]


@pytest.mark.parametrize(("config", "method", "count"), PUBLISHED)
def test_published_counts(config: dict[str, Any], method: Bottleneck, count: int) -> None:
    assert method.parameter_count(read_facts(config)) == count


def test_the_invertible_part_of_mad_x() -> None:
    method = Bottleneck(reduction=2.0, invertible="nice")
    assert method.parameter_count_at([EMBEDDINGS_SITE], read_facts(XLMR)) == 296_064


@pytest.mark.parametrize("names", [GLUE[:2], GLUE[:5], GLUE])
def test_a_fusion_has_one_size_for_any_number_of_members(
    names: list[str], catalogue: Catalogue
) -> None:
    members = ", ".join(f"glue/{name}" for name in names)
    found = plan(f"fuse({members})", catalogue, backbone="bert-base-uncased")
    assert found.trained_parameters == 21_252_096


@pytest.mark.parametrize("expression", [FLAGSHIP, "stack(lang=sw, task=houlsby())", "task/upper"])
def test_the_plan_counts_what_the_model_has(expression: str, catalogue: Catalogue) -> None:
    import torch

    from adaptcompose.runtime.parts import make_part

    found = plan(expression, catalogue)
    facts = found.facts
    graph = locked(expression, facts, catalogue)
    for item in found.rows:
        blocks = [b for b in _walk(graph) if getattr(b, "name", None) == item.name]
        block = blocks[0]
        method = block.method_for(facts)
        with torch.device("meta"):
            part = make_part(item.name, method.restrict_to(item.sites, facts), facts)
        assert item.parameters == sum(p.numel() for p in part.parameters())


def _walk(graph: Block) -> list[Block]:
    from adaptcompose.composition.graph import walk

    return list(walk(graph))


def test_a_plan_needs_no_torch() -> None:
    code = (
        "import sys, adaptcompose.compiler.plan;"
        "assert not {'torch', 'transformers', 'rich', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
