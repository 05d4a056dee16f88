"""Sites that are maps: the modules that replace them, and parts that start from their weights."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Tensors
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adaptcompose.backbones.layout import ENCODER_READING_MAPS, Facts, Site
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.lora import Lora
from adaptcompose.runtime.attach.sites import (
    Wrapper,
    attaches,
    find_module,
    module_at,
    replace_module,
)
from adaptcompose.runtime.call_context import (
    ENCODER_POSITIONS,
    TOKEN_POSITIONS,
    CallContext,
    TokenPositions,
)
from adaptcompose.runtime.ops.maps import Map, MapState, StockMap, UpdatedMap
from adaptcompose.runtime.ops.norms import Norm
from adaptcompose.runtime.ops.primitives import PrimitiveModule
from adaptcompose.runtime.parts import Part

WHOLE_MODULE = (0, 1)
"""The piece that is all of a module."""


class MapSite(Wrapper, Norm):
    """A linear map of the backbone (or several packed in one module) with updates applied to it.

    Where the map is a norm, a sub-layer in front of it asks for it as a `Norm`.
    """

    def __init__(
        self, stock: nn.Module, context: CallContext, reads: str = TOKEN_POSITIONS
    ) -> None:
        super().__init__(stock)
        self.context = context
        self.positions_key = reads  # whose places its input has
        self.pieces: list[tuple[int, int]] = []
        self.adapters = nn.ModuleList()

    def add(self, piece: tuple[int, int], adapter: PrimitiveModule) -> None:
        """Attach a composition to one of the maps."""
        self.pieces.append(piece)
        self.adapters.append(adapter)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute_at(
            x, self.context, self.context.shared.get(self.positions_key, TokenPositions())
        )

    def compute_at(self, x: Tensor, context: CallContext, positions: TokenPositions) -> Tensor:
        """Apply the updated maps to x, whose tokens are at `positions`."""
        changes = dict(zip(self.pieces, self.adapters, strict=True))
        below: Map = StockMap(self.stock)
        if WHOLE_MODULE in changes:
            joint: Any = changes.pop(WHOLE_MODULE)
            state = MapState(x, below, context).at_positions(positions)
            whole, below = joint(state), UpdatedMap(state, joint, None)
        else:
            whole = self.stock(x)
        if not changes:
            return whole
        out = list(whole.tensor_split(next(iter(changes))[1], dim=-1))
        for piece, adapter in changes.items():
            state = MapState(x, below.select_piece(piece), context, out[piece[0]]).at_positions(
                positions
            )
            out[piece[0]] = adapter(state)
        return torch.cat(out, dim=-1)

    def select(self, positions: TokenPositions, rows: Tensor | None = None) -> SelectedNorm:
        """The updated maps for tokens at `positions`, in all rows or a selection."""
        return SelectedNorm(self, self.context, positions, rows)


class SelectedNorm(Norm):
    """The norm for a selection of rows or tokens."""

    def __init__(
        self, site: MapSite, context: CallContext, positions: TokenPositions, rows: Tensor | None
    ) -> None:
        self.site = site
        self.context = context if rows is None else context.select_rows(rows.tolist())
        self.places = positions._replace(start=0)

    def __call__(self, total: Tensor) -> Tensor:
        return self.site.compute_at(total, self.context, self.places)

    def select(self, positions: TokenPositions, rows: Tensor | None = None) -> SelectedNorm:
        """Narrow the selection to some of its rows or tokens."""
        return SelectedNorm(self.site, self.context, positions, rows)


@attaches("linear")
@attaches("lookup")
@attaches("norm")
def attach_map(
    base: nn.Module,
    site: Site,
    facts: Facts,
    node: Primitive,
    adapter: PrimitiveModule,
    context: CallContext,
) -> None:
    """Replace the map; one that the model lacks (a pooler, a vocabulary) is skipped."""
    path = _path(base, site, facts)
    if path is None:
        return
    stock = module_at(base, path)
    if not isinstance(stock, MapSite):
        stock = MapSite(
            stock,
            context,
            ENCODER_POSITIONS if site.name in ENCODER_READING_MAPS else TOKEN_POSITIONS,
        )
        replace_module(base, path, stock)
    stock.add(facts.layout.sites[site.name].piece, adapter)


def _path(model: nn.Module, site: Site, facts: Facts) -> str | None:
    """The path of the map, or None if the model lacks it; layers never lack theirs."""
    paths = facts.layout.paths(site)
    if site.layer is not None:
        return paths[0]
    return next((path for path in paths if find_module(model, path) is not None), None)


def _stock(backbone: PreTrainedModel, site: Site, facts: Facts) -> StockMap | None:
    """The backbone's own map, if there is one."""
    place = facts.layout.sites[site.name]
    base = backbone if place.is_outside_base else backbone.base_model
    path = _path(base, site, facts)
    return None if path is None else StockMap(base.get_submodule(path), place.piece)


def init_from_backbone(part: Part, backbone: PreTrainedModel, facts: Facts) -> None:
    """Initialise the tensors of a new part that start from the backbone's weights."""
    for site in part.sites:
        place = facts.layout.sites.get(site.name)
        if place is None or place.kind not in ("linear", "lookup", "norm"):
            continue
        stock = _stock(backbone, site, facts)
        if stock is not None:
            tensors = stock.affine()._asdict()
            with torch.no_grad():
                part.method.init_from_backbone(
                    dict(part[site].items()),
                    {name: t.detach() for name, t in tensors.items() if t is not None},
                )


def complete_factors(part: Part, kind: str, backbone: PreTrainedModel, facts: Facts) -> None:
    """Append the initial factors, negated, so that the update starts from zero (PiSSA, OLoRA).

    `pissa`: the largest singular values and vectors (Meng et al., 2024); `olora`: the first columns
    of Q and rows of R, W = Q R (Büyükakyüz, 2024), s times.
    """
    assert isinstance(part.method, Lora)
    for site in part.sites:
        stock, down, up = _stock(backbone, site, facts), part[site].get("A"), part[site].get("B")
        if stock is None or down is None or up is None or isinstance(stock.module, nn.Embedding):
            continue
        weight, rank = stock.affine().weight.detach().float(), len(down) // 2
        with torch.no_grad():
            if kind == "pissa":
                left, sizes, right = torch.linalg.svd(weight, full_matrices=False)
                left = left * (sizes / part.method.scale_at(site))
            else:
                left, right = torch.linalg.qr(weight)
            down[rank:].copy_(right[:rank])
            up[:, rank:].copy_(-left[:, :rank])


def mismatched_embeddings(
    copies: Tensors[Site, Tensor], backbone: PreTrainedModel, facts: Facts
) -> Iterator[Site]:
    """The places of which a file has another matrix than the backbone, rounding apart."""
    for site, copied in copies.items():
        stock = _stock(backbone, site, facts)
        if stock is None:
            continue
        own: Any = stock.module.weight
        step = max(torch.finfo(one.dtype).eps for one in (own, copied))
        if not torch.allclose(own.float().cpu(), copied.float(), rtol=step, atol=_SMALLEST):
            yield site


_SMALLEST = 1e-6  # half precision is coarser next to zero
