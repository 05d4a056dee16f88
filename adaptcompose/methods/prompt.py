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
from adaptcompose.ir.prefix import Positions
from adaptcompose.ir.primitives import Primitive
from adaptcompose.ir.tokens import Tokens
from adaptcompose.methods.invertible import EMBEDDINGS
from adaptcompose.methods.method import Method, Shape, configuration, method, read_settings
from adaptcompose.methods.targeted import native_config, read_native
from adaptcompose.syntax.signature import option

if TYPE_CHECKING:
    import torch

TOKENS = Site("tokens")


@method
@dataclass(frozen=True)
class Prompt(Method):
    """Virtual tokens with learned embeddings in front of the input.

    They are embedded like words at the first positions (`shifted`, as PEFT has it), or join behind
    the embeddings and have no position (`kept`, as AdapterHub's files mean it). In a stack a prompt
    joins what stands there: in front of the prompts before it, or with `after_first` behind the
    first token of all, which is the first virtual one if a prompt before it stands in front.

    Example:
        prompt(length=20, positions=kept)
    """

    word: ClassVar[str] = "prompt"
    mergeable: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    length: int = option(10, "how many virtual tokens", least=1)
    positions: Positions = option("shifted", "whether they take the first positions")
    after_first: bool = option(False, "behind the first token, not in front of it")
    spread: float = option(0.5, "new embeddings start uniformly between minus this and this")

    @property
    def convention(self) -> tuple[str, str]:
        return "tokens", self.positions

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        place = facts.layout.sites.get(EMBEDDINGS.name)
        alone = place is not None and place.kind == "output" and len(facts.stacks) == 1
        if self.positions == "kept" and not alone:
            expected = "shifted on a backbone whose embeddings are no module of their own"
            yield AC209.at(name="positions", operator=self.word, expected=expected, got="kept")

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return (TOKENS,)

    def only(self, sites: Collection[Site], facts: Facts) -> Self:
        return self

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        return {"embedding": (self.length, facts.size(TOKENS))}

    def start(self, name: str, tensor: torch.Tensor) -> None:
        from torch.nn import init

        init.uniform_(tensor, -self.spread, self.spread)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        if site != TOKENS:
            return None
        return Tokens(
            part,
            site,
            length=self.length,
            width=facts.size(TOKENS),
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
        """The method that a `config` means, or None if it is of another family."""
        if config.get("architecture") != "prompt_tuning":
            own: Prompt | None = read_native(cls, config)
            return own
        combine = config.get("combine") or "prefix"
        if combine not in ("prefix", "prefix_after_bos"):
            raise ValueError(f"combine is {combine}")
        given = {key: value for key, value in config.items() if value is not None}
        fields = {"prompt_length": "length", "random_uniform_scale": "spread"}
        settings = read_settings(cls, given, fields)
        return cls(**settings, positions="kept", after_first=combine == "prefix_after_bos")

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> dict[str, list[str]]:
        return {"embedding": [f"prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight"]}


configuration("prompt_tuning", Prompt(positions="kept"))
