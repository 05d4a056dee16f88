"""`split`: other adapters for other tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, adapters, complete
from adaptcompose.composition.operator import Call, Members, Takes, operator
from adaptcompose.composition.operators.average import one_ending
from adaptcompose.composition.operators.weights import unadditive
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.mixing import Split as Ranges
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.invertible import EMBEDDINGS, HEAD
from adaptcompose.methods.prompt import TOKENS, Prompt
from adaptcompose.syntax.signature import option, spell

LEFT_OUT = (TOKENS, EMBEDDINGS, Site("vocabulary"), HEAD)
POOLER = Site("pooler")


@operator
@dataclass(frozen=True)
class Split(Members):
    """Other adapters for other tokens: those before `at` through the first, the rest the second.

    split(a, b, c, at=[32, 64]) has three ranges. Tokens are counted from 0 in each row, a branch
    sees its own tokens only, and what all share is left out: virtual tokens, invertible parts and
    changes of the vocabulary. Laws: split(a, b, at=0) = b; split(a, a, at=n) = a for all that
    looks at one token at a time.

    Example:
        split(glue/mnli, glue/rte, at=64)
    """

    word: ClassVar[str] = "split"
    takes: ClassVar[Takes] = "adapters"
    least: ClassVar[int] = 2

    starts: int | tuple[int, ...] = option(
        64, "first token of the second range, or a list: of the second, the third, …", word="at"
    )

    @classmethod
    def of(cls, call: Call) -> Block:
        given = {"starts": call.options["at"]} if "at" in call.options else {}
        return cls(call.members, span=call.span, **given)

    @property
    def edges(self) -> tuple[int, ...]:
        return self.starts if isinstance(self.starts, tuple) else (self.starts,)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        if site in LEFT_OUT:
            return None
        branches = tuple(block.at(site, facts) for block in self.inner())
        if site == POOLER:  # it reads the first token only
            return branches[sum(edge <= 0 for edge in self.edges)]
        return Ranges(branches, self.edges) if any(branches) else None

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        needed = len(self.members) - 1
        rising = all(a < b for a, b in pairwise((-1, *self.edges)))
        if not rising or len(self.edges) != needed:
            expected = f"{needed} rising whole numbers: where the ranges after the first begin"
            if needed == 1:
                expected = "one whole number: where the second range begins"
            yield codes.AC209.at(
                self.span, name="at", operator=self.word, expected=expected, got=spell(self.starts)
            )
        yield from unadditive(self.word, self, (Prompt,))
        yield from self._left_out(facts)
        if facts is not None and complete(self):
            yield from one_ending(self, facts)

    def _left_out(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """AC324 for every adapter of which something is left out."""
        for leaf in adapters(self).values():
            sites = leaf.method.sites(facts) if leaf.method and facts is not None else ()
            if isinstance(leaf.method, Prompt) or any(site in LEFT_OUT for site in sites):
                yield codes.AC324.at(leaf.span, name=leaf)
