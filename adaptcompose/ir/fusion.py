"""AdapterFusion as a primitive: attention over what several adapters add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from adaptcompose.backbones.layout import Site
from adaptcompose.ir.primitives import Placement, Primitive


@dataclass(frozen=True)
class FusionAttention:
    """How an AdapterFusion weighs its branches (Pfeiffer et al., 2021, section 3.2).

    tₙ = (W_q q + b_q)·(W_k uₙ + b_k) / T, α = softmax(t) over n, the values are W_v uₙ.

    The query q [batch, tokens, d] is the state that the branches read, or h with
    `query_before_norm`. The keys and values are made from the updates uₙ [batch, tokens, d] of the
    branches; with `residual_before` the values are W_v (uₙ + r). W_q, W_k and W_v are [d, d], b_q
    and b_k are [d]; a map that is absent is the identity. In training, `dropout` acts on the scores
    t, and T falls to 1 step by step if `temperature` is set; otherwise T = 1.
    """

    part: str
    site: Site
    width: int
    query: bool = True
    key: bool = True
    value: bool = True
    query_before_norm: bool = False
    residual_before: bool = False
    dropout: float | None = None
    temperature: bool = False


@dataclass(frozen=True)
class Mixture(Primitive):
    """r + Σₙ αₙ W_v uₙ over the branches (AdapterFusion, Pfeiffer et al., 2021).

    r [batch, tokens, d] is the residual of the branches, which all have one placement, uₙ
    [batch, tokens, d] is the update of branch n, and α [batch, tokens, branches] its attention.
    """

    branches: tuple[Primitive, ...]
    attention: FusionAttention

    def inner(self) -> tuple[Primitive, ...]:
        return self.branches

    def rebuild(self, inner: tuple[Primitive, ...]) -> Mixture:
        return replace(self, branches=inner)

    def structure(self) -> Primitive:
        anonymous = self.rebuild(tuple(branch.structure() for branch in self.branches))
        return replace(anonymous, attention=replace(self.attention, part=""))

    def parts(self) -> Iterator[str]:
        yield self.attention.part
        yield from super().parts()

    @property
    def placement(self) -> Placement:
        return self.branches[0].placement

    def multiplications(self) -> int:
        maps = self.attention
        square = maps.width * maps.width
        count = len(self.branches)
        own = maps.query * square + count * (maps.key + maps.value) * square
        return super().multiplications() + own + 2 * count * maps.width

    def __str__(self) -> str:
        maps = self.attention
        flags = {
            "no query": not maps.query,
            "no key": not maps.key,
            "no value": not maps.value,
            "query_before_norm": maps.query_before_norm,
            "residual_before": maps.residual_before,
            "temperature": maps.temperature,
        }
        extra = "".join(f" {name}" for name, is_set in flags.items() if is_set)
        return f"attention {maps.part} {maps.width} over {len(self.branches)}{extra}"
