"""`prune(data=…)` in a spec: measure the attention of fusions, and record which members they keep.

If all parts of a composition are loaded from files, the members that its fusions keep are recorded
in the lock, and later runs use them without measuring again. If a part is trained by the run, the
attention is measured after every training and not recorded.

The composition that is trained is pruned before training, so its fusions must not be new. A row of
`evaluate` or `predict`, or `publish`, may prune a fusion that this run has trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.fusion_activations import Activations
from adaptcompose.composition.graph import Block
from adaptcompose.composition.operators import Prune, fusions_of
from adaptcompose.composition.operators.prune import measure_prunes, prunes_on, unmeasured_prunes
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, suggest
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock, PrunedMembers

if TYPE_CHECKING:
    from torch import Tensor

    from adaptcompose.experiment.data.encoding import EncodedDataset

EXAMPLE_LIMIT = 2048  # enough for a stable mean
BATCH_SIZE = 64


def prune_data_ref(block: Prune) -> DataRef:
    """The data that `prune` names; the default split is train."""
    ref = DataRef.parse(block.data or "")
    return ref if ref.split else replace(ref, split="train")


def prune_problems(graphs: Sequence[Block | None], spec: Spec) -> Iterator[Diagnostic]:
    """Yield AC610 for unknown data, AC501 for a fusion that is pruned before it is trained.

    The first graph is the composition that is trained. A graph that could not be resolved is None.
    """
    for number, graph in enumerate(graphs):
        for block in unmeasured_prunes(graph) if graph is not None else ():
            new = [name for name, fusion in fusions_of(block.body).items() if fusion.is_new]
            if number == 0 and new:
                help = "prune it in `evaluate`, `predict` or `publish`: `pipe: prune(…)`"
                names = ", ".join(f"`{name}`" for name in new)
                yield codes.AC501.at(block.span, names=names, help=help)
            yield from _data_problems(block, spec)


def _data_problems(block: Prune, spec: Spec) -> Iterator[Diagnostic]:
    name, known = str(block.data), ", ".join(spec.data)
    try:
        ref = prune_data_ref(block)
        files = spec.data[ref.name].files_by_split(ref.config)
    except (KeyError, ValueError):
        near = suggest(name, list(spec.data)) if known else "add `data:` to the spec"
        yield codes.AC610.at(block.span, name=name, known=known, help=near)
        return
    if ref.split not in files:
        splits = ", ".join(f"{ref.name}/{split}" for split in files)
        yield codes.AC610.at(block.span, name=f"{ref.name}/{ref.split}", known=splits)


def prune_data_refs(graphs: Sequence[Block]) -> Iterator[DataRef]:
    """Yield the data that `prune` measures attention on."""
    yield from (prune_data_ref(block) for graph in graphs for block in unmeasured_prunes(graph))


def select_members(graph: Block, data: str, activations: Activations) -> PrunedMembers:
    """The members to record for fusions that are pruned on `data`, best first, by site."""
    prunes = prunes_on(graph, data)
    keep = max(block.keep for block in prunes)
    named = {name for block in prunes for name in fusions_of(block.body)}
    return {
        name: {site: _largest(means, keep) for site, means in sites.items()}
        for name, sites in activations.items()
        if name in named
    }


def _largest(means: Sequence[float], keep: int) -> tuple[int, ...]:
    return tuple(sorted(range(len(means)), key=lambda member: (-means[member], member))[:keep])


def activations_from_members(graph: Block, members: PrunedMembers) -> Activations:
    """Recorded members as activations that rank the members in the same order."""
    sizes = {name: len(fusion.members) for name, fusion in fusions_of(graph).items()}
    activations: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, sites in members.items():
        for site, first in sites.items():
            means = dict(zip(first, range(len(first), 0, -1), strict=True))
            row = tuple(float(means.get(n, 0)) for n in range(sizes.get(name, 0)))
            activations.setdefault(name, {})[site] = row
    return activations


def with_recorded_members(
    graph: Block, recorded: Mapping[str, Mapping[str, PrunedMembers]]
) -> Block:
    """A composition, pruned to the members that a lock records for it."""
    for data, members in recorded.get(format_canonical(graph), {}).items():
        graph = measure_prunes(graph, data, activations_from_members(graph, members))
    return graph


def reusable_members(
    old: Lock | None, new: Lock, graphs: Sequence[Block]
) -> dict[str, Mapping[str, PrunedMembers]]:
    """The members of an older lock that are still valid.

    They are if they were measured with the same backbone, tokenizer, adapters and data, and if the
    fusions still have these members.
    """
    if old is None or old.backbone != new.backbone or old.tokenizer != new.tokenizer:
        return {}
    # the lock of a sweep also pins what other combinations use
    if not (old.adapters.items() >= new.adapters.items() and old.data.items() >= new.data.items()):
        return {}
    known = {format_canonical(graph): graph for graph in graphs}
    return {
        text: by_data
        for text, by_data in old.members.items()
        if text in known
        and all(_fits_graph(known[text], name, members) for name, members in by_data.items())
    }


def _fits_graph(graph: Block, data: str, members: PrunedMembers) -> bool:
    prunes = [block for block in unmeasured_prunes(graph) if block.data == data]
    sizes = {name: len(f.members) for block in prunes for name, f in fusions_of(block.body).items()}
    return sizes.keys() == members.keys() and all(
        len({*first}) == len(first) and {*first} <= {*range(sizes[name])}
        for name, sites in members.items()
        for first in sites.values()
    )


def activation_batches(encoded: EncodedDataset, tokenizer: Any) -> Iterator[dict[str, Tensor]]:
    """Yield batches of model inputs (tensors of batch × length) for the first 2048 examples."""
    from torch.utils.data import DataLoader, Subset

    from adaptcompose.experiment.data.encoding import make_collator

    first: Any = Subset(encoded, range(min(len(encoded), EXAMPLE_LIMIT)))
    collate = make_collator(encoded.task, tokenizer, masked=True)
    for batch in DataLoader(first, batch_size=BATCH_SIZE, collate_fn=collate):
        yield {name: tensor for name, tensor in batch.items() if name != "labels"}
