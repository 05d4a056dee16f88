"""The JSON Schema of spec.yaml, made from the fields of its sections.

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
    """The schema of a spec. The words of the language are under `x-words`."""
    schema: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "adaptcompose spec.yaml",
        **_section(Spec),
    }
    schema["$defs"] = {
        "expression": _expression(),
        "template": {"description": "a variable of `each`", **_TEMPLATE},
    }
    return schema


def _section(section: type[Section]) -> dict[str, Any]:
    known, types = fields_by_key(section), field_types(section)
    described = {
        name: _key(types[entry.name], entry)
        for name, entry in known.items()
        if not traits_of(entry).is_unsupported
    }
    first = (section.__doc__ or "").split("\n\n")[0]
    schema: dict[str, Any] = {
        "type": "object",
        "description": " ".join(first.split()),
        "properties": described,
        "additionalProperties": False,
    }
    required = [n for n, entry in known.items() if _default(entry) is dataclasses.MISSING]
    if required:
        schema["required"] = required
    rules: list[dict[str, Any]] = [
        {"anyOf": [{"required": [name]} for name in names]} for names in section.required_groups
    ]
    rules += [{"not": {"required": list(names)}} for names in section.exclusive_keys]
    if rules:
        schema["allOf"] = rules
    return schema


def _key(kind: Any, entry: dataclasses.Field[Any]) -> dict[str, Any]:
    traits = traits_of(entry)
    schema = {"description": traits.doc, **_typed(strip_optional(kind), traits)}
    default = _plain_default(_default(entry))
    return schema if default is None else {**schema, "default": default}


def _typed(kind: Any, traits: KeyTraits) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, Section):
        mapping = _section(kind)
        short = [{"type": "string"}] if kind.shorthand else []
        return {"anyOf": [mapping, *short]}
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
    """Yield the YAML types besides string whose texts a value type can parse."""
    for name, example in (("number", "1"), ("boolean", "true")):
        with suppress(ValueError):
            kind.parse(example)
            yield name


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"$ref": "#/$defs/template"}]}


def _default(entry: dataclasses.Field[Any]) -> Any:
    factory = entry.default_factory
    return factory() if factory is not dataclasses.MISSING else entry.default


def _plain_default(value: Any) -> Any:
    """A default as a JSON value; None for a missing or an empty default."""
    if value is dataclasses.MISSING or value in (None, "", (), {}):
        return None
    if isinstance(value, tuple):
        return list(value)
    return value if type(value) in (bool, int, float, str) else str(value)


def _expression() -> dict[str, Any]:
    """A string whose description lists all words. JSON Schema cannot describe a grammar."""
    known = describe_all_words()
    lines = [f"{one.signature}  {one.summary}" for one in known if one.means is None]
    return {
        "type": "string",
        "minLength": 1,
        "description": "an expression of the language:\n" + "\n".join(lines),
        "examples": list(dict.fromkeys(text for one in known for text in one.examples)),
        "x-words": {one.word: _word(one) for one in known},
    }


def _word(doc: WordDoc) -> dict[str, Any]:
    schema: dict[str, Any] = {"kind": doc.kind, "description": doc.summary}
    if doc.means is not None:
        return schema | {"means": doc.means}
    arguments: Mapping[str, Any] = {each.name: _argument(each) for each in doc.arguments}
    return schema | {"takes": doc.takes, "laws": list(doc.laws), "arguments": arguments}


def _argument(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": parameter.doc, "type": parameter.expected}
    schema["default"] = str(parameter).partition("=")[2]
    schema |= {"enum": list(parameter.choices)} if parameter.choices else {}
    bounds = {"minimum": parameter.minimum, "exclusiveMaximum": parameter.exclusive_maximum}
    return schema | {name: value for name, value in bounds.items() if value is not None}
