"""The inputs of a run in memory, and the models that are built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptcompose.compiler.lower import lower
from adaptcompose.composition.canonical_text import format_canonical
from adaptcompose.composition.graph import Block, Head
from adaptcompose.composition.heads import ResolvedHead
from adaptcompose.composition.operators import parts_of
from adaptcompose.composition.operators.prune import measure_prunes, unmeasured_prunes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.experiment.data.encoding import (
    EncodedDataset,
    encode,
    max_input_length,
    open_backbone_tokenizer,
)
from adaptcompose.experiment.prepare.prepared_run import PreparedRun
from adaptcompose.experiment.prepare.pruning import (
    activation_batches,
    prune_data_ref,
    select_members,
    with_recorded_members,
)
from adaptcompose.experiment.run import prediction
from adaptcompose.experiment.run.seed_training import TrainingData, choose_device
from adaptcompose.experiment.spec.sections import EvaluateSection, PredictSection
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import PrunedMembers
from adaptcompose.runtime.build import build, load_backbone, make_parts
from adaptcompose.runtime.fusion_attention import measure_attention
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RunContext:
    """Backbone, tokenizer, adapters and encoded examples of a run, each read once.

    Creating a RunContext reads all of them, and raises Failed if a file is missing or damaged.
    `pruned_members` are the members that `prune` keeps of fusions that are loaded from files; they
    come from the lock, or from a measurement of this run.
    """

    def __init__(self, prepared: PreparedRun) -> None:
        self.prepared, section = prepared, prepared.spec.backbone
        self.pruned_members: dict[str, dict[str, PrunedMembers]] = {
            text: dict(members) for text, members in prepared.lock.members.items()
        }
        self._encoded: dict[tuple[str, bool, bool], EncodedDataset] = {}
        folder = prepared.backbone.folder()
        kind = prepared.task.kind if prepared.task else "text-classification"
        self.tokenizer = open_backbone_tokenizer(
            prepared.backbone, kind, section.span_of("tokenizer")
        )
        train = prepared.spec.train
        self.stock: PreTrainedModel = load_backbone(
            folder,
            with_head=prepared.head == "backbone",
            dtype=section.dtype,
            attention=section.attention,
        ).to(choose_device(train.device if train else "auto"))
        self.max_length = max_input_length(
            self.tokenizer, self.stock.config, section.max_length, section.span_of("max_length")
        )
        self.frozen_parts = self._open_adapters()
        self._encode_all()

    def _open_adapters(self) -> dict[str, Part]:
        """Read the weights of all parts; return the parts that training does not change."""
        prepared = self.prepared
        loaded: dict[str, Part] = {}
        problems: list[Diagnostic] = []
        for graph in (prepared.graph, *(row.graph for row in prepared.rows)):
            program = lower(graph, prepared.facts)
            for part in parts_of(graph).values():
                try:
                    loaded |= make_parts(part, prepared.sources, loaded, program)
                except Failed as failed:
                    problems += failed.with_default_span(part.span).diagnostics
        if problems:
            raise Failed(dict.fromkeys(problems))
        changing = {part.name for part in prepared.parts() if part.is_new} | prepared.trained_parts
        return {name: part for name, part in loaded.items() if name not in changing}

    def _encode_all(self) -> None:
        spec = self.prepared.spec
        if spec.train is not None:
            self.training_data()
        for row in self.prepared.rows:
            if isinstance(row.section, EvaluateSection):
                self.encode_split(row.section.data)
            elif isinstance(row.section, PredictSection):
                self.encode_inputs(row.section)

    def build_model(
        self, graph: Block, head: ResolvedHead, trained: ComposedModel | None = None
    ) -> ComposedModel:
        """Build a model of a composition, which shares its parts with the other models of the run.

        `trained` is a model that this run has trained; its parts and its head are used.
        """
        prepared = self.prepared
        parts = self.frozen_parts | (dict(trained.parts.items()) if trained else {})
        own = trained.head if trained is not None and isinstance(head, Head) else None
        slots = own.slots if own is not None and head.part == own.part else None  # type: ignore[union-attr]
        graph = self._prune(graph, parts)
        model = build(
            graph,
            prepared.facts,
            self.stock,
            prepared.sources,
            head=head,
            existing_parts=parts,
            head_slots=slots,
        )
        model.composition = model.composition.with_backbone_files(prepared.backbone)
        return model

    def _prune(self, graph: Block, existing_parts: Mapping[str, Part]) -> Block:
        """Give every `prune(data=…)` its attention: from the lock, or measured now."""
        prepared, text = self.prepared, format_canonical(graph)
        graph = with_recorded_members(graph, self.pruned_members)
        parts = parts_of(graph)
        is_loaded = (
            not any(part.is_new for part in parts.values())
            and not {*parts} & prepared.trained_parts
        )
        for block in list(unmeasured_prunes(graph)):
            model = build(
                graph,
                prepared.facts,
                self.stock,
                prepared.sources,
                head=None,
                existing_parts=existing_parts,
            )
            data = self.encode_split(prune_data_ref(block), labelled=False)
            means = measure_attention(model, activation_batches(data, self.tokenizer))
            if is_loaded:
                name = str(block.data)
                self.pruned_members.setdefault(text, {})[name] = select_members(graph, name, means)
            graph = measure_prunes(graph, block.data, means)
        return graph

    def training_data(self) -> TrainingData:
        """The encoded training and validation splits."""
        section = self.prepared.spec.train
        assert section is not None
        validation = self.encode_split(section.validation) if section.validation else None
        return TrainingData(self.tokenizer, self.encode_split(section.data, train=True), validation)

    def encode_split(
        self, ref: DataRef, *, train: bool = False, labelled: bool = True
    ) -> EncodedDataset:
        """The examples of a split as features, encoded once.

        For masked-lm, training hides new tokens in every epoch; scoring always hides the same ones.
        """
        key = (str(ref), train, labelled)
        if key not in self._encoded:
            task = self.prepared.task
            assert task is not None
            examples = self.prepared.read_examples(ref, labelled=labelled)
            seed = None if train else 0
            self._encoded[key] = encode(task, examples, self.tokenizer, self.max_length, seed)
        return self._encoded[key]

    def encode_inputs(self, section: PredictSection) -> EncodedDataset:
        """The features of a row of `prediction`: of its texts, or of its data without labels."""
        task = self.prepared.task
        assert task is not None
        if section.data is None:
            assert section.text is not None
            examples = prediction.examples_for_task(task, section.text)
        elif task.kind != "masked-lm":
            return self.encode_split(section.data, labelled=False)
        else:
            examples = self.prepared.read_examples(section.data, labelled=False)
        return encode(task, examples, self.tokenizer, self.max_length)
