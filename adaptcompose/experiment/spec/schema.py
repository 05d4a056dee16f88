"""The JSON Schema of spec.yaml, from the same fields that read it.

>>> build_schema()["properties"]["train"]["anyOf"][0]["properties"]["lr"]["anyOf"][0]
{'type': 'number', 'exclusiveMinimum': 0}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

from adaptcompose.composition.word_docs import WordDoc, describe_all_words
from adaptcompose.diagnostics.diagnostic import Source
from adaptcompose.experiment.spec.section_reader import (
    KeyTraits,
    Section,
    field_types,
    fields_by_key,
    strip_optional,
    traits_of,
)
from adaptcompose.experiment.spec.sections import Spec
from adaptcompose.syntax.signature import Parameter

SCHEMA_FILE = "spec.schema.json"
MODELINE = f"# yaml-language-server: $schema=./{SCHEMA_FILE}"
_TEMPLATE = {"type": "string", "pattern": r"\$\{[^{}]+\}"}


def build_schema() -> dict[str, Any]:
    """The schema of a whole spec, with what the language has for its expressions."""
    found: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "adaptcompose spec.yaml",
        **_section(Spec),
    }
    found["$defs"] = {
        "expression": _expression(),
        "template": {"description": "a variable of `each`", **_TEMPLATE},
    }
    return found


def _section(section: type[Section]) -> dict[str, Any]:
    known, types = fields_by_key(section), field_types(section)
    described = {
        name: _key(types[entry.name], entry)
        for name, entry in known.items()
        if not traits_of(entry).is_unsupported
    }
    first = (section.__doc__ or "").split("\n\n")[0]
    found: dict[str, Any] = {
        "type": "object",
        "description": " ".join(first.split()),
        "properties": described,
        "additionalProperties": False,
    }
    required = [n for n, entry in known.items() if _default(entry) is dataclasses.MISSING]
    if required:
        found["required"] = required
    rules: list[dict[str, Any]] = [
        {"anyOf": [{"required": [name]} for name in names]} for names in section.required_groups
    ]
    rules += [{"not": {"required": list(names)}} for names in section.exclusive_keys]
    if rules:
        found["allOf"] = rules
    return found


def _key(kind: Any, entry: dataclasses.Field[Any]) -> dict[str, Any]:
    traits = traits_of(entry)
    found = {"description": traits.doc, **_typed(strip_optional(kind), traits)}
    default = _plain_default(_default(entry))
    return found if default is None else {**found, "default": default}


def _typed(kind: Any, traits: KeyTraits) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, Section):
        whole = _section(kind)
        short = [{"type": "string"}] if kind.shorthand else []
        return {"anyOf": [whole, *short]}
    if get_origin(kind) is tuple:
        item = _typed(get_args(kind)[0], KeyTraits("", **_limits(traits)))
        several = {"type": "array", "items": item, "minItems": 1}
        return {"anyOf": [several, item]} if traits.accepts_scalar else several
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _typed(get_args(kind)[1], traits)}
    return _scalar(kind, traits)


def _limits(traits: KeyTraits) -> dict[str, Any]:
    names = ("minimum", "exclusive_minimum", "maximum", "pattern", "allowed_values")
    return {name: getattr(traits, name) for name in names}


def _scalar(kind: Any, traits: KeyTraits) -> dict[str, Any]:
    if kind is Source:
        return {"$ref": "#/$defs/expression"}
    if options := traits.allowed_values or (get_args(kind) if get_origin(kind) is Literal else ()):
        return _or_template({"enum": list(options)})
    if kind in (int, float):
        bounds = {
            "minimum": traits.minimum,
            "exclusiveMinimum": traits.exclusive_minimum,
            "maximum": traits.maximum,
        }
        typed = {"type": "integer" if kind is int else "number"}
        return _or_template(typed | {n: value for n, value in bounds.items() if value is not None})
    if kind is bool:
        return _or_template({"type": "boolean"})
    if form := traits.pattern or getattr(kind, "pattern", None):
        types = "string" if kind is str else ["string", *_others(kind)]
        return _or_template({"type": types, "pattern": f"^(?:{form})$"})
    if hasattr(kind, "parse"):
        return {"type": ["string", *_others(kind)]}
    return {"type": "string", "minLength": 1} if kind is str else {}


def _others(kind: Any) -> Iterator[str]:
    """The types of YAML, beside a text, whose texts a small word reads."""
    for name, example in (("number", "1"), ("boolean", "true")):
        with suppress(ValueError):
            kind.parse(example)
            yield name


def _or_template(found: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [found, {"$ref": "#/$defs/template"}]}


def _default(entry: dataclasses.Field[Any]) -> Any:
    made = entry.default_factory
    return made() if made is not dataclasses.MISSING else entry.default


def _plain_default(value: Any) -> Any:
    """A default as JSON has it; None for what is left out, or empty."""
    if value is dataclasses.MISSING or value in (None, "", (), {}):
        return None
    if isinstance(value, tuple):
        return list(value)
    return value if type(value) in (bool, int, float, str) else str(value)


def _expression() -> dict[str, Any]:
    """What an expression may call; JSON Schema cannot say more about its text."""
    known = describe_all_words()
    lines = [f"{one.signature}  {one.summary}" for one in known if one.means is None]
    return {
        "type": "string",
        "minLength": 1,
        "description": "an expression of the language:\n" + "\n".join(lines),
        "examples": list(dict.fromkeys(text for one in known for text in one.examples)),
        "x-words": {one.word: _word(one) for one in known},
    }


def _word(one: WordDoc) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": one.kind, "description": one.summary}
    if one.means is not None:
        return found | {"means": one.means}
    arguments: Mapping[str, Any] = {each.name: _argument(each) for each in one.arguments}
    return found | {"takes": one.takes, "laws": list(one.laws), "arguments": arguments}


def _argument(one: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"description": one.doc, "type": one.expected}
    found["default"] = str(one).partition("=")[2]
    found |= {"enum": list(one.choices)} if one.choices else {}
    bounds = {"minimum": one.minimum, "exclusiveMaximum": one.exclusive_maximum}
    return found | {name: value for name, value in bounds.items() if value is not None}
