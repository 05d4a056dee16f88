"""Programs for the examples in the docstrings of passes: a BERT of one or two layers, no torch."""

from __future__ import annotations

from adaptcompose.backbones.layout import read_facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.lower import lower
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.ir.program import Program

_SIZES = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 10,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
}


def lower_example(text: str, layers: int = 1) -> Program:
    """The literal program of an expression on a BERT of width 8; raises Failed on errors in it.

    >>> print(lower_example("pfeiffer(reduction=2)"))
    ffn.out of layer 0
      bottleneck bottleneck 8→4→8 relu  h + u(LN(h+x))
    h: output of the sub-layer, x: its input, LN: the backbone's norm, u: the contribution
    """
    facts = read_facts({"model_type": "bert", "num_hidden_layers": layers} | _SIZES)
    graph = check_source(text, CheckContext(Catalogue(()), facts)).raise_errors()
    return lower(graph, facts)
