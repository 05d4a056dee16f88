"""P-tuning: virtual tokens whose embeddings come out of a small network (Liu et al., 2021).

    P = W₂ relu(W₁ BiLSTM(E) + b₁) + b₂

for a learned E of `length` rows; with `encoder=mlp` there are three linear maps and no LSTM. The
network is needed in training only, and computed once for a program that does not train. The
paper's templates with anchors among the virtual tokens are for the text to have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.ir.primitives import ParametricPrimitive, Primitive
from adaptcompose.methods.method import Shape, register_method
from adaptcompose.methods.prompt import Prompt
from adaptcompose.methods.targeted import native_config, read_native_config
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch

DIRECTIONS = ("", "_reverse")


@register_method
@dataclass(frozen=True)
class PTuning(Prompt):
    """Virtual tokens before the input, with embeddings computed by an LSTM and two linear maps.

    Example:
        ptuning(length=20, encoder=mlp)
    """

    word: ClassVar[str] = "ptuning"
    mergeable: ClassVar[bool] = True

    encoder: Literal["lstm", "mlp"] = option("lstm", "the network that computes the embeddings")
    hidden: int | None = option(
        None,
        "width of the network, or of each LSTM direction (default: half its input)",
        minimum=1,
    )
    layers: int = option(2, "number of layers of the LSTM", minimum=1)

    def width(self, facts: Facts) -> int:
        """The width of the network."""
        return self.hidden or max(1, facts.embedding // 2)

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        size, width = facts.embedding, self.width(facts)
        shapes: dict[str, Shape] = super().tensors(site, facts)
        if self.encoder == "lstm":
            for layer in range(self.layers):
                source = 2 * width if layer else size
                for suffix in DIRECTIONS:
                    shapes[f"lstm.weight_ih_l{layer}{suffix}"] = (4 * width, source)
                    shapes[f"lstm.weight_hh_l{layer}{suffix}"] = (4 * width, width)
                    shapes[f"lstm.bias_ih_l{layer}{suffix}"] = (4 * width,)
                    shapes[f"lstm.bias_hh_l{layer}{suffix}"] = (4 * width,)
        for number, (source, target) in self._maps(size, width):
            shapes[f"mlp.{number}.weight"] = (target, source)
            shapes[f"mlp.{number}.bias"] = (target,)
        return shapes

    def _maps(self, size: int, width: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """The linear maps, numbered as modules with a relu between them."""
        if self.encoder == "lstm":
            widths = [2 * width, 2 * width, size]
        else:
            widths = [size, width, width, size]
        for number, pair in enumerate(pairwise(widths)):
            yield 2 * number, pair

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Initialise as torch does, except for the biases of linear maps, which are zero."""
        from torch.nn import init

        if name == "embedding":
            init.normal_(tensor)
        elif name.startswith("lstm"):
            bound = (tensor.shape[0] // 4) ** -0.5
            init.uniform_(tensor, -bound, bound)
        elif name.endswith("bias"):
            init.zeros_(tensor)
        else:
            init.kaiming_uniform_(tensor, a=5**0.5)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        node = super().lower(part, site, facts)
        return (
            replace(node, parameter_source="computed")
            if isinstance(node, ParametricPrimitive)
            else None
        )

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The embeddings, computed by the network."""
        from torch.nn.functional import linear, relu

        state = weights["embedding"]
        if self.encoder == "lstm":
            state = self._lstm(state, weights)
        numbers = [number for number, _ in self._maps(1, 1)]
        for number in numbers:
            state = relu(state) if number else state
            state = linear(state, weights[f"mlp.{number}.weight"], weights[f"mlp.{number}.bias"])
        return {"embedding": state}

    def effective_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        return Prompt(length=self.length).parameter_count_at(sites, facts)

    def _lstm(self, state: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch

        width = weights["lstm.weight_hh_l0"].shape[1]
        flat = [
            weights[f"lstm.{kind}_l{layer}{suffix}"]
            for layer in range(self.layers)
            for suffix in DIRECTIONS
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        zeros = state.new_zeros(2 * self.layers, 1, width)
        found = torch.lstm(
            state.unsqueeze(1),
            (zeros, zeros),
            flat,
            has_biases=True,
            num_layers=self.layers,
            dropout=0.0,
            train=False,
            bidirectional=True,
            batch_first=False,
        )
        return found[0].squeeze(1)

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        return native_config(self)

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> PTuning | None:
        found: PTuning | None = read_native_config(cls, config)
        return found

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        stem = f"prompt_tuning.prompt_tunings.{name}"
        keys = {tensor: [f"{stem}.{tensor}"] for tensor in self.tensors(site, facts)}
        return keys | super().adapterhub_keys(name, site, facts)
