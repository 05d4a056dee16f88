"""What a composition denotes, written down a second time: plain torch, no line of the package.

A block at a site gives what it reads z, a residual r and a contribution u; its output is r + u.
bottleneck      u = s·(U σ(D z + b) + c), then gate, then its own norm
stack           one after another; u is the last output less the first residual
fuse            r + Σ αᵢ W_v uᵢ, α = softmaxᵢ((W_q q + b_q)·(W_k uᵢ + b_k)), over what is present
average         Σ wᵢ outᵢ / Σ wᵢ, h where a member has nothing
scale           h + c (out − h)
split           each range of tokens through its own block
merge           one bottleneck with weights made of others'
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.compositions import (
    Cut,
    Factor,
    Fusion,
    Leaf,
    Marked,
    Mean,
    Merged,
    Nothing,
    Row,
    Tokens,
    Tree,
)

Weights = Mapping[tuple[str, str], Mapping[str, Tensor]]
"""By adapter and site: `a0` and `2.ffn.out`, or `decoder.1.ffn.out`."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: z.clamp(min=0),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5)),
    "swish": lambda z: z / (1 + torch.exp(-z)),
    "tanh": torch.tanh,
    "leakyrelu": lambda z: torch.where(z > 0, z, 0.01 * z),
}


@dataclass
class Place:
    """One site in one forward pass; `below` a decoder there are so many layers of an encoder."""

    site: str
    layer: int
    x: Tensor
    norm: Callable[[Tensor], Tensor]
    weights: Weights
    stack: str = ""
    below: int = 0

    @property
    def where(self) -> str:
        return ".".join(filter(None, [self.stack, str(self.layer), self.site]))

    def of(self, part: str) -> Mapping[str, Tensor]:
        return self.weights[part, self.where]

    def merged(self, tree: Merged) -> Weights:
        """What a merge has here, under the name of its first member."""
        where = self.where
        own = [self.weights[member.name, where] for member in tree.members]
        made = {name: merge_tensors(tree, where, name, [w[name] for w in own]) for name in own[0]}
        return {(tree.members[0].name, where): made}


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
    if isinstance(tree, Cut):
        return evaluate(tree.body, h, place) if place.layer in tree.kept else None
    if isinstance(tree, Marked):
        return evaluate(tree.body, h, place)
    return _combined(tree, h, place)


def _combined(tree: Tree, h: Tensor, place: Place) -> Found | None:
    if isinstance(tree, Merged):
        first = tree.members[0]
        made = place.merged(tree) if _present(first, place) else {}
        return _leaf(first, h, replace(place, weights=dict(place.weights) | made))
    if isinstance(tree, Mean):
        found = [evaluate(member, h, place) for member in tree.members]
        outs = [h if one is None else one.out for one in found]
        total = sum(w * out for w, out in zip(shares(tree), outs, strict=True))
        return _instead(found, total / sum(shares(tree)))
    if isinstance(tree, Factor):
        one = None if tree.by == 0 else evaluate(tree.body, h, place)
        return None if one is None else _instead([one], h + tree.by * (one.out - h))
    if isinstance(tree, Tokens):
        return _tokens(tree, h, place)
    assert isinstance(tree, Nothing)
    return None


def shares(tree: Mean | Merged) -> tuple[float, ...]:
    return tree.weights or (1 / len(tree.members),) * len(tree.members)


def _instead(found: list[Found | None], out: Tensor) -> Found | None:
    """A block that gives `out`, and stands where the first of its members stands."""
    first = next((one for one in found if one is not None), None)
    if first is None:
        return None
    return Found(first.reads, first.residual, out - first.residual, first.finish)


def _tokens(tree: Tokens, h: Tensor, place: Place) -> Found | None:
    ends = [*tree.at, h.shape[1]]
    outs, firsts, start = [], [], 0
    for member, end in zip(tree.members, ends, strict=True):
        span = slice(min(start, h.shape[1]), min(end, h.shape[1]))
        here = evaluate(member, h[:, span], replace(place, x=place.x[:, span]))
        outs.append(h[:, span] if here is None else here.out)
        firsts.append(evaluate(member, h, place))
        start = end
    return _instead(firsts, torch.cat(outs, dim=1))


def merge_tensors(tree: Merged, site: str, name: str, tensors: list[Tensor]) -> Tensor:
    norm = name.startswith("norm") and name.endswith("weight")
    start = 1.0 if norm or name == "scale" else 0.0
    deltas, weights = [tensor - start for tensor in tensors], shares(tree)
    density = tree.get("density", 1)
    if tree.get("method") == "dare" and density < 1:
        for number, delta in enumerate(deltas):
            words = f"{tree.get('seed')}/{number}/{site}/{name}".encode()
            chance = torch.Generator().manual_seed(zlib.crc32(words))
            kept = torch.rand(delta.shape, generator=chance, dtype=torch.float64) < density
            deltas[number] = torch.where(kept, delta / density, 0.0)
    if tree.get("method") != "ties":
        return start + sum(w * delta for w, delta in zip(weights, deltas, strict=True))  # type: ignore[no-any-return]
    out = torch.zeros_like(deltas[0]).flatten()
    trimmed = []
    for delta in deltas:
        flat = delta.flatten().tolist()
        order = sorted(range(len(flat)), key=lambda place: -abs(flat[place]))
        kept = set(order[: max(1, math.ceil(density * len(flat)))])
        trimmed.append([value if place in kept else 0.0 for place, value in enumerate(flat)])
    for place, column in enumerate(zip(*trimmed, strict=True)):
        moves = [w * value for w, value in zip(weights, column, strict=True)]
        same = [(m, abs(w)) for m, w in zip(moves, weights, strict=True) if m * sum(moves) > 0]
        if same:
            out[place] = sum(m for m, _ in same) / sum(w for _, w in same)
    return start + out.view_as(deltas[0]) * sum(map(abs, weights))


def _present(tree: Leaf, place: Place) -> bool:
    here = tree.get("attention" if place.site == "attn.out" else "output")
    return here and place.below + place.layer not in tree.get("leave_out", ())  # type: ignore[no-any-return]


def _leaf(tree: Leaf, h: Tensor, place: Place) -> Found | None:
    if not _present(tree, place):
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
    if isinstance(tree, Leaf):
        return (
            _coupled(tree, state, weights[tree.name, "embed.out"], inverse)
            if tree.get("invertible")
            else state
        )
    if isinstance(tree, Merged):
        first = tree.members[0]
        if not first.get("invertible"):
            return state
        own = [weights[member.name, "embed.out"] for member in tree.members]
        made = {n: merge_tensors(tree, "embed.out", n, [w[n] for w in own]) for n in own[0]}
        return _coupled(first, state, made, inverse)
    if isinstance(tree, Mean):
        outs = [coupled(member, state, weights, inverse=inverse) for member in tree.members]
        mixed = sum(w * out for w, out in zip(shares(tree), outs, strict=True))
        return mixed / sum(shares(tree))  # type: ignore[no-any-return]
    if isinstance(tree, Fusion | Tokens | Nothing) or (isinstance(tree, Factor) and not tree.by):
        return state
    for inner in reversed(tree.inner()) if inverse else tree.inner():
        state = coupled(inner, state, weights, inverse=inverse)
    return state


def invertible(tree: Tree) -> bool:
    """Whether anything of it stands at the embeddings."""
    if isinstance(tree, Leaf):
        return bool(tree.get("invertible"))
    if isinstance(tree, Fusion | Tokens):
        return False
    return any(map(invertible, tree.inner()))


def _coupled(leaf: Leaf, state: Tensor, w: Mapping[str, Tensor], inverse: bool) -> Tensor:
    half, activation = state.shape[-1] // 2, ACTIVATIONS[leaf.get("activation")]
    one, two = state[..., :half], state[..., half:]

    def net(name: str, z: Tensor) -> Tensor:
        inner = activation(z @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"])
        return inner @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]

    if inverse:
        two = two - net("G", one)
        one = one - net("F", two)
    else:
        one = one + net("F", two)
        two = two + net("G", one)
    return torch.cat([one, two], dim=-1)


def forward(base: Any, tree: Tree | None, weights: Weights, batch: Mapping[str, Tensor]) -> Tensor:
    """The last hidden state of a backbone with the composition in it."""
    if hasattr(base, "wte") or hasattr(base, "rotary_emb"):
        return _left_to_right(base, tree, weights, batch)
    if hasattr(base, "decoder"):
        from tests import reference_bart, reference_t5

        family = reference_t5 if hasattr(base.encoder, "block") else reference_bart
        return family.encode_and_decode(base, tree, weights, batch)
    state = base.embeddings(batch["input_ids"])
    state = state if tree is None else coupled(tree, state, weights)
    if hasattr(base, "embeddings_project"):
        state = base.embeddings_project(state)
    masked = (1 - batch["attention_mask"][:, None, None, :]).bool()
    if hasattr(base, "transformer"):
        return _distilled(base.transformer, tree, weights, state, masked)
    for number, layer in enumerate(base.encoder.layer):
        h = layer.attention.output.dense(_attention(layer.attention.self, state, masked))
        norm = layer.attention.output.LayerNorm
        state = after(tree, h, Place("attn.out", number, state, norm, weights))
        h = layer.output.dense(functional.gelu(layer.intermediate.dense(state)))
        state = after(tree, h, Place("ffn.out", number, state, layer.output.LayerNorm, weights))
    return state  # type: ignore[no-any-return]


def _distilled(
    base: Any, tree: Tree | None, weights: Weights, state: Tensor, masked: Tensor
) -> Tensor:
    """DistilBERT's layers: BERT's under other names."""
    for number, layer in enumerate(base.layer):
        own = layer.attention
        maps = (own.q_lin, own.k_lin, own.v_lin)
        h = own.out_lin(weighed(*(heads(one, state, own.n_heads) for one in maps), masked))
        state = after(tree, h, Place("attn.out", number, state, layer.sa_layer_norm, weights))
        h = layer.ffn.lin2(functional.gelu(layer.ffn.lin1(state)))
        state = after(tree, h, Place("ffn.out", number, state, layer.output_layer_norm, weights))
    return state


def _attention(module: Any, state: Tensor, masked: Tensor) -> Tensor:
    maps = (module.query, module.key, module.value)
    return weighed(*(heads(one, state, module.num_attention_heads) for one in maps), masked)


def heads(linear: Any, state: Tensor, count: int) -> Tensor:
    return linear(state).unflatten(-1, (count, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def _left_to_right(
    base: Any, tree: Tree | None, weights: Weights, batch: Mapping[str, Tensor]
) -> Tensor:
    """GPT-2 or Llama: the norms stand in front, and no token sees a later one."""
    ids = batch["input_ids"]
    places = torch.arange(ids.shape[1])[None]
    old = hasattr(base, "wte")
    state = base.wte(ids) + base.wpe(places) if old else base.embed_tokens(ids)
    turns = None if old else base.rotary_emb(state, position_ids=places)
    state = state if tree is None else coupled(tree, state, weights)
    masked = places > places.mT
    masked = masked[None, None] | (1 - batch["attention_mask"][:, None, None, :]).bool()
    for number, layer in enumerate(base.h if old else base.layers):
        norms = (layer.ln_1, layer.ln_2) if old else _norms(layer)
        for site, norm in zip(("attn.out", "ffn.out"), norms, strict=True):
            z = norm(state)
            if site == "ffn.out":
                h = layer.mlp(z)
            else:
                h = _joint(layer.attn, z, masked) if old else _turned(layer, z, masked, turns)
            state = after(tree, h, Place(site, number, state, lambda total: total, weights))
    return (base.ln_f if old else base.norm)(state)  # type: ignore[no-any-return]


def _norms(layer: Any) -> tuple[Any, Any]:
    return layer.input_layernorm, layer.post_attention_layernorm


def weighed(q: Tensor, k: Tensor, v: Tensor, masked: Tensor) -> Tensor:
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(masked, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _joint(module: Any, state: Tensor, masked: Tensor) -> Tensor:
    joint = state @ module.c_attn.weight + module.c_attn.bias
    q, k, v = (
        one.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for one in joint.chunk(3, dim=-1)
    )
    return weighed(q, k, v, masked) @ module.c_proj.weight + module.c_proj.bias  # type: ignore[no-any-return]


def _turned(layer: Any, state: Tensor, masked: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    module, (cos, sin) = layer.self_attn, turns

    def turn(z: Tensor) -> Tensor:
        one, two = z.chunk(2, dim=-1)
        return z * cos[:, None] + torch.cat([-two, one], dim=-1) * sin[:, None]

    q, k, v = (
        (state @ one.weight.T).unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
        for one in (module.q_proj, module.k_proj, module.v_proj)
    )
    times = q.shape[1] // k.shape[1]  # several heads share their keys
    k, v = (one.repeat_interleave(times, dim=1) for one in (turn(k), v))
    return weighed(turn(q), k, v, masked) @ module.o_proj.weight.T  # type: ignore[no-any-return]


def after(tree: Tree | None, h: Tensor, place: Place) -> Tensor:
    found = None if tree is None else evaluate(tree, h, place)
    if found is None:
        return place.norm(h + place.x)
    return place.norm(found.out + place.x) if found.finish else found.out
