"""`fuse`: AdapterFusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    Slot,
    WeightedPart,
    adapters_of,
    has_known_methods,
    walk,
)
from adaptcompose.composition.operator import (
    ArgumentKind,
    BlockOperator,
    CheckedCall,
    register_operator,
)
from adaptcompose.composition.operators.member_weights import suggest_operators
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.fusion import Mixture
from adaptcompose.ir.primitives import Placement, Primitive
from adaptcompose.methods.fusion import Fusion
from adaptcompose.methods.invertible import EMBEDDINGS_SITE, HEAD_SITE
from adaptcompose.syntax.references import Ref, local_ref
from adaptcompose.syntax.signature import option, parameters


@register_operator
@dataclass(frozen=True)
class Fuse(WeightedPart, BlockOperator):
    """AdapterFusion: learned attention over the outputs of its members (Pfeiffer et al., 2021).

    Use it to draw on several trained adapters for one task: in each layer and for each token,
    attention learns how much each member contributes. Train the fusion after its members, or
    load a trained one with `load`.

    ⟦fuse(e₁, …, eₙ)⟧(h) = r + Σ αᵢ W_v uᵢ, α = softmaxᵢ((W_q q + b_q)·(W_k uᵢ + b_k) / T), with
    one attention per site. r is the residual, uᵢ is what member i adds to it, and q is the state
    that the members read. A member that has no part at a site does not take part in the
    attention there.

    Laws: the order of the members does not matter; fuse(e, …, e) adds W_v u_e, so
    fuse(e, …, e, value=false) = e.

    Examples:
        fuse(glue/*)
        stack(lang=sw, task=ner) | fuse(glue/*, !glue/rte, dropout=0.1)
        fuse(glue/mnli, stack(glue/rte, pfeiffer()), load=./fusion)
    """

    word: ClassVar[str] = "fuse"
    kind = "fusion"
    takes: ClassVar[ArgumentKind] = "adapters"
    min_members: ClassVar[int] = 2

    load: str | None = option(None, "a trained fusion to load (default: new weights)")
    dropout: float = option(
        0.0, "dropout on the attention scores, in training", minimum=0, exclusive_maximum=1
    )
    value: bool = option(True, "use a value map W_v")
    pull: float = option(0.01, "weight of ‖I − W_v‖² in the loss", minimum=0)
    temperature: bool = option(False, "divide the scores by T, which falls to 1 in training")
    query: Literal["before", "after"] = option(
        "after",
        "compute the query from h (before), or from the state that the members read (after)",
    )
    loaded_fusion: Fusion | None = None
    active_members: frozenset[int] | None = None

    @classmethod
    def from_call(cls, call: CheckedCall) -> Block:
        load = call.options.get("load")
        ref = None
        if load:  # the option does not say whether the path was in quotes
            local = load.startswith(("./", "../", "/", "~/"))
            ref = local_ref(load) if local else call.parse(load)
        return cls(call.members, span=call.span, name=call.name, ref=ref, **call.options)

    @property
    def default_name(self) -> str:
        return self.word

    @property
    def summary(self) -> str:
        return f"fusion of {len(self.members)}"

    def drawing_label(self, slot: str | None = None) -> str:
        """`= fuse ./fusion` for a loaded fusion, `+ fuse` or `+ NAME fuse` for a new one."""
        if not self.is_new:
            return f"= {self.word} {self.ref}"
        is_named = self.name not in (slot, self.word, "")
        return f"+ {self.name} {self.word}" if is_named else f"+ {self.word}"

    def pinned(self, reference_of: Callable[[WeightedPart], Ref]) -> Block:
        # a loaded fusion has its settings in its file, so the arguments go
        defaults = {p.name: p.default for p in parameters(Fuse)}
        return replace(self, **(defaults | {"load": str(reference_of(self))}))

    def inner_with_slots(self, slot: str | None) -> Iterator[tuple[Block, str | None]]:
        for block in self.inner():
            yield block, None  # the slot contains the fusion, not its members

    def narrowed(self, means: Sequence[float], count: int) -> Fuse:
        """This fusion with the `count` members that have the largest means, the first of equals."""
        active = range(len(self.members)) if self.active_members is None else self.active_members
        ranked = sorted(active, key=lambda member: (-means[member], member))
        return replace(self, active_members=frozenset(ranked[:count]))

    def method_for(self, facts: Facts) -> Fusion:
        """The settings, with one attention at each site where a member is present."""
        if self.loaded_fusion is not None:
            return self.loaded_fusion
        sites = facts.sublayer_sites()
        return Fusion(
            fused_sites=tuple(site for site in sites if self._is_present(site, facts)),
            value=self.value,
            query_before_ln=self.query == "before",
            temperature=self.temperature,
            dropout=self.dropout,
            value_regularisation=self.pull if self.value else 0.0,
        )

    def _is_present(self, site: Site, facts: Facts) -> bool:
        return any(block.at(site, facts) is not None for block in self.inner())

    def at(self, site: Site, facts: Facts) -> Primitive | None:
        primitives = (
            block.at(site, facts)
            for number, block in enumerate(self.inner())
            if self.active_members is None or number in self.active_members
        )
        present = tuple(primitive for primitive in primitives if primitive is not None)
        if site in (EMBEDDINGS_SITE, HEAD_SITE):
            # members share one part at the embeddings, or bring none
            return present[0] if present else None
        if not present:
            return None
        return Mixture(present, self.method_for(facts).lower_attention(self.name, site, facts))

    def problems(self, facts: Facts | None) -> Iterator[Diagnostic]:
        for slot in self.members:
            yield from self._member_problems(slot)
        for written in self.format_options() if self.load else []:
            name = written.partition("=")[0]
            if name != "load":
                yield codes.AC323.at(self.span, name=name)
        if facts is not None and has_known_methods(self):
            yield from self._embedding_problems(facts)
            yield from self._placement_problems(facts)

    def _member_problems(self, slot: Slot) -> Iterator[Diagnostic]:
        if not any(isinstance(block, Adapter) for block in walk(slot.block)):
            yield codes.AC321.at(slot.block.span, slot=slot.name, operator=self.word)
        for block in walk(slot.block):
            if isinstance(block, Fuse):
                yield codes.AC305.at(block.span, operator=self.word, inner=block.word)
            method = block.method if isinstance(block, Adapter) else None
            if method is not None and not method.fusible:
                name, help = method.word, suggest_operators(method)
                yield codes.AC306.at(
                    block.span, operator=self.word, what="outputs", method=name, help=help
                )

    def _embedding_problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """Yield AC315 unless all members have the same part at the embeddings, or none."""
        nodes = {slot.block.at(EMBEDDINGS_SITE, facts) for slot in self.members}
        if len(nodes) > 1:
            names = ", ".join(
                str(s.block) for s in self.members if s.block.at(EMBEDDINGS_SITE, facts)
            )
            yield codes.AC315.at(self.span, detail=names)

    def _placement_problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """Yield AC314 if members read different states at a site."""
        for site in facts.sublayer_sites():
            readers: dict[Placement, Block] = {}
            for slot in self.members:
                primitive = slot.block.at(site, facts)
                for placement in primitive.input_placements() if primitive is not None else ():
                    readers.setdefault(placement, slot.block)
            if len(readers) > 1:
                texts = (f"`{block}` computes {placement}" for placement, block in readers.items())
                detail = ", ".join(texts)
                yield codes.AC314.at(self.span, detail=detail)
                return

    def coverage_problems(self, facts: Facts, sites: Sequence[Site]) -> Iterator[Diagnostic]:
        """Yield AC417 if members are mixed at a site where the loaded fusion has no weights."""
        if self.loaded_fusion is not None and has_known_methods(self):
            fused = self.loaded_fusion.fused_sites
            missing = (s for s in sites if s not in fused and self._is_present(s, facts))
            if (site := next(missing, None)) is not None:
                yield codes.AC417.at(self.span, name=self.load, site=site)
        yield from super().coverage_problems(facts, sites)


def fusion_occurrences(block: Block) -> list[Fuse]:
    """The fusions of a graph in the order in which they are written, shared ones repeatedly."""
    return [inner for inner in walk(block) if isinstance(inner, Fuse)]


def fusions_of(block: Block) -> dict[str, Fuse]:
    """The fusions of a graph by name."""
    return {fusion.name: fusion for fusion in fusion_occurrences(block)}


def parts_of(block: Block) -> dict[str, WeightedPart]:
    """The adapters and fusions of a graph, which have weights of their own, by name."""
    return {**adapters_of(block), **fusions_of(block)}
