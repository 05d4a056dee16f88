"""What a run reads, opened: backbone, tokenizer, adapters and examples, and the models of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptcompose.compiler.lower import lower
from adaptcompose.composition.canonical import canonical
from adaptcompose.composition.graph import Block, Head
from adaptcompose.composition.heads import Chosen
from adaptcompose.composition.operators import parts_of
from adaptcompose.composition.operators.prune import unmeasured
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.experiment.data.encoding import Encoded, encode, longest_input, tokenizer_of
from adaptcompose.experiment.prepare.prepared_run import Prepared
from adaptcompose.experiment.prepare.pruning import batches, data_of, filled, record, with_members
from adaptcompose.experiment.run import predict
from adaptcompose.experiment.run.train import TrainingData, device_of
from adaptcompose.experiment.spec.sections import EvaluateSection, PredictSection
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Kept
from adaptcompose.runtime.build import build, load_backbone, make_parts
from adaptcompose.runtime.fusion_attention import measure
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.parts import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Opened:
    """Everything that a run reads, read once; whatever is missing or damaged is told here.

    `members` are what `prune` keeps of fusions that are loaded: recorded by the lock, or measured.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, section = prepared, prepared.spec.backbone
        self.members: dict[str, dict[str, Kept]] = {
            text: dict(found) for text, found in prepared.lock.members.items()
        }
        self._encoded: dict[tuple[str, bool, bool], Encoded] = {}
        folder = prepared.backbone.folder()
        kind = prepared.task.kind if prepared.task else "text-classification"
        self.tokenizer = tokenizer_of(prepared.backbone, kind, section.place("tokenizer"))
        train = prepared.spec.train
        self.stock: PreTrainedModel = load_backbone(
            folder,
            with_head=prepared.head == "backbone",
            dtype=section.dtype,
            attention=section.attention,
        ).to(device_of(train.device if train else "auto"))
        self.max_length = longest_input(
            self.tokenizer, self.stock.config, section.max_length, section.place("max_length")
        )
        self.frozen = self._open_adapters()
        self._encode_all()

    def _open_adapters(self) -> dict[str, Part]:
        """Every part with weights of its own in a file, read once; those that stay as they are."""
        prepared = self.prepared
        found: dict[str, Part] = {}
        problems: list[Diagnostic] = []
        for graph in (prepared.graph, *(item.graph for item in prepared.items)):
            program = lower(graph, prepared.facts)
            for part in parts_of(graph).values():
                try:
                    found |= make_parts(part, prepared.sources, found, program)
                except Failed as failed:
                    problems += failed.at(part.span).diagnostics
        if problems:
            raise Failed(dict.fromkeys(problems))
        changing = {part.name for part in prepared.parts() if part.new} | prepared.trained
        return {name: part for name, part in found.items() if name not in changing}

    def _encode_all(self) -> None:
        spec = self.prepared.spec
        if spec.train is not None:
            self.training_data()
        for item in self.prepared.items:
            if isinstance(item.section, EvaluateSection):
                self.examples(item.section.data)
            elif isinstance(item.section, PredictSection):
                self.inputs(item.section)

    def model(
        self, graph: Block, head: Chosen, trained: ComposedModel | None = None
    ) -> ComposedModel:
        """A composition over the parts of the run, those that were trained among them."""
        prepared = self.prepared
        given = self.frozen | (dict(trained.parts.items()) if trained else {})
        own = trained.head if trained is not None and isinstance(head, Head) else None
        slots = own.slots if own is not None and head.part == own.part else None  # type: ignore[union-attr]
        graph = self._pruned(graph, given)
        model = build(
            graph, prepared.facts, self.stock, prepared.sources, head=head, given=given, slots=slots
        )
        model.composition = model.composition.on(prepared.backbone)
        return model

    def _pruned(self, graph: Block, given: Mapping[str, Part]) -> Block:
        """A graph with the attention by which its fusions are pruned: recorded, or measured now."""
        prepared, text = self.prepared, canonical(graph)
        graph = with_members(graph, self.members)
        parts = parts_of(graph)
        loaded = not any(part.new for part in parts.values()) and not {*parts} & prepared.trained
        for block in list(unmeasured(graph)):
            plain = build(
                graph, prepared.facts, self.stock, prepared.sources, head=None, given=given
            )
            data = self.examples(data_of(block), labelled=False)
            found = measure(plain, batches(data, self.tokenizer))
            if loaded:
                name = str(block.data)
                self.members.setdefault(text, {})[name] = record(graph, name, found)
            graph = filled(graph, block.data, found)
        return graph

    def training_data(self) -> TrainingData:
        """What is trained on, and what is validated on."""
        section = self.prepared.spec.train
        assert section is not None
        validation = self.examples(section.validation) if section.validation else None
        return TrainingData(self.tokenizer, self.examples(section.data, train=True), validation)

    def examples(self, ref: DataRef, *, train: bool = False, labelled: bool = True) -> Encoded:
        """Encoded once; masked-lm hides the same tokens whenever a split is scored."""
        key = (str(ref), train, labelled)
        if key not in self._encoded:
            task = self.prepared.task
            assert task is not None
            examples = self.prepared.examples(ref, labelled=labelled)
            seed = None if train else 0
            self._encoded[key] = encode(task, examples, self.tokenizer, self.max_length, seed)
        return self._encoded[key]

    def inputs(self, section: PredictSection) -> Encoded:
        """What an item of `predict` asks for: its texts, or its data without labels."""
        task = self.prepared.task
        assert task is not None
        if section.data is None:
            assert section.text is not None
            examples = predict.texts_for(task, section.text)
        elif task.kind != "masked-lm":
            return self.examples(section.data, labelled=False)
        else:
            examples = self.prepared.examples(section.data, labelled=False)
        return encode(task, examples, self.tokenizer, self.max_length)
