"""Drawings: the exact text of the fixtures, and properties of all drawings."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import strategies as st

from adaptcompose.backbones.layout import Facts, read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.drawing.mermaid import quote_label, render_mermaid
from adaptcompose.composition.drawing.picture import build_picture
from adaptcompose.composition.drawing.terminal import WIDTH, render_terminal
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot, transform, walk
from adaptcompose.composition.operators import Drop, Fuse, Keep, Stack
from adaptcompose.methods.bottleneck import Bottleneck
from adaptcompose.storage.yaml_source import dump_yaml
from adaptcompose.syntax.references import Ref
from tests.sampling import sampled

DRAWINGS = sorted((Path(__file__).parent / "fixtures" / "drawings").glob("*.txt"))
BACKBONE = "google-bert/bert-base-uncased"
FACTS = read_facts(
    {
        "model_type": "bert",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
    BACKBONE,
)
GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
METHODS = {
    "lang/sw": "language()",
    "lang/en": "language()",
    "task/ner": "pfeiffer()",
    "task/upper": "pfeiffer(leave_out=0..5)",
    **{f"glue/{name}": "pfeiffer()" for name in GLUE},
    **{f"many/m{number:02}": "pfeiffer()" for number in range(40)},
}


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    root = tmp_path_factory.mktemp("cards")
    for name, method in METHODS.items():
        space, entry = name.split("/")
        variant = {"repo": f"AdapterHub/{entry}", "method": method}
        card = dump_yaml({"title": entry, "variants": {BACKBONE: {"default": variant}}})
        (root / space).mkdir(exist_ok=True)
        (root / space / f"{entry}.md").write_text(f"---\n{card}---\nA card.\n")
    return Catalogue.open(root)


def read(expression: str, catalogue: Catalogue, known: str) -> tuple[Block, Facts | None]:
    """The graph as far as it is known: `nothing`, `backbone`, or `locked` with methods."""
    if known == "nothing":
        return check_source(expression, CheckContext(catalogue)).raise_errors(), None
    context = CheckContext(catalogue, FACTS)
    graph = check_source(expression, context).raise_errors()
    if known == "backbone":
        return graph, FACTS

    def lock(block: Block) -> Block:
        if isinstance(block, Adapter) and block.ref is not None:
            written = block.variant.method if block.variant else "pfeiffer()"
            new = check_source(written or "", context).raise_errors()
            assert isinstance(new, Adapter)
            return replace(block, method=new.method)
        return block

    return transform(graph, lock), FACTS


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_drawing(path: Path, catalogue: Catalogue) -> None:
    head, drawing, chart = path.read_text().split("\n---\n")
    known, expression = head.split("\n", 1)
    graph, facts = read(expression, catalogue, known.removeprefix("known: "))
    assert render_terminal(graph, facts) == drawing
    assert render_mermaid(graph, facts) + "\n" == chart


def test_the_layers_of_encoder_and_decoder_have_their_own_notes(catalogue: Catalogue) -> None:
    config = {"model_type": "t5", "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 32}
    facts = read_facts(config | {"num_layers": 4, "num_decoder_layers": 2, "vocab_size": 9})
    text = "stack(lora(), lora(rank=2) | drop(bottom=1, part=encoder)) | drop(top=1)"
    graph = check_source(text, CheckContext(catalogue, facts)).raise_errors()
    drawn, chart = render_terminal(graph, facts), render_mermaid(graph, facts)
    assert "encoder layers 0..2: as drawn\nencoder layers 3: backbone only\n" in drawn
    assert "decoder layers 0: as drawn\ndecoder layers 1: backbone only\n" in drawn
    assert "╰ encoder layers 1..3, decoder layers 0..1 " in drawn
    scope = "encoder layers 0..2; encoder layers 3: backbone only; decoder layers 0; "
    assert f"{scope}decoder layers 1: backbone only" in chart
    assert scope in repr(build_picture(graph, facts))


def test_there_are_fixtures() -> None:
    assert len(DRAWINGS) >= 12


def _names() -> st.SearchStrategy[str]:
    words = st.text("abcdefghij-_.", min_size=1, max_size=60).map(lambda text: f"a{text}b")
    return st.tuples(words, words).map("/".join)


def _leaves() -> st.SearchStrategy[Block]:
    def loaded(name: str, method: Bottleneck | None) -> Adapter:
        return Adapter(name, method, Ref("hub", repo=name))

    methods = st.sampled_from([None, Bottleneck(), Bottleneck(invertible="nice")])
    new = st.builds(Adapter, st.sampled_from(["", "ner"]), st.just(Bottleneck(reduction=8.0)))
    return st.one_of(st.builds(loaded, _names(), methods), new, st.just(Empty()))


def _around(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    slot = st.sampled_from([None, "lang", "task", "a_slot_with_a_very_long_name_indeed"])
    slots = st.builds(Slot, slot, inner)
    members = st.lists(st.builds(Slot, st.none(), inner), min_size=2, max_size=24).map(tuple)
    return st.one_of(
        st.lists(slots, min_size=1, max_size=12).map(lambda found: Stack(tuple(found))),
        members.map(lambda found: Fuse(found, name="fuse")),
        st.builds(lambda body, count: Drop(body=body, bottom=count), inner, st.integers(0, 12)),
        st.builds(
            lambda body, layers: Keep(body=body, layers=frozenset(layers)),
            inner,
            st.sets(st.integers(0, 11), max_size=12),
        ),
    )


BLOCKS = st.recursive(_leaves(), _around, max_leaves=30)


@sampled(100, BLOCKS, st.sampled_from([None, FACTS]))
def test_every_drawing_fits(graph: Block, facts: Facts | None) -> None:
    drawing = render_terminal(graph, facts)
    lines = drawing.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert all(line == line.rstrip() for line in lines)
    assert any("h ─" in line for line in lines)


@sampled(100, BLOCKS, st.sampled_from([None, FACTS]))
def test_every_chart_is_whole(graph: Block, facts: Facts | None) -> None:
    chart = render_mermaid(graph, facts).splitlines()
    defined = [m[1] for line in chart if (m := re.match(r'\s+(\w+)\(?\[+"', line))]
    defined += [m[1] for line in chart if (m := re.match(r'\s+(\w+)\(\["', line))]
    edges = [line.split() for line in chart if " --> " in line]
    assert {end for start, _, end in edges} | {start for start, _, end in edges} <= set(defined)
    leaves = [block for block in walk(graph) if isinstance(block, Adapter | Fuse)]
    drawn = [line for line in chart if re.match(r"\s+n\d+\[", line)]
    assert len([line for line in drawn if ":::" in line]) >= len(leaves)
    assert [line.strip() for line in chart].count("end") == sum("subgraph" in li for li in chart)


@pytest.mark.parametrize("text", ['a"b', "a#b", "`x`", "<b>x</b>", "a\nb", "a & b"])
def test_a_label_has_nothing_that_mermaid_reads(text: str) -> None:
    inner = re.sub(r"#\d+;", "", quote_label(text)[1:-1])
    assert not set('"#<>&`\n') & set(inner)


def test_shared_adapters_are_drawn_where_they_stand() -> None:
    leaf = Adapter("a", Bottleneck())
    chart = render_mermaid(Stack((Slot(None, leaf), Slot("task", leaf))))
    assert chart.count("bottleneck()") == 2


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, adaptcompose.composition.drawing.mermaid;"
        "assert not {'torch', 'transformers', 'rich', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
