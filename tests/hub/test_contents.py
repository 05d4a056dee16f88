"""What folders and repositories hold, told from configurations and headers alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptcompose.backbones.layout import Facts, read_config, read_facts
from adaptcompose.cli import main as cli
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER
from adaptcompose.formats.adapterhub_setup import SETUP, setup_expression
from adaptcompose.formats.tensors import write_bin, write_tensors
from adaptcompose.hub.opening import open_store
from adaptcompose.methods import Method
from adaptcompose.resolution.file_listing import local_listing
from adaptcompose.resolution.inspection import Content, inspect_files
from adaptcompose.runtime.compose import compose

GOLDENS = Path(__file__).parents[1] / "parity" / "goldens"
BERT = GOLDENS / "bert"
BASE = BERT / "backbone"


def look(folder: Path, **options: Any) -> list[Content]:
    return inspect_files(local_listing(folder, str(folder)), **options)


@pytest.mark.parametrize("case", sorted(path.name for path in BERT.glob("*/") if path != BASE))
def test_every_adapter_of_the_goldens_is_described(case: str) -> None:
    """With its backbone, and without: then one that fits is guessed from the file."""
    facts = read_facts(read_config(BASE), "tiny/bert")
    for path in sorted((BERT / case).glob("*/adapter_config.json")):
        method, tensors = read(path.parent, facts)
        (found, *_) = look(path.parent, facts=facts)
        assert (found.kind, found.why, found.calls) == ("adapter", "", str(method))
        assert (found.name, found.type, found.width) == (path.parent.name, "bert", 16)
        assert found.parameters == sum(tensor.numel() for tensor in tensors)
        assert all(group.parameters and group.tensors for group in found.groups)
        (guessed, *_) = look(path.parent)
        assert guessed.why == "" and guessed.calls in ("", str(method))
        assert guessed.calls or "adapter_down" not in str(found.groups)


def read(folder: Path, facts: Facts) -> tuple[Method, list[torch.Tensor]]:
    described = open_adapter_folder(folder, "golden").adapter
    method = adapterhub.read_method(described, facts)
    return method, list(adapterhub.read_weights(described, method, facts).values())


def test_a_decoder_may_have_fewer_layers() -> None:
    """Nobody says how many; the tensors do."""
    for path in sorted((GOLDENS / "t5").glob("*/*/adapter_config.json")):
        assert [one.why for one in look(path.parent) if one.why] == []
    (adapter, *_) = look(GOLDENS / "t5" / "double_seq_bn" / "a")
    assert adapter.calls == "houlsby(reduction=8)"


def test_a_folder_of_several_objects() -> None:
    kinds = [(one.kind, one.place, one.name) for one in look(BERT / "stack_fuse")]
    assert kinds == [
        ("adapter", "a", "a"),
        ("adapter", "b", "b"),
        ("fusion", "fusion", "a,b"),
        ("adapter", "lang", "lang"),
    ]
    (adapter, head) = look(BERT / "cls_two_layers" / "task")
    assert (adapter.kind, head.kind) == ("adapter", "head")
    assert head.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert head.method == "classification, 2 layers"
    (backbone,) = look(BERT / "backbone")
    assert (backbone.kind, backbone.type, backbone.width) == ("backbone", "bert", 16)


def test_an_adapter_of_another_backbone_says_why() -> None:
    facts = read_facts(read_config(GOLDENS / "roberta" / "backbone"))
    (found,) = look(BERT / "seq_bn" / "a", facts=facts)
    assert "tiny/bert" in found.why
    assert found.calls == ""


@pytest.fixture
def peft(tmp_path: Path) -> Path:
    outer: dict[str, Any] = {"peft_type": "LORA", "base_model_name_or_path": "bert-base-uncased"}
    outer |= {"r": 4, "lora_alpha": 8, "target_modules": ["query"], "rank_pattern": {"0.query": 2}}
    (tmp_path / ADAPTER).write_text(json.dumps(outer))
    stem = "base_model.model.bert.encoder.layer.{}.attention.self.query"
    tensors = {
        f"{stem.format(layer)}.{name}.weight": torch.ones(shape)
        for layer in (0, 1)
        for name, shape in (("lora_A", (4, 8)), ("lora_B", (8, 4)))
    }
    write_tensors(tmp_path / "adapter_model.safetensors", tensors)
    return tmp_path


def test_an_adapter_of_peft(peft: Path) -> None:
    (found,) = look(peft)
    assert found.method == "LORA r=4 lora_alpha=8 target_modules=['query']"
    assert found.base == "bert-base-uncased"
    assert found.parameters == 128
    assert found.unusual == ("rank_pattern: {'0.query': 2}",)
    (group,) = found.groups
    assert found.calls == ""
    facts = read_facts(read_config(BASE) | {"hidden_size": 8}, "bert-base-uncased")
    (known,) = look(peft, facts=facts)
    assert known.calls.startswith("lora(") and "rank" in known.calls
    assert str(group) == (
        "bert.encoder.layer.*.attention.self.query, layers 0..1: lora_A 4×8, lora_B 8×4"
    )


def leaf(name: str) -> dict[str, Any]:
    return {"type": "single", "children": [name]}


def block(kind: str, *children: Any, **kwargs: Any) -> dict[str, Any]:
    nodes = [leaf(child) if isinstance(child, str) else child for child in children]
    return {"type": kind, "children": nodes, **({"kwargs": kwargs} if kwargs else {})}


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (block("Stack", "en", "ner"), "stack(./en, ./ner)"),
        (
            block("Stack", "en", block("Fuse", "a", "b")),
            'stack(./en, fuse(./a, ./b, load="./a,b"))',
        ),
        (
            block("Average", "a", block("Stack", "b", "c"), weights=[0.25, 0.75]),
            "average(./a:0.25, stack(./b, ./c):0.75)",
        ),
        (block("Parallel", "a", block("Stack", "b", "c")), "parallel(a=./a, c=stack(./b, ./c))"),
        (block("Split", "a", "b", "c", splits=[8, 4, 4]), "split(./a, ./b, ./c, at=[8, 12])"),
        (block("Split", "a", "b", splits=16), "split(./a, ./b, at=16)"),
    ],
)
def test_setups_are_said_in_the_language(node: Mapping[str, Any], text: str) -> None:
    assert setup_expression({"adapter_setup": node}) == text
    from adaptcompose.api import parse

    assert str(parse(text))


@pytest.mark.parametrize(
    "node",
    [
        None,
        {},
        leaf("../secret"),
        leaf("/etc"),
        {"type": "single", "children": []},
        block("BatchSplit", "a", "b", batch_sizes=[1, 2]),
        block("Split", "a", "b", splits=[1]),
        block("Stack", {"type": "Stack"}),
    ],
)
def test_a_setup_that_the_language_has_not_says_why(node: Any, tmp_path: Path) -> None:
    (tmp_path / SETUP).write_text(json.dumps({"adapter_setup": node}))
    (found,) = look(tmp_path)
    assert found.why and not found.calls
    with pytest.raises(Failed, match="AC407"):
        compose(f"./{tmp_path.name}", BERT / "backbone", root=tmp_path.parent)


def test_a_setup_runs_as_it_is_told(tmp_path: Path) -> None:
    for part in ("lang", "a", "b"):
        shutil.copytree(BERT / "stack_fuse" / part, tmp_path / part)
    shutil.copytree(BERT / "stack_fuse" / "fusion", tmp_path / "a,b")
    node = block("Stack", "lang", block("Fuse", "a", "b"))
    outer = {"adapter_setup": node, "head_setup": None, "version": "adapters.1.3.0"}
    (tmp_path / SETUP).write_text(json.dumps(outer))
    found = look(tmp_path)[0]
    assert found.kind == "setup"
    ids = torch.arange(5, 13)[None]
    one, referred, expected = (
        compose(text, BERT / "backbone", root=root)(ids).last_hidden_state
        for text, root in (
            (found.calls, tmp_path),
            (f"./{tmp_path.name}", tmp_path.parent),
            ("stack(./lang, fuse(./a, ./b, load=./fusion))", BERT / "stack_fuse"),
        )
    )
    assert torch.equal(one, expected)
    assert torch.equal(referred, expected)

    store = open_store(tmp_path.parent / "hub", tmp_path)
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.*")}
    revision = store.commit("me/setup", files, message="a setup")
    hub = str(tmp_path.parent / "hub")
    model = compose("me/setup", BERT / "backbone", root=tmp_path, hub=hub)
    assert torch.equal(model(ids).last_hidden_state, expected)
    assert {pin.revision for pin in model.lock.values()} == {revision}


def test_what_is_unusual_is_told(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BERT / "seq_bn_inv" / "a", tmp_path / "a"))
    outer = json.loads((folder / ADAPTER).read_text())
    del outer["version"], outer["model_name"]
    outer["config"]["non_linearity"] = "gelu"
    (folder / ADAPTER).write_text(json.dumps(outer))
    (folder / "adapter_interface.json").write_text("{}")
    (found,) = look(folder)
    assert found.unusual == (
        "has no version, so it was written before 2022",
        "has the activation gelu, which then meant gelu_new",
        "does not record which backbone it was trained on",
        "was made through a plug-in interface, adapter_interface.json",
        "has its weights only as a pickle, which is read without running any code",
    )


@pytest.mark.parametrize("damage", ["weights", "configuration", "pickle"])
def test_damage_is_told_and_the_rest_described(damage: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BERT / "madx", tmp_path / "madx")) / "lang"
    if damage == "configuration":
        (folder / ADAPTER).write_text("{")
    elif damage == "pickle":
        torch.save({"x": object}, folder / "pytorch_adapter.bin")
    else:
        write_bin(folder / "pytorch_adapter.bin", {"x": torch.ones(2)})
    found = look(folder.parent)
    assert [one.place for one in found] == ["lang", "task", "task"]
    assert found[0].why and not found[1].why


def show(*arguments: str) -> int:
    return cli.main(["show", *arguments])


def test_show_prints_and_dumps(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(BERT / "cls_two_layers" / "task")
    assert show(folder) == 0
    text = capsys.readouterr().out
    assert "  written     bottleneck(reduction=8)\n" in text
    assert "  parameters  246\n" in text
    assert "  labels      3: LABEL_0, LABEL_1, LABEL_2\n" in text
    assert max(map(len, text.replace(folder, "").splitlines())) <= 100
    assert show(folder, "--format", "json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in plain["contents"]] == ["adapter", "head"]
    assert plain["contents"][0]["groups"][0]["layers"] == [0, 1, 2]


def test_show_of_a_catalogue_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert show("lang/sw") == 0
    assert "AdapterHub/" in capsys.readouterr().out
    assert show("lang/sw", "--format", "json") == 0
    assert len(json.loads(capsys.readouterr().out)["variants"]) > 1


def test_show_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(str(tmp_path)) == 1
    assert "AC406" in capsys.readouterr().err
    assert show("lang/nothing") == 1
    assert "AC103" in capsys.readouterr().err


def test_show_imports_neither_torch_nor_transformers() -> None:
    for case in ("madx/lang", "cls_two_layers/task"):  # a pickle, safetensors
        code = f"""
import sys
from adaptcompose.cli import main as cli
assert cli.main(["show", {str(BERT / case)!r}]) == 0
assert not {{"torch", "transformers", "huggingface_hub", "rich"}} & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_repository_of_a_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = BERT / "madx"
    files = {f"{p.parent.name}/{p.name}": p for p in source.glob("*/*")}
    store = open_store(tmp_path / "hub", tmp_path)
    store.commit("me/parts", files, message="two adapters")
    assert show("me/parts", "--hub", str(tmp_path / "hub")) == 0
    text = capsys.readouterr().out
    assert "adapter me/parts/lang" in text and "head me/parts/task" in text
    assert show("me/parts/lang", "--hub", str(tmp_path / "hub")) == 0
    assert "language(reduction=8)" in capsys.readouterr().out


def test_links_out_of_a_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ADAPTER).symlink_to(BERT / "seq_bn" / "a" / ADAPTER)
    assert look(tmp_path) == []
    with pytest.raises(Failed, match="AC412"):
        from adaptcompose.resolution.file_listing import open_listing
        from adaptcompose.resolution.sources import Sources
        from adaptcompose.syntax.references import local_ref

        open_listing(local_ref("./nowhere"), Sources("hf", tmp_path))


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of an adapter's folder with another configuration."""
    shutil.copytree(folder, to)
    outer = json.loads((to / ADAPTER).read_text())
    change(outer)
    (to / ADAPTER).write_text(json.dumps(outer))
    return to


@pytest.mark.parametrize(("key", "word"), [("model_type", "type"), ("hidden_size", "width")])
def test_what_a_file_does_not_say_is_no_fault(key: str, word: str, tmp_path: Path) -> None:
    source, silent = BERT / "seq_bn" / "a", tmp_path / "a"
    (found,) = look(changed(source, silent, lambda outer: outer.update({key: None})))
    assert found.why == "" and found.method == "bottleneck"
    assert (
        f"does not record the {word} of its backbone; add --backbone to see more" in found.unusual
    )
    (found,) = look(silent, facts=read_facts(read_config(BASE)))
    assert found.calls.startswith("bottleneck(") and found.why == ""


def test_a_folder_without_settings_is_told_one_thing(tmp_path: Path) -> None:
    bare = changed(BERT / "seq_bn" / "a", tmp_path / "a", lambda outer: outer.pop("config"))
    (found,) = look(bare)
    assert "an unknown method" in found.why
    assert not any("default" in one for one in found.unusual)


def test_methods_of_our_own_have_their_names(tmp_path: Path) -> None:
    model = compose("bitfit()", BASE, head=None)
    model.save(str(tmp_path / "saved"))
    found = [one for one in look(tmp_path / "saved") if one.kind == "adapter"]
    assert [one.method for one in found] == ["bitfit"]
