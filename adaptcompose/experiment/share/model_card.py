"""The README.md of a published composition: metadata for the Hub, and a page for its users."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptcompose.composition.drawing.mermaid import render_mermaid
from adaptcompose.composition.operators import parts_of
from adaptcompose.diagnostics.codes import AC413
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.report.report import Score, format_markdown, pool_scores
from adaptcompose.resolution.manifest import Manifest
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.storage.yaml_source import dump_yaml

README_FILE, SCORES_FILE = "README.md", "scores.json"
PIPELINES = {
    "text-classification": "text-classification",
    "token-classification": "token-classification",
    "masked-lm": "fill-mask",
}
METRICS = {"span-f1": "f1", "macro-f1": "f1", "masked-accuracy": "accuracy"}
"""The names of our metrics on the Hub."""
_SIZE_LIMIT = 4_000_000


@dataclass(frozen=True)
class EvalResults:
    """The scores of the run that a composition comes from, as in scores.json next to it.

    `expression` is as the user wrote it, `own` has the names of the rows that measure exactly this
    composition, `seed` is the seed that trained its weights.
    """

    expression: str = ""
    scores: tuple[Score, ...] = ()
    own: tuple[str, ...] = ()
    seed: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def as_plain(self) -> dict[str, Any]:
        counted = {name: self.parameters[name] for name in _COUNTED if name in self.parameters}
        return {
            "expression": self.expression,
            "parameters": counted,
            "seed": self.seed,
            "own": list(self.own),
            "scores": [score.as_dict() for score in self.scores],
        }

    @classmethod
    def read(cls, path: Path) -> EvalResults:
        """The results in a file; empty without a file. Raises AC413 if the file is damaged."""
        try:
            if path.stat().st_size > _SIZE_LIMIT:
                raise ValueError("it is larger than 4 MB")
            data = json.loads(path.read_bytes())
            scores = tuple(Score(**score) for score in data["scores"])
            own, counted = tuple(map(str, data["own"])), dict(data["parameters"])
            return cls(str(data["expression"]), scores, own, data["seed"], counted)
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Failed(AC413.at(file=path, why=str(error))) from None


_COUNTED = ("trained", "total")


@dataclass(frozen=True)
class ModelCard:
    """The card of a model that is published in `repo`, with the manifest composition.yaml."""

    model: ComposedModel
    manifest: Manifest
    repo: str
    eval_results: EvalResults

    def render(self, folders: Mapping[str, str]) -> str:
        """The text of README.md. `folders` has the folder of each published part."""
        import jinja2

        template = (resource_folder("hub_cards") / "_card.md.jinja").read_text("utf-8")
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True
        )
        composition, manifest, results = self.model.composition, self.manifest, self.eval_results
        return environment.from_string(template).render(
            metadata=dump_yaml(self.metadata()),
            name=manifest.name or self.repo.split("/")[-1],
            description=manifest.description,
            written=results.expression,
            published=manifest.expression,
            graph=shorten_commits(render_mermaid(composition.graph, composition.facts)),
            backbone=composition.facts.title,
            tokenizer=shorten_commits(manifest.backbone.get("tokenizer", "")),
            parts=list(self._parts(folders)),
            scores=format_markdown(results.scores) if results.scores else "",
            own=results.own,
            parameters={"total": self._total(), **results.parameters},
            repo=self.repo,
            output="last_hidden_state" if composition.head is None else "logits",
        )

    def metadata(self) -> dict[str, Any]:
        """The front matter, with the keys that the Hub knows."""
        facts, card = self.model.composition.facts, self.manifest.card
        kind = PIPELINES.get(str(self.manifest.task.get("kind")))
        entry: dict[str, Any] = {"library_name": "adaptcompose"}
        if card.get("license"):
            entry["license"] = card["license"]
        if facts.name:
            entry |= {"base_model": facts.name, "base_model_relation": "adapter"}
        if kind:
            entry["pipeline_tag"] = kind
        for key, name in (("language", "languages"), ("datasets", "datasets")):
            if card.get(name):
                entry[key] = list(card[name])
        tags = ("adapter-transformers", "adaptcompose", facts.model_type, *card.get("tags", ()))
        entry["tags"] = list(dict.fromkeys(tags))
        if kind and (results := list(self._results(kind))):
            entry["model-index"] = [{"name": self.manifest.name, "results": results}]
        return entry

    def _results(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the scores of this composition: of the published seed if there are any."""
        own = [score for score in self.eval_results.scores if score.name in self.eval_results.own]
        exact = [score for score in own if score.seed in (None, self.eval_results.seed)]
        for (_, data, metric), cell in pool_scores(exact or own).items():
            yield {
                "task": {"type": kind},
                "dataset": dataset_metadata(data),
                "metrics": [_metric(metric, cell.mean)],
            }

    def _parts(self, folders: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """Yield name, method, and folder or pin of every part."""
        graph = self.model.composition.graph
        for block in parts_of(graph).values():
            method = str(self.model.parts[block.name].method)
            folder = folders.get(block.name)
            yield shorten_commits(block.name), method, f"./{folder}" if folder else str(block.pin)

    def _total(self) -> int:
        facts = self.model.composition.facts
        return facts.parameters + sum(p.numel() for p in self.model.parts.parameters())


def _metric(name: str, value: float) -> dict[str, Any]:
    """A score as `model-index` has it: type (the Hub's name), our name if it differs, value."""
    kind = METRICS.get(name, name)
    named = {} if kind == name else {"name": name}
    return {"type": kind, **named, "value": round(value, 6)}


def shorten_commits(text: str) -> str:
    """Shorten commit hashes in a text to seven digits.

    >>> shorten_commits("user/ner@0123456789abcdef0123456789abcdef01234567/sub")
    'user/ner@0123456/sub'
    """
    return re.sub(r"@([0-9a-f]{7})[0-9a-f]{33}\b", r"@\1", text)


def dataset_metadata(reference: str) -> dict[str, str]:
    """A reference to data as an entry `dataset` of `model-index`.

    >>> dataset_metadata("swahili[mixed]/test")
    {'name': 'swahili[mixed]/test', 'type': 'swahili', 'config': 'mixed', 'split': 'test'}
    """
    head, _, split = reference.partition("/")
    name, _, config = head.rstrip("]").partition("[")
    entry = {"name": reference, "type": name, "config": config, "split": split}
    return {key: value for key, value in entry.items() if value}
