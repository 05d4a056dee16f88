"""The heads of transformers' classes as flexible heads of AdapterHub.

A file that was saved from `BertForSequenceClassification` has the class's own keys and no
configuration of its head. The head equals a flexible head with certain settings, and the tensors of
its modules fill the slots of that head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LABELLED = ("classification", "tagging", "question_answering", "image_classification")


@dataclass(frozen=True)
class StaticHead:
    """The head of a class: the flexible head that it equals, and its modules by slot."""

    kind: str
    slots: Mapping[int, str]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _one(module: str) -> dict[int, str]:
    """Dropout, linear."""
    return {1: module}


def _two(dense: str, last: str) -> dict[int, str]:
    """Dropout, linear, activation, dropout, linear."""
    return {1: dense, 4: last}


def _vocabulary(dense: str, norm: str, last: str) -> dict[int, str]:
    """Linear, activation, norm, vocabulary."""
    return {0: dense, 2: norm, 3: last}


_ONE = {"layers": 1, "activation_function": None}
_POOLED = _ONE | {"use_pooler": True}
_NO_BIAS = _ONE | {"bias": False}
_TANH = {"layers": 2, "activation_function": "tanh"}
_RELU = {"layers": 2, "activation_function": "relu"}
_GELU = {"layers": 2, "activation_function": "gelu"}
_LM = _GELU | {"layer_norm": True, "bias": True}

_BERT_LM = _vocabulary(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.decoder",
)
_ROBERTA_LM = _vocabulary("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder")
_ELECTRA_LM = _vocabulary(
    "generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"
)
_ALBERT_LM = _vocabulary("predictions.dense", "predictions.LayerNorm", "predictions.decoder")
_DISTILBERT_LM = _vocabulary("vocab_transform", "vocab_layer_norm", "vocab_projector")
_HEAD = _two("classifier.dense", "classifier.out_proj")
_SEQ2SEQ = _two("classification_head.dense", "classification_head.out_proj")

_CLASSES: tuple[tuple[str, str, str, Mapping[int, str], Mapping[str, Any]], ...] = (
    ("Bert Albert", "ForSequenceClassification", "classification", _one("classifier"), _POOLED),
    ("Roberta XLMRoberta Xmod", "ForSequenceClassification", "classification", _HEAD, _TANH),
    ("Electra", "ForSequenceClassification", "classification", _HEAD, _GELU),
    ("Bart MBart PLBart T5 MT5", "ForSequenceClassification", "classification", _SEQ2SEQ, _TANH),
    (
        "DistilBert",
        "ForSequenceClassification",
        "classification",
        _two("pre_classifier", "classifier"),
        _RELU,
    ),
    (
        "Deberta DebertaV2",
        "ForSequenceClassification",
        "classification",
        _two("pooler.dense", "classifier"),
        _GELU,
    ),
    ("GPT2 GPTJ", "ForSequenceClassification", "classification", _one("score"), _NO_BIAS),
    (
        "Llama Mistral",
        "ForSequenceClassification",
        "classification",
        _one("score"),
        _NO_BIAS | {"dropout_prob": 0},
    ),
    (
        "Bert Roberta XLMRoberta Xmod Electra Albert DistilBert Deberta DebertaV2 GPT2",
        "ForTokenClassification",
        "tagging",
        _one("classifier"),
        _ONE,
    ),
    ("Llama Mistral", "ForTokenClassification", "tagging", _one("score"), _ONE),
    (
        "Bert Roberta XLMRoberta Xmod Electra Albert DistilBert Deberta DebertaV2 GPT2 GPTJ"
        " Bart MBart T5 MT5 Llama Mistral",
        "ForQuestionAnswering",
        "question_answering",
        _one("qa_outputs"),
        _ONE,
    ),
    (
        "Bert Albert Roberta XLMRoberta Xmod",
        "ForMultipleChoice",
        "multiple_choice",
        _one("classifier"),
        _POOLED,
    ),
    (
        "DistilBert",
        "ForMultipleChoice",
        "multiple_choice",
        _two("pre_classifier", "classifier"),
        _RELU,
    ),
    (
        "DebertaV2",
        "ForMultipleChoice",
        "multiple_choice",
        _two("pooler.dense", "classifier"),
        _GELU,
    ),
    (
        "Electra",
        "ForMultipleChoice",
        "multiple_choice",
        _two("sequence_summary.summary", "classifier"),
        _GELU,
    ),
    ("Bert Deberta DebertaV2", "ForMaskedLM", "masked_lm", _BERT_LM, _LM),
    ("Roberta XLMRoberta Xmod", "ForMaskedLM", "masked_lm", _ROBERTA_LM, _LM),
    ("Electra", "ForMaskedLM", "masked_lm", _ELECTRA_LM, _LM),
    ("DistilBert", "ForMaskedLM", "masked_lm", _DISTILBERT_LM, _LM),
    ("Albert", "ForMaskedLM", "masked_lm", _ALBERT_LM, _LM | {"activation_function": "gelu_new"}),
    ("Bert", "LMHeadModel", "causal_lm", _BERT_LM, _LM),
    ("Roberta XLMRoberta Xmod", "ForCausalLM", "causal_lm", _ROBERTA_LM, _LM),
    ("Electra", "ForCausalLM", "causal_lm", _ELECTRA_LM, _LM),
    ("BertGeneration", "Decoder", "causal_lm", {0: "lm_head.decoder"}, _ONE | {"bias": True}),
    ("GPT2", "LMHeadModel", "causal_lm", {0: "lm_head"}, _NO_BIAS),
    ("Llama Mistral", "ForCausalLM", "causal_lm", {0: "lm_head"}, _NO_BIAS),
    ("GPTJ", "ForCausalLM", "causal_lm", {0: "lm_head"}, _ONE | {"bias": True}),
    (
        "Bart MBart PLBart T5 MT5",
        "ForConditionalGeneration",
        "seq2seq_lm",
        {0: "lm_head"},
        _NO_BIAS,
    ),
    ("Whisper", "ForConditionalGeneration", "seq2seq_lm", {0: "proj_out"}, _NO_BIAS),
    ("Beit", "ForImageClassification", "image_classification", _one("classifier"), _POOLED),
    ("ViT", "ForImageClassification", "image_classification", _one("classifier"), _ONE),
)

STATIC_HEADS = {
    f"{family}{task}": StaticHead(kind, slots, settings)
    for families, task, kind, slots, settings in _CLASSES
    for family in families.split()
}
"""The heads of transformers' classes by the name of the class."""

_BIASES = ("cls.predictions.bias", "lm_head.bias", "predictions.bias")
"""Keys of the vocabulary's bias, which language models have in a second place, or only there."""


def flexible_config(outer: Mapping[str, Any]) -> dict[str, Any] | None:
    """The flexible head that equals the static head in a file; None if that is flexible."""
    static = STATIC_HEADS.get(str(outer.get("model_class")))
    if static is None or isinstance(outer.get("config"), Mapping):
        return None
    config: dict[str, Any] = {"head_type": static.kind} | dict(static.settings)
    labels = outer.get("label2id")
    if not isinstance(labels, Mapping):
        count = outer.get("num_labels")
        labels = {f"LABEL_{i}": i for i in range(count if isinstance(count, int) else 2)}
    if static.kind in _LABELLED:
        config |= {"num_labels": int(outer.get("num_labels") or len(labels))}
        config |= {"label2id": {str(name): int(number) for name, number in labels.items()}}
    if static.kind == "multiple_choice":
        config |= {"num_choices": int(outer.get("num_labels") or len(labels))}
    return config


def class_of(config: Mapping[str, Any], family: str) -> str | None:
    """The class of a family whose head equals a flexible head, if there is one.

    >>> class_of({"head_type": "tagging", "layers": 1, "activation_function": "tanh"}, "Bert")
    'BertForTokenClassification'
    """
    names = (f"{family}{task}" for _, task, *_ in _CLASSES)
    return next((n for n in names if n in STATIC_HEADS and _same(STATIC_HEADS[n], config)), None)


def _same(static: StaticHead, config: Mapping[str, Any]) -> bool:
    return static.kind == config.get("head_type") and _computed(static.settings) == _computed(
        config
    )


def _computed(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """The settings that determine what a head computes."""
    layers = config.get("layers", 1)
    activation = config.get("activation_function") if layers > 1 else None
    flags = (bool(config.get(name)) for name in ("use_pooler", "layer_norm", "shift_labels"))
    return (layers, activation, bool(config.get("bias", True)), *flags)


def from_slots(model_class: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a head by the keys of its class: `classifier.weight`, …"""
    modules = STATIC_HEADS[model_class].slots
    pairs = ((key.partition("."), tensor) for key, tensor in tensors.items())
    return {f"{modules[int(slot)]}.{kind}": tensor for (slot, _, kind), tensor in pairs}


def to_slots(
    model_class: str, stored: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a static head by slot of the flexible one: `1.weight`, …"""
    static = STATIC_HEADS[model_class]
    for slot, module in static.slots.items():
        stem = f"{module}."
        own = {key[len(stem) :]: t for key, t in stored.items() if key.startswith(stem)}
        bias = next((key for key in _BIASES if key in stored), None)
        if bias and slot == max(static.slots):
            own.setdefault("bias", stored[bias])
        for kind, tensor in own.items():
            yield f"{slot}.{kind}", tensor


def undo_scale(
    outer: Mapping[str, Any], tensors: dict[str, torch.Tensor], scale: float
) -> dict[str, torch.Tensor]:
    """The tensors of a flexible head that computes the same as a static one for spans.

    A flexible head reads states that were multiplied by `scale`, a static one for spans does not.
    """
    if flexible_config(outer) is None or not str(outer["model_class"]).endswith(
        "ForQuestionAnswering"
    ):
        return tensors
    return {key: t / scale if key.endswith(".weight") else t for key, t in tensors.items()}


def renumber_slots(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors of a perceptron by today's slots: before 3.2, dropout of 0 had no slot."""
    if config.get("head_type") not in (*_LABELLED, "multilabel_classification", "multiple_choice"):
        return dict(tensors)
    step = 3 if config.get("activation_function") else 2
    wanted = [1 + step * layer for layer in range(int(config.get("layers", 1)))]
    found = sorted({int(key.partition(".")[0]) for key in tensors if key[0].isdigit()})
    if len(found) != len(wanted):
        return dict(tensors)
    names = {str(old): str(new) for old, new in zip(found, wanted, strict=True)}
    return {_renamed(key, names): tensor for key, tensor in tensors.items()}


def _renamed(key: str, names: Mapping[str, str]) -> str:
    slot, _, kind = key.partition(".")
    return f"{names.get(slot, slot)}.{kind}"
