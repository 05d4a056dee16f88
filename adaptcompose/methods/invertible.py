"""Invertible adapters at the embeddings: NICE (Dinh et al., 2015) as MAD-X uses it, and GLOW.

Pfeiffer et al. (2020b) put one after the embeddings and its inverse before the language-model head.
It is the part of a language adapter that reaches the vocabulary; `bottleneck(invertible=nice)`.
GLOW (Kingma & Dhariwal, 2018) also scales: each half by a factor that the other one decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.primitives import AdditiveCoupling

EMBEDDINGS_SITE = Site("embed.out")
HEAD_SITE = Site("head.in")

CouplingKind = Literal["nice", "glow"]


@dataclass(frozen=True)
class AffineCoupling(AdditiveCoupling):
    """Affine coupling, GLOW (Kingma & Dhariwal, 2018), or its inverse.

    y₁ = e(s)·x₁ + t with (s, t) = S₂(x₂), y₂ = e(s)·x₂ + t with (s, t) = S₁(y₁); the factors stay
    within exp(±5): e(s) = exp(5·0.636·atan(s/5)).
    """

    kind: ClassVar[str] = "affinecoupling"
    label: ClassVar[str] = "scale-couple"

    def multiplications(self) -> int:
        return 3 * self.width * self.rank


def tensors(
    facts: Facts, reduction: float, kind: CouplingKind = "nice"
) -> dict[str, tuple[int, ...]]:
    """Two small networks, E the embedding width: for NICE from one half to what the other gets.

    F: E−E//2 → (E−E//2)//reduction → E//2, and G the other way round. For GLOW s2 stands for F and
    s1 for G, with outputs twice as wide: what the other half is multiplied by, and what it gets.
    """
    first = facts.embedding // 2
    second = facts.embedding - first
    pairs = {"F": (second, first), "G": (first, second)}
    if kind == "glow":
        pairs = {"s1": (first, 2 * second), "s2": (second, 2 * first)}
    shapes: dict[str, tuple[int, ...]] = {}
    for net, (source, target) in pairs.items():
        rank = max(1, int(source // reduction))
        shapes |= {
            f"{net}.0.weight": (rank, source),
            f"{net}.0.bias": (rank,),
            f"{net}.2.weight": (target, rank),
            f"{net}.2.bias": (target,),
        }
    return shapes


def lower(
    part: str, site: Site, facts: Facts, reduction: float, activation: str, kind: CouplingKind
) -> AdditiveCoupling:
    """The coupling after the embeddings, or its inverse in front of the vocabulary matrix."""
    primitive = AffineCoupling if kind == "glow" else AdditiveCoupling
    rank = tensors(facts, reduction)["F.0.bias"][0]
    inverse = site == HEAD_SITE
    return primitive(part, EMBEDDINGS_SITE, facts.embedding, rank, activation, inverse=inverse)


def keys(name: str, tensor: str, facts: Facts) -> list[str]:
    return [f"{facts.layout.adapterhub_stem}invertible_adapters.{name}.{tensor}"]
