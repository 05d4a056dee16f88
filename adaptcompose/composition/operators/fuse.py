"""`fuse`: AdapterFusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import Adapter, Block, Slot, adapters, complete, walk
from adaptcompose.composition.operator import Call, Members, Takes, operator
from adaptcompose.composition.operators.weights import instead
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.hub.lock import Locked
from adaptcompose.ir.primitives import Mixture, Placement, Primitive
from adaptcompose.methods.fusion import Fusion
from adaptcompose.methods.invertible import EMBEDDINGS, HEAD
from adaptcompose.syntax.references import Ref, local_ref
from adaptcompose.syntax.signature import option, parameters


@operator
@dataclass(frozen=True)
class Fuse(Members):
    """AdapterFusion: attention over what the members add, learned per site (Pfeiffer et al., 2021).

    ⟦fuse(e₁, …, eₙ)⟧(h) = r + Σ αᵢ W_v uᵢ, α = softmaxᵢ((W_q q + b_q)·(W_k uᵢ + b_k) / T), over the
    members that are present at the site; r, uᵢ residual and contribution of a member, q the state
    the members read. A member that has nothing at a site is no branch there. Laws: the order of the
    members does not matter; fuse(e, …, e) adds W_v u_e, so fuse(e, …, e, value=false) = e.

    Examples:
        fuse(glue/*)
        stack(lang=sw, task=ner) | fuse(glue/*, !glue/rte, dropout=0.1)
        fuse(glue/mnli, stack(glue/rte, pfeiffer()), load=./fusion)
    """

    word: ClassVar[str] = "fuse"
    takes: ClassVar[Takes] = "adapters"
    least: ClassVar[int] = 2

    load: str | None = option(None, "a trained fusion to start from; without it new weights")
    dropout: float = option(0.0, "on the scores, in training", least=0, below=1)
    value: bool = option(True, "with a map W_v")
    pull: float = option(0.01, "weight of ‖I − W_v‖² in the loss", least=0)
    temperature: bool = option(False, "divide scores by T, falling to 1 in training")
    query: Literal["before", "after"] = option("after", "ask with h, or with what members read")
    name: str = ""
    loaded: Fusion | None = None
    ref: Ref | None = None
    pin: Locked | None = None
    only: frozenset[int] | None = None

    @classmethod
    def of(cls, call: Call) -> Block:
        load = call.options.get("load")
        ref = None
        if load:  # a path may have been in quotes
            local = load.startswith(("./", "../", "/", "~/"))
            ref = local_ref(load) if local else call.parse(load)
        return cls(call.members, span=call.span, name=call.name, ref=ref, **call.options)

    @property
    def new(self) -> bool:
        return self.ref is None

    def loading(self, reference: str) -> Fuse:
        """The same fusion as one that is loaded: its settings are in the file."""
        settings = {p.name: p.default for p in parameters(Fuse)}
        return replace(self, **(settings | {"load": reference}))

    def fusion(self, facts: Facts) -> Fusion:
        """The settings with the sites at which a member is present."""
        names = [slot.block for slot in self.members]
        sites = facts.sublayers()
        present = tuple(s for s in sites if any(block.at(s, facts) is not None for block in names))
        if self.loaded is not None:
            return self.loaded
        return Fusion(
            at=present,
            value=self.value,
            query_before_ln=self.query == "before",
            temperature=self.temperature,
            dropout=self.dropout,
            pull=self.pull if self.value else 0.0,
        )

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        kept = [b for i, b in enumerate(self.inner()) if self.only is None or i in self.only]
        branches = [block.at(site, facts) for block in kept]
        present = tuple(branch for branch in branches if branch is not None)
        if site in (EMBEDDINGS, HEAD):
            # members share one part at the embeddings, or bring none
            return present[0] if present else None
        if not present:
            return None
        return Mixture(present, self.fusion(facts).lower_attention(self.name, site, facts))

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        for slot in self.members:
            yield from self._member(slot)
        for written in self.options() if self.load else []:
            name = written.partition("=")[0]
            if name != "load":
                yield codes.AC323.at(self.span, name=name)
        if facts is not None and complete(self):
            yield from self._embeddings(facts)
            yield from self._placements(facts)

    def _member(self, slot: Slot) -> Iterator[Diagnostic]:
        if not any(isinstance(block, Adapter) for block in walk(slot.block)):
            yield codes.AC321.at(slot.block.span, slot=slot.name, operator=self.word)
        for block in walk(slot.block):
            if isinstance(block, Fuse):
                yield codes.AC305.at(block.span, operator=self.word, inner=block.word)
            method = block.method if isinstance(block, Adapter) else None
            if method is not None and not method.fusible:
                name, help = method.word, instead(method)
                yield codes.AC306.at(
                    block.span, operator=self.word, what="outputs", method=name, help=help
                )

    def _embeddings(self, facts: Facts) -> Iterator[Diagnostic]:
        here = {slot.block.at(EMBEDDINGS, facts) for slot in self.members}
        if len(here) > 1 and len(here - {None}) > 0:
            names = ", ".join(str(s.block) for s in self.members if s.block.at(EMBEDDINGS, facts))
            yield codes.AC315.at(self.span, detail=names)

    def _placements(self, facts: Facts) -> Iterator[Diagnostic]:
        for site in facts.sublayers():
            found: dict[Placement, Block] = {}
            for slot in self.members:
                primitive = slot.block.at(site, facts)
                for place in primitive.entries() if primitive is not None else ():
                    found.setdefault(place, slot.block)
            if len(found) > 1:
                detail = ", ".join(f"`{block}` is {place}" for place, block in found.items())
                yield codes.AC314.at(self.span, detail=detail)
                return

    def uncovered(self, facts: Facts, sites: Iterable[Site]) -> Iterator[Diagnostic]:
        """AC417 where members are mixed at a site for which the loaded fusion has no weights."""
        for site in sites if self.loaded is not None and complete(self) else ():
            used = any(slot.block.at(site, facts) is not None for slot in self.members)
            if used and site not in self.loaded.at:  # type: ignore[union-attr]
                yield codes.AC417.at(self.span, name=self.load, site=site)
                return


def fusions(block: Block) -> dict[str, Fuse]:
    """Every fusion once, by name."""
    return {inner.name: inner for inner in walk(block) if isinstance(inner, Fuse)}


def parts_of(block: Block) -> dict[str, Adapter | Fuse]:
    """Everything that has weights of its own, by name."""
    return {**adapters(block), **fusions(block)}
