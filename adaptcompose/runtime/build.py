"""From a checked and resolved graph to a running model: lower, optimise, load parts, attach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from adaptcompose.backbones.layout import Facts, Site, read_config, read_facts
from adaptcompose.compiler import passes
from adaptcompose.compiler.lower import lower, weights_used
from adaptcompose.composition.graph import (
    Adapter,
    Block,
    adapters_of,
    adapters_with_heads,
    transform,
)
from adaptcompose.composition.heads import HeadChoice, ResolvedHead, choose_heads, needs_inverse
from adaptcompose.composition.operators import (
    Fuse,
    branch_of,
    explicit_trainability,
    fusions_of,
    inversion_problems,
)
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import StoredAdapter, open_adapter_folder
from adaptcompose.ir.program import Program
from adaptcompose.resolution.sources import Sources
from adaptcompose.runtime.attach.attachment import attach
from adaptcompose.runtime.attach.map_sites import (
    complete_factors,
    init_from_backbone,
    mismatched_embeddings,
)
from adaptcompose.runtime.branched import BranchedModel
from adaptcompose.runtime.call_context import CallContext
from adaptcompose.runtime.composition import Composition
from adaptcompose.runtime.export import exportable
from adaptcompose.runtime.heads import FlexHead
from adaptcompose.runtime.model import ComposedModel, TrunkCache
from adaptcompose.runtime.parts import Part, Parts, load_part, make_part
from adaptcompose.runtime.saving.writer import save_composition
from adaptcompose.runtime.training.cached_trunk import CachedTrunk
from adaptcompose.syntax.references import is_repo_name

Rewrite = Callable[[Program], Program]


@torch.inference_mode(mode=False)  # what is made here can be changed and trained later
def build(  # noqa: PLR0913
    graph: Block,
    facts: Facts,
    backbone: PreTrainedModel,
    sources: Sources,
    *,
    head: HeadChoice = "auto",
    optimise: bool | Rewrite = True,
    existing_parts: Mapping[str, Part] | None = None,
    head_slots: nn.ModuleList | None = None,
) -> ComposedModel:
    """Build the running model of a checked and resolved graph.

    `existing_parts` and the `head_slots` of a head are used as they are: two models that share them
    are trained together. `optimise` may be other passes than the usual ones.
    """
    chosen = choose_heads(graph, head)
    if found := list(_missing_inverses(graph, chosen, facts, backbone)):
        raise Failed(found)
    graph = reuse_trained_methods(graph, existing_parts or {})
    program = lower(graph, facts)
    # of the literal program, so that a pass never decides which weights there are
    files = _AdapterFiles(facts, sources)
    parts = _load_parts(graph, program, backbone, files, existing_parts or {})
    if callable(optimise):
        program = optimise(program)
    elif optimise:
        program = passes.optimise(program)
    context = CallContext()
    body, heads = attach(program, backbone, parts, chosen, context)
    for flex in heads.values():
        if head_slots is not None:
            flex.slots = head_slots
        else:
            _load_or_init_head(flex, graph, files)
            flex.to(device=backbone.device, dtype=_training_dtype(backbone))
    composition = Composition(graph, facts, program, chosen, backbone, sources)
    made = BranchedModel if program.names else ComposedModel
    return made(body, parts, heads, composition, context, _Services()).eval()


class _Services:
    """The operations of `model.Services`, which need modules above the model."""

    def save(self, model: ComposedModel, folder: Path) -> None:
        save_composition(model, folder)

    def exportable(self, model: ComposedModel) -> nn.Module:
        return exportable(model)

    def cache_trunk(self, model: ComposedModel, layers: int) -> TrunkCache:
        return CachedTrunk(model, layers)

    def branch(self, model: BranchedModel, name: str) -> ComposedModel:
        """Build one composition of a branched model, sharing its parts and its head."""
        made, flex = model.composition, model.head_of(name)
        one = build(
            branch_of(made.graph, name),
            made.facts,
            made.backbone,
            made.sources,
            head=made.heads[name],
            existing_parts=dict(model.parts.items()),
            head_slots=None if flex is None else flex.slots,
        )
        one.composition = replace(
            one.composition, backbone_pin=made.backbone_pin, tokenizer=made.tokenizer
        )
        return one


def _missing_inverses(
    graph: Block, chosen: Mapping[str, ResolvedHead], facts: Facts, backbone: PreTrainedModel
) -> Iterator[Diagnostic]:
    """Yield AC318 where a vocabulary needs an inverse that does not exist."""
    names = {name for name, _ in backbone.named_modules()}
    for name, head in chosen.items():
        vocabulary = head != "backbone" or not names.isdisjoint(facts.layout.vocabulary)
        if needs_inverse(head) and vocabulary:
            yield from inversion_problems(graph.branches.get(name, graph), facts)


def _training_dtype(backbone: PreTrainedModel) -> torch.dtype:
    """The type of trained weights, which is never a half-precision one."""
    return torch.promote_types(backbone.dtype, torch.float32)


def _load_parts(
    graph: Block,
    program: Program,
    backbone: PreTrainedModel,
    files: _AdapterFiles,
    existing_parts: Mapping[str, Part],
) -> Parts:
    """Every part on the backbone's device, trained or frozen as the expression says."""
    parts = Parts(_make_parts(graph, files, existing_parts, program))
    for name, leaf in adapters_of(graph).items():
        if name in existing_parts:
            continue
        if leaf.ref is None:
            init_from_backbone(parts[name], backbone, program.facts)
        else:
            _finish_loading(parts[name], leaf, backbone, files)
    for name, learns in explicit_trainability(graph).items():
        if name not in existing_parts:
            parts[name].requires_grad_(learns)
    return parts.to(device=backbone.device, dtype=_training_dtype(backbone))


def _finish_loading(
    part: Part, leaf: Adapter, backbone: PreTrainedModel, files: _AdapterFiles
) -> None:
    """Compute the factors that a file derives from its backbone's weights.

    Raises Failed with AC408 if the file has copies of the weights of another backbone.
    """
    stored = files.open(leaf)
    if kind := stored.residual_init_kind:
        complete_factors(part, kind, backbone, files.facts)
    for site in mismatched_embeddings(stored.backbone_copies(), backbone, files.facts):
        detail = f"it was saved with other backbone weights at {site}"
        raise Failed(codes.AC408.at(leaf.span, name=str(leaf.ref), detail=detail))


def reuse_trained_methods(graph: Block, existing_parts: Mapping[str, Part]) -> Block:
    """Use the methods of existing parts: one trained under `drop` lacks some layers."""

    def change(block: Block) -> Block:
        if isinstance(block, Adapter) and block.name in existing_parts:
            return replace(block, method=existing_parts[block.name].method)
        return block

    return transform(graph, change)


@dataclass
class _AdapterFiles:
    """The files of the adapters of one model; each is opened once, since that verifies hashes."""

    facts: Facts
    sources: Sources
    _opened: dict[str, StoredAdapter] = field(default_factory=dict, init=False)

    def open(self, leaf: Adapter) -> StoredAdapter:
        """The adapter that a reference of the graph is pinned to."""
        assert leaf.ref is not None and leaf.pin is not None
        if leaf.name not in self._opened:
            folder = self.sources.fetch(leaf.ref, leaf.pin)
            file = open_adapter_folder(folder, str(leaf.ref), leaf.span)
            self._opened[leaf.name] = file.on(self.facts)
        return self._opened[leaf.name]


def make_parts(
    graph: Block, sources: Sources, existing_parts: Mapping[str, Part], program: Program
) -> dict[str, Part]:
    """Make every part: reuse an existing one, read its pinned files, or initialise it.

    New parts have weights only where the program reads them.
    """
    return _make_parts(graph, _AdapterFiles(program.facts, sources), existing_parts, program)


def _make_parts(
    graph: Block, files: _AdapterFiles, existing_parts: Mapping[str, Part], program: Program
) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    used = weights_used(program)
    for name, leaf in adapters_of(graph).items():
        sites = used.get(name, ())
        parts[name] = existing_parts.get(name) or _adapter_part(leaf, sites, files)
    for name, block in fusions_of(graph).items():
        sites = used.get(name, ())
        if name in existing_parts:
            parts[name] = _require_sites(existing_parts[name], block, sites)
        else:
            parts[name] = _fusion_part(block, sites, files)
    return parts


def _require_sites(part: Part, block: Block, sites: tuple[Site, ...]) -> Part:
    for site in sites:
        if site not in part.sites:
            raise Failed(codes.AC417.at(block.span, name=part.name, site=site))
    return part


def _fusion_part(block: Fuse, sites: tuple[Site, ...], files: _AdapterFiles) -> Part:
    facts = files.facts
    if block.ref is None:
        return make_part(block.name, block.method_for(facts).restrict_to(sites, facts), facts)
    assert block.pin is not None and block.loaded_fusion is not None
    folder = files.sources.fetch(block.ref, block.pin)
    stored = adapterhub.read_config(folder, adapterhub.FUSION, str(block.ref), block.span)
    assert stored is not None
    weights = adapterhub.read_weights(stored, block.loaded_fusion, facts, adapterhub.FUSION)
    return load_part(block.name, block.loaded_fusion, weights, used=sites)


def _adapter_part(leaf: Adapter, sites: tuple[Site, ...], files: _AdapterFiles) -> Part:
    assert leaf.method is not None
    if leaf.ref is None:
        return make_part(leaf.name, leaf.method.restrict_to(sites, files.facts), files.facts)
    return load_part(leaf.name, leaf.method, files.open(leaf).tensors(), used=sites)


def _load_or_init_head(flex: FlexHead, graph: Block, files: _AdapterFiles) -> None:
    leaf = adapters_with_heads(graph).get(flex.part)
    if leaf is None or leaf.ref is None or leaf.head is None:
        flex.init_weights(float(files.facts.config.get("initializer_range") or 0.02))
        return
    try:
        flex.load_tensors(files.open(leaf).head_tensors())
    except (RuntimeError, KeyError) as error:
        detail = f"its head does not match its configuration: {str(error).splitlines()[-1].strip()}"
        raise Failed(codes.AC408.at(leaf.span, name=str(leaf.ref), detail=detail)) from None
    flex.slots.requires_grad_(False)


def facts_of_model(model: PreTrainedModel | None) -> Facts:
    """Read the facts of a loaded model; its name is the repository it was loaded from."""
    assert model is not None
    name = str(model.config._name_or_path or "")
    named = is_repo_name(name) and not Path(name).is_dir()
    stored = {"dtype": str(model.dtype).removeprefix("torch.")}
    return read_facts(model.config.to_dict() | stored, name if named else None)


def load_backbone(
    folder: Path, *, with_head: bool = False, dtype: str = "auto", attention: str | None = None
) -> PreTrainedModel:
    """Load a stock transformers model in eval mode, with its own head on request."""
    config = read_config(folder)
    names = config.get("architectures") or []
    cls: Any = transformers.AutoModel
    if with_head:
        cls = getattr(transformers, str(names[0]), None) if names else None
        if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
            cls = transformers.AutoModelForMaskedLM
    loaded = cls.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    model: PreTrainedModel = loaded.eval()
    return model
