"""ReFT: low-rank interventions on hidden states (Wu et al., 2024).

LoReFT edits h within the space that the rows of R span: h + Rᵀ(W h + b − R h), eq. 3. Training
changes an unconstrained matrix A [r, d]; R has the orthonormal rows that Gram–Schmidt makes of the
rows of A. So no step can leave the set of such matrices, and the length of A does not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC209
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.intervention import Intervention, intervention_units
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.activations import unknown_activations
from adaptcompose.methods.method import (
    Method,
    Shape,
    lost_layers,
    register_configuration,
    register_method,
)
from adaptcompose.methods.targeted import native_config, read_native_config
from adaptcompose.syntax.signature import LayerSet, option

if TYPE_CHECKING:
    import torch

LAYER_OUTPUT = "layer.out"


@register_method
@dataclass(frozen=True)
class LoReft(Method):
    """An edit of the hidden state after each layer, at the first and last tokens only.

    The edit changes the state within a subspace of `rank` dimensions. It is computed from the
    state of the same token. `noreft()` and `direft()` are the variants without orthonormal rows,
    and without subtracting the projection.

    Examples:
        loreft(rank=4)
        loreft(rank=4, prefix_positions=5, suffix_positions=5, leave_out=[0..5])
    """

    word: ClassVar[str] = "loreft"

    rank: int = option(1, "dimensions of the subspace that is edited", minimum=1)
    prefix_positions: int = option(3, "number of first tokens to edit", minimum=0)
    suffix_positions: int = option(0, "number of last tokens to edit", minimum=0)
    tied_weights: bool = option(False, "use one set of weights for first and last tokens")
    orthogonality: bool = option(True, "keep the rows of the projection orthonormal")
    subtract_projection: bool = option(True, "subtract the projection of the state")
    activation: str = option("linear", "activation after W, any that transformers has")
    dropout: float = option(
        0.05, "dropout on the edited states, in training", minimum=0, exclusive_maximum=1
    )
    leave_out: LayerSet = option(frozenset(), "layers to skip")

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        yield from unknown_activations(self.activation)
        if self.prefix_positions + self.suffix_positions == 0:
            expected = "at least 1 if `suffix_positions` is 0"
            yield AC209.at(name="prefix_positions", operator=self.word, expected=expected, got="0")
        if self.orthogonality and self.rank > facts.width:
            expected = f"at most the width of the backbone, {facts.width}"
            yield AC209.at(name="rank", operator=self.word, expected=expected, got=self.rank)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        layers = facts.sites(LAYER_OUTPUT)
        return tuple(site for site in layers if facts.layer_number(site) not in self.leave_out)

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        lost = lost_layers(self.sites(facts), sites, facts)
        return replace(self, leave_out=self.leave_out | lost) if lost else self

    @property
    def units(self) -> tuple[str, ...]:
        return intervention_units(
            self.prefix_positions, self.suffix_positions, is_tied=self.tied_weights
        )

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        width = facts.width_at(site)
        shapes: dict[str, Shape] = {}
        for unit in self.units:
            shapes |= {
                f"{unit}.source.weight": (self.rank, width),
                f"{unit}.source.bias": (self.rank,),
                f"{unit}.projection.weight": (self.rank, width),
            }
        return shapes

    def init_tensor_at(self, site: Site, facts: Facts, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        if self.orthogonality and name.endswith("projection.weight"):
            init.orthogonal_(tensor)
        else:  # as torch starts a linear map of this width
            bound = facts.width_at(site) ** -0.5
            init.uniform_(tensor, -bound, bound)

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        bases = {
            name: orthonormal_rows(tensor) if name.endswith("projection.weight") else tensor
            for name, tensor in weights.items()
        }
        return bases if self.orthogonality else weights

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site not in self.sites(facts):
            return None
        return Intervention(
            part,
            site,
            width=facts.width_at(site),
            rank=self.rank,
            prefix_positions=self.prefix_positions,
            suffix_positions=self.suffix_positions,
            is_tied=self.tied_weights,
            activation=self.activation,
            subtracts_projection=self.subtract_projection,
            dropout=self.dropout,
            parameter_source="computed" if self.orthogonality else "stored",
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        """Always our own form: files of AdapterHub have a d × d basis for every layer."""
        return native_config(self)

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Self | None:
        """The method that a `config` means, or None if it is of another family."""
        found: Self | None = read_native_config(cls, config)
        return found

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        stem = f"{facts.layout.path(site)}.reft_layer.refts.{name}"
        return {tensor: [f"{stem}.{tensor}"] for tensor in self.tensors(site, facts)}


def orthonormal_rows(matrix: torch.Tensor) -> torch.Tensor:
    """R [r, d] with R Rᵀ = 1, by Gram–Schmidt from the rows of a matrix [r, d] of rank r.

    Differentiable. The signs are those of Gram–Schmidt, so orthonormal rows stay as they are.
    """
    import torch

    basis, triangle = torch.linalg.qr(matrix.mT)
    signs = torch.where(triangle.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(matrix.dtype)
    rows: torch.Tensor = (basis * signs.unsqueeze(-2)).mT
    return rows


register_configuration("noreft", LoReft(orthogonality=False))
register_configuration("direft", LoReft(orthogonality=False, subtract_projection=False))
