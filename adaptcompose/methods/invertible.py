"""Invertible adapters at the embeddings: NICE (Dinh et al., 2015) as MAD-X uses it.

Pfeiffer et al. (2020b) put one after the embeddings and its inverse before the language-model head.
It is the part of a language adapter that reaches the vocabulary; `bottleneck(invertible=nice)`.
"""

from __future__ import annotations

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.program import Coupling

EMBEDDINGS = Site("embed.out")
HEAD = Site("head.in")


def tensors(facts: Facts, reduction: float) -> dict[str, tuple[int, ...]]:
    """F maps the second half to the first, G the first half to the second, E the embedding width.

    F: E−E//2 → (E−E//2)//reduction → E//2, and G the other way round.
    """
    first = facts.embedding // 2
    second = facts.embedding - first
    shapes: dict[str, tuple[int, ...]] = {}
    for net, source, target in (("F", second, first), ("G", first, second)):
        rank = max(1, int(source // reduction))
        shapes |= {
            f"{net}.0.weight": (rank, source),
            f"{net}.0.bias": (rank,),
            f"{net}.2.weight": (target, rank),
            f"{net}.2.bias": (target,),
        }
    return shapes


def lower(part: str, site: Site, facts: Facts, reduction: float, activation: str) -> Coupling:
    """Forward after the embeddings, inverse in front of the vocabulary matrix."""
    rank = tensors(facts, reduction)["F.0.bias"][0]
    return Coupling(part, EMBEDDINGS, facts.embedding, rank, activation, inverse=site == HEAD)


def keys(name: str, tensor: str) -> list[str]:
    return [f"invertible_adapters.{name}.{tensor}"]
