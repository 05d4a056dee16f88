"""A program prints what stands where, equal layers once."""

from __future__ import annotations

from adaptcompose.backbones.layout import read_facts
from adaptcompose.compiler.lower import lower
from adaptcompose.composition.graph import Adapter, Slot
from adaptcompose.composition.operators import Drop, Fuse, Stack
from adaptcompose.methods.bottleneck import Bottleneck

FACTS = read_facts(
    {
        "model_type": "bert",
        "hidden_size": 64,
        "num_hidden_layers": 6,
        "intermediate_size": 128,
        "vocab_size": 100,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
    }
)


def test_equal_layers_are_printed_once() -> None:
    sw = Adapter("sw", Bottleneck(reduction=2.0, invertible="nice"))
    members = tuple(Slot(None, Adapter(name, Bottleneck())) for name in "ab")
    graph = Drop(body=Stack((Slot("lang", sw), Slot(None, Fuse(members, name="f")))), bottom=2)
    assert (
        str(lower(graph, FACTS))
        == """\
embed.out
  couple sw 32→16→32 relu
ffn.out of layers 2..5
  chain
    bottleneck sw 64→32→64 relu  h + u(LN(h+x))
    attention f 64 over 2
      bottleneck a 64→4→64 relu  h + u(LN(h+x))
      bottleneck b 64→4→64 relu  h + u(LN(h+x))
head.in
  uncouple sw 32→16→32 relu
h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution"""
    )


def test_layers_that_differ_are_printed_apart_with_their_settings() -> None:
    method = Bottleneck(reduction=(2.0, 4.0), gate=True, scale="learned", ln_after=True)
    members = (Slot(None, Adapter("a", method)), Slot(None, Adapter("b", method)))
    graph = Fuse(members, name="f", value=False, query="before")
    lines = str(lower(Drop(body=graph, top=4), FACTS)).splitlines()
    assert lines[:3] == [
        "ffn.out of layer 0",
        "  attention f 64 over 2 no value query_before_norm",
        "    bottleneck a 64→32→64 relu ×learned norm_after gate  h + u(LN(h+x))",
    ]
    assert lines[4:6] == [
        "ffn.out of layer 1",
        "  attention f 64 over 2 no value query_before_norm",
    ]
