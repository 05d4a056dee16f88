"""What a composition denotes, written down a second time: plain torch, no line of the package.

A block at a site gives what it reads z, a residual r and a contribution u; its output is r + u.
bottleneck      u = s·(U σ(D z + b) + c), then gate, then its own norm
stack           one after another; u is the last output less the first residual
fuse            r + Σ αᵢ W_v uᵢ, α = softmaxᵢ((W_q q + b_q)·(W_k uᵢ + b_k)), over what is present
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.compositions import Cut, Fusion, Leaf, Row, Tree

Weights = Mapping[tuple[str, str], Mapping[str, Tensor]]  # by part and site: "a0", "ffn.out 2"

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: z.clamp(min=0),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5)),
    "swish": lambda z: z / (1 + torch.exp(-z)),
    "tanh": torch.tanh,
    "leakyrelu": lambda z: torch.where(z > 0, z, 0.01 * z),
}


@dataclass
class Place:
    """One site in one forward pass."""

    site: str
    layer: int
    x: Tensor
    norm: Callable[[Tensor], Tensor]
    weights: Weights

    def of(self, part: str) -> Mapping[str, Tensor]:
        return self.weights[part, f"{self.site} {self.layer}"]


@dataclass
class Found:
    reads: Tensor
    residual: Tensor
    added: Tensor
    finish: bool = True

    @property
    def out(self) -> Tensor:
        return self.residual + self.added


def own_norm(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = z - z.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * weight + bias


def evaluate(tree: Tree, h: Tensor, place: Place) -> Found | None:
    """The block at a site; None where it has nothing."""
    if isinstance(tree, Leaf):
        return _leaf(tree, h, place)
    if isinstance(tree, Row):
        return _row(tree, h, place)
    if isinstance(tree, Fusion):
        return _fusion(tree, h, place)
    assert isinstance(tree, Cut)
    return evaluate(tree.body, h, place) if place.layer in tree.kept else None


def _leaf(tree: Leaf, h: Tensor, place: Place) -> Found | None:
    here = tree.get("attention" if place.site == "attn.out" else "output")
    if not here or place.layer in tree.get("leave_out", ()):
        return None
    w, x = place.of(tree.name), place.x
    z = residual = h
    if tree.get("parallel"):
        z = x
    elif tree.get("original_ln_before", True):
        z = place.norm(h + x)
        how = tree.get("residual_before_ln", True)
        residual = h if how is True else z if how is False else h + x
    y = own_norm(z, w["norm_before.weight"], w["norm_before.bias"]) if tree.get("ln_before") else z
    inner = ACTIVATIONS[tree.get("activation")](y @ w["down.weight"].T + w["down.bias"])
    u = inner @ w["up.weight"].T + w["up.bias"]
    scale = tree.get("scale")
    u = u * (w["scale"] if isinstance(scale, str) else scale)
    if tree.get("gate"):
        u = u * torch.sigmoid(z @ w["gate.weight"].T + w["gate.bias"]).mean(1, keepdim=True)
    if tree.get("ln_after"):
        inside = tree.get("adapter_residual_before_ln") and not tree.get("parallel")
        extra = residual if inside else torch.zeros_like(residual)
        u = own_norm(u + extra, w["norm_after.weight"], w["norm_after.bias"]) - extra
    return Found(z, residual, u, tree.get("original_ln_after", True))


def _row(tree: Row, h: Tensor, place: Place) -> Found | None:
    first = last = None
    for member in tree.members:
        found = evaluate(member, h, place)
        if found is not None:
            first, last, h = first or found, found, found.out
    if first is None or last is None:
        return None
    return Found(first.reads, first.residual, h - first.residual, last.finish)


def _fusion(tree: Fusion, h: Tensor, place: Place) -> Found | None:
    found = [evaluate(member, h, place) for member in tree.members]
    present = [one for one in found if one is not None]
    if not present:
        return None
    w, options = place.of(tree.name), dict(tree.settings)
    query = h if options["query"] == "before" else present[0].reads
    query = query @ w["query.weight"].T + w["query.bias"]
    scores = [(query * (one.added @ w["key.weight"].T + w["key.bias"])).sum(-1) for one in present]
    alphas = torch.softmax(torch.stack(scores), dim=0)
    mixed = torch.zeros_like(h)
    for alpha, one in zip(alphas, present, strict=True):
        value = one.added @ w["value.weight"].T if options["value"] else one.added
        mixed = mixed + alpha[..., None] * value
    return Found(present[0].reads, present[0].residual, mixed, present[0].finish)


def coupled(tree: Tree, state: Tensor, weights: Weights, *, inverse: bool = False) -> Tensor:
    """The invertible parts in their order, or their inverses in the opposite one."""
    order = [leaf for leaf in _in_a_row(tree) if leaf.get("invertible")]
    for leaf in reversed(order) if inverse else order:
        w, activation = weights[leaf.name, "embed.out"], ACTIVATIONS[leaf.get("activation")]
        half = state.shape[-1] // 2
        one, two = state[..., :half], state[..., half:]

        def net(name: str, z: Tensor, w: Any = w, activation: Any = activation) -> Tensor:
            inner = activation(z @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"])
            return inner @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]  # type: ignore[no-any-return]

        if inverse:
            two = two - net("G", one)
            one = one - net("F", two)
        else:
            one = one + net("F", two)
            two = two + net("G", one)
        state = torch.cat([one, two], dim=-1)
    return state


def _in_a_row(tree: Tree) -> list[Leaf]:
    """The adapters that every state passes; members of a fusion have nothing at the embeddings."""
    if isinstance(tree, Leaf):
        return [tree]
    return [] if isinstance(tree, Fusion) else [x for t in tree.inner() for x in _in_a_row(t)]


def forward(base: Any, tree: Tree | None, weights: Weights, batch: Mapping[str, Tensor]) -> Tensor:
    """The last hidden state of a BERT-like backbone with the composition in it."""
    state = base.embeddings(batch["input_ids"])
    state = state if tree is None else coupled(tree, state, weights)
    if hasattr(base, "embeddings_project"):
        state = base.embeddings_project(state)
    masked = (1 - batch["attention_mask"][:, None, None, :]).bool()
    for number, layer in enumerate(base.encoder.layer):
        h = layer.attention.output.dense(_attention(layer.attention.self, state, masked))
        norm = layer.attention.output.LayerNorm
        state = _after(tree, h, Place("attn.out", number, state, norm, weights))
        h = layer.output.dense(functional.gelu(layer.intermediate.dense(state)))
        state = _after(tree, h, Place("ffn.out", number, state, layer.output.LayerNorm, weights))
    return state  # type: ignore[no-any-return]


def _attention(module: Any, state: Tensor, masked: Tensor) -> Tensor:
    def heads(linear: Any) -> Tensor:
        return linear(state).unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]

    q, k, v = heads(module.query), heads(module.key), heads(module.value)
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(masked, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _after(tree: Tree | None, h: Tensor, place: Place) -> Tensor:
    found = None if tree is None else evaluate(tree, h, place)
    if found is None:
        return place.norm(h + place.x)
    return place.norm(found.out + place.x) if found.finish else found.out
