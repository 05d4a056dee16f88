"""Prompt tuning: learned embeddings beside those of the input (Lester et al., 2021).

    [P; E(x)]

Nothing else of the model changes, and what is stored is `length` vectors. Heads see the virtual
tokens: a classifier that reads the first token reads the first virtual one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC209
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.prefix import PositionConvention
from adaptcompose.ir.primitives import Primitive
from adaptcompose.ir.tokens import VirtualTokens
from adaptcompose.methods.invertible import EMBEDDINGS_SITE
from adaptcompose.methods.method import (
    Method,
    Shape,
    read_settings,
    register_configuration,
    register_method,
)
from adaptcompose.methods.targeted import native_config, read_native_config
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch

TOKENS_SITE = Site("tokens")


@register_method
@dataclass(frozen=True)
class Prompt(Method):
    """Virtual tokens with learned embeddings, inserted before the input.

    They are embedded like words at the first positions (`shifted`, as in PEFT), or inserted after
    the embeddings without a position (`kept`, as in files of AdapterHub). In a stack, a prompt is
    inserted before the earlier prompts, or with `after_first` after the very first token, which is
    a virtual one if an earlier prompt comes first.

    Example:
        prompt(length=20, positions=kept)
    """

    word: ClassVar[str] = "prompt"
    mergeable: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    length: int = option(10, "number of virtual tokens", minimum=1)
    positions: PositionConvention = option(
        "shifted", "shifted if they take the first positions, else kept"
    )
    after_first: bool = option(False, "insert them after the first token, not before it")
    spread: float = option(0.5, "new embeddings start uniformly between −spread and spread")

    @property
    def position_convention(self) -> tuple[str, str]:
        return "tokens", self.positions

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        place = facts.layout.sites.get(EMBEDDINGS_SITE.name)
        alone = place is not None and place.kind == "output" and len(facts.layers_by_part) == 1
        if self.positions == "kept" and not alone:
            expected = "`shifted` on a backbone without a separate module for its embeddings"
            yield AC209.at(name="positions", operator=self.word, expected=expected, got="`kept`")

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return (TOKENS_SITE,)

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        return self

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        return {"embedding": (self.length, facts.width_at(TOKENS_SITE))}

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        init.uniform_(tensor, -self.spread, self.spread)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site != TOKENS_SITE:
            return None
        return VirtualTokens(
            part,
            site,
            length=self.length,
            width=facts.width_at(TOKENS_SITE),
            positions=self.positions,
            after_first=self.after_first,
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        if self.positions == "shifted":
            return native_config(self)  # the peer knows one convention, and has to refuse the other
        return {
            "architecture": "prompt_tuning",
            "prompt_length": self.length,
            "combine": "prefix_after_bos" if self.after_first else "prefix",
            "prompt_init": "random_uniform",
            "prompt_init_text": None,
            "init_weights_seed": None,
            **({} if self.spread == Prompt.spread else {"random_uniform_scale": self.spread}),
        }

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Prompt | None:
        """The method that a `config` describes, or None if it belongs to another family."""
        if config.get("architecture") != "prompt_tuning":
            own: Prompt | None = read_native_config(cls, config)
            return own
        combine = config.get("combine") or "prefix"
        if combine not in ("prefix", "prefix_after_bos"):
            raise ValueError(f"combine {combine!r} is not supported")
        given = {key: value for key, value in config.items() if value is not None}
        fields = {"prompt_length": "length", "random_uniform_scale": "spread"}
        settings = read_settings(cls, given, fields)
        return cls(**settings, positions="kept", after_first=combine == "prefix_after_bos")

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        return {"embedding": [f"prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight"]}


register_configuration("prompt_tuning", Prompt(positions="kept"))
