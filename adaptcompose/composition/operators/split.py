"""`split`: different adapters for different ranges of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Block, adapters_of, has_known_methods
from adaptcompose.composition.operator import (
    ArgumentKind,
    BlockOperator,
    CheckedCall,
    register_operator,
)
from adaptcompose.composition.operators.average import mixed_ending_problems
from adaptcompose.composition.operators.member_weights import additivity_problems
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.mixing import TokenSplit as Ranges
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.invertible import EMBEDDINGS_SITE, HEAD_SITE
from adaptcompose.methods.prompt import TOKENS_SITE, Prompt
from adaptcompose.syntax.signature import format_value, option

SHARED_SITES = (TOKENS_SITE, EMBEDDINGS_SITE, Site("vocabulary"), HEAD_SITE)
"""Sites whose parts apply to all tokens of a row, so that `split` ignores them."""

POOLER = Site("pooler")


@register_operator
@dataclass(frozen=True)
class Split(BlockOperator):
    """Different adapters for different tokens: the first up to token `at`, the second from there.

    Use it if parts of the input are of different kinds, for example a question and a passage.
    Tokens are counted from 0 in each row, after any padding on the left. A member computes on its
    own tokens only. With three members, `split(a, b, c, at=[32, 64])`, there are three ranges.

    Parts that all tokens share are ignored: virtual tokens, invertible parts and updates of the
    vocabulary.

    Laws: split(a, b, at=0) = b; split(a, a, at=n) = a if `a` processes each token on its own.

    Example:
        split(glue/mnli, glue/rte, at=64)
    """

    word: ClassVar[str] = "split"
    takes: ClassVar[ArgumentKind] = "adapters"
    min_members: ClassVar[int] = 2

    starts: int | tuple[int, ...] = option(
        64,
        "first token of the second range, or a list of the first tokens of all later ranges",
        alias="at",
    )

    @classmethod
    def from_call(cls, call: CheckedCall) -> Block:
        options = {"starts": call.options["at"]} if "at" in call.options else {}
        return cls(call.members, span=call.span, **options)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The first tokens of all ranges except the first."""
        return self.starts if isinstance(self.starts, tuple) else (self.starts,)

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        if site in SHARED_SITES:
            return None
        branches = tuple(block.at(site, facts) for block in self.inner())
        if site == POOLER:  # the pooler reads the first token only
            return branches[sum(edge <= 0 for edge in self.boundaries)]
        return Ranges(branches, self.boundaries) if any(branches) else None

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        needed = len(self.members) - 1
        rising = all(a < b for a, b in pairwise((-1, *self.boundaries)))
        if not rising or len(self.boundaries) != needed:
            expected = (
                f"{needed} rising whole numbers (the first tokens of ranges 2 to {needed + 1})"
            )
            if needed == 1:
                expected = "one whole number (the first token of the second range)"
            yield codes.AC209.at(
                self.span,
                name="at",
                operator=self.word,
                expected=expected,
                got=format_value(self.starts),
            )
        yield from additivity_problems(self.word, self, (Prompt,))
        yield from self._shared_site_problems(facts)
        if facts is not None and has_known_methods(self):
            yield from mixed_ending_problems(self, facts)

    def _shared_site_problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        """Yield AC324 for every adapter that has parts which `split` ignores."""
        for leaf in adapters_of(self).values():
            sites = leaf.method.sites(facts) if leaf.method and facts is not None else ()
            if isinstance(leaf.method, Prompt) or any(site in SHARED_SITES for site in sites):
                yield codes.AC324.at(leaf.span, name=leaf)
