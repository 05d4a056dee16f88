"""The JSON Schema accepts what the reader of specs accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from adaptcompose.diagnostics.diagnostic import Failed, Source
from adaptcompose.experiment.spec.schema import build_schema
from adaptcompose.experiment.spec.spec import parse_specs, spec_keys
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml

ROOT = Path(__file__).parents[2]
WHOLE = build_schema()


def found(path: str) -> dict[str, Any]:
    """The schema of a key by its path: `train.lr`, `data.*.files`, `evaluate[].name`."""
    here = WHOLE
    for step in path.split("."):
        name = step.removesuffix("[]")
        here = here["additionalProperties"] if name == "*" else _whole(here)["properties"][name]
        if step.endswith("[]"):
            here = here["items"]
    return here


def _whole(here: dict[str, Any]) -> dict[str, Any]:
    """The mapping among the alternatives of a section."""
    return next(one for one in here.get("anyOf", [here]) if "properties" in one)


@pytest.mark.parametrize(
    "key", [key for key in spec_keys() if key.supported], ids=lambda key: key.path
)
def test_every_key_has_its_place(key: Any) -> None:
    place = found(key.path)
    assert place["description"] == key.doc
    above, _, name = key.path.rpartition(".")
    required = (_whole(found(above)) if above else WHOLE).get("required", [])
    assert (name.removesuffix("[]") in required) == key.required


def test_what_is_not_done_yet_is_not_offered() -> None:
    for key in spec_keys():
        if not key.supported:
            with pytest.raises(KeyError):
                found(key.path)


def test_types_bounds_and_choices_are_those_of_the_fields() -> None:
    rate, batch, keep = (found(f"train.{name}")["anyOf"][0] for name in ("lr", "batch", "keep"))
    assert rate == {"type": "number", "exclusiveMinimum": 0}
    assert batch == {"type": "integer", "minimum": 1}
    assert keep == {"enum": ["best", "last"]}
    assert found("train.lr")["default"] == 1e-4
    assert found("compose")["$ref"] == "#/$defs/expression"
    assert {"type": "string"} in found("backbone")["anyOf"]
    train = _whole(found("train"))
    assert {"not": {"required": ["epochs", "steps"]}} in train["allOf"]
    assert {"anyOf": [{"required": ["epochs"]}, {"required": ["steps"]}]} in train["allOf"]


def test_descriptions_speak_of_keys_only() -> None:
    assert "`" not in WHOLE["description"]


def test_words_of_the_language_are_in_it() -> None:
    words = WHOLE["$defs"]["expression"]["x-words"]
    assert words["drop"]["arguments"]["bottom"]["minimum"] == 0
    assert words["fuse"]["arguments"]["query"]["enum"] == ["before", "after"]
    assert words["pfeiffer"]["means"] == "bottleneck()"


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft7Validator.check_schema(WHOLE)
    return jsonschema.Draft7Validator(json.loads(json.dumps(WHOLE)))


def test_a_validator_takes_the_examples(validator: Any) -> None:
    files = [load_yaml(path.read_text("utf-8")) for path in (ROOT / "examples").rglob("*.yaml")]
    specs = [one for one in files if "spec" in one]
    assert len(specs) > 5
    for spec in specs:
        assert list(validator.iter_errors(spec)) == []


START = {"spec": 1, "name": "x", "backbone": "a/b", "compose": "none"}
TRAINED = {"data": "d", "epochs": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"nam": "x"},
        {"name": "X Y"},
        {"train": {"data": "d", "steps": "many"}},
        *({"train": {**TRAINED, "budget": one}} for one in ("3 x", "", "1h 30m", "m30", True)),
        *({"train": {**TRAINED, "robust_drop": one}} for one in ("0-5", "0..", 5, True)),
    ],
    ids=str,
)
def test_a_validator_refuses_what_the_reader_refuses(validator: Any, wrong: dict[str, Any]) -> None:
    assert list(validator.iter_errors(START | wrong)) != []
    with pytest.raises(Failed):
        parse_specs(Source(dump_yaml(START | wrong), "spec.yaml"), Path())


@pytest.mark.parametrize(
    "given",
    [
        *({"budget": one} for one in ("30m", "1h30m", "1.5h", "90", 90, 0.5, "${time}")),
        *({"robust_drop": one} for one in ("0..5", "${range}")),
    ],
    ids=str,
)
def test_a_validator_takes_times_ranges_and_variables(
    validator: Any, given: dict[str, Any]
) -> None:
    assert list(validator.iter_errors(START | {"train": TRAINED | given})) == []
