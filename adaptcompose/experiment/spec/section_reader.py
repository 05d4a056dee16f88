"""Read YAML into sections: dataclasses whose fields are the schema of spec.yaml.

>>> from adaptcompose.storage.yaml_source import Source, parse_yaml
>>> @dataclass(frozen=True, kw_only=True)
... class Oven(Section):
...     heat: float = key("degrees", exclusive_minimum=0)
...     mode: Literal["top", "both"] = key("where the heat comes from", "both")
>>> reading = SectionReader()
>>> reading.read_section(Oven, parse_yaml(Source("heat: 1.8e2")), "oven").heat
180.0
>>> _ = reading.read_section(Oven, parse_yaml(Source("mod: top")), "oven")
>>> [problem.message for problem in reading.problems]
['`oven` has no key `mod`', '`oven` needs the key `heat`']
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as _type_hints

from adaptcompose.diagnostics.codes import AC601, AC604, AC605, AC606, AC613
from adaptcompose.diagnostics.diagnostic import Diagnostic, Source, Span, suggest
from adaptcompose.experiment.spec.value_types import ScalarText
from adaptcompose.storage.yaml_source import YamlNode

if TYPE_CHECKING:
    from collections.abc import Iterator

S = TypeVar("S", bound="Section")


@dataclass(frozen=True)
class KeyTraits:
    """The properties of a key besides its type and default.

    `name` is the key in YAML if it differs from the field, `expected` overrides the description
    of the type in messages. A list with `accepts_scalar` may be written as one value. A key with
    `is_unsupported` is reserved for a later version.
    """

    doc: str
    name: str | None = None
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    allowed_values: tuple[str, ...] = ()
    expected: str | None = None
    accepts_scalar: bool = False
    is_unsupported: bool = False


def key(doc: str, default: Any = MISSING, **traits: Any) -> Any:
    """A field for a key of a section: its help in one line, its default, and its traits.

    A key without a default is required.
    """
    metadata = {"traits": KeyTraits(doc, **traits)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A mapping in spec.yaml. `spans` has the position of the value of each key in the file."""

    shorthand: ClassVar[str | None] = None
    """The key whose value may be written in place of the whole mapping."""
    exclusive_keys: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Keys of which at most one may be given."""
    required_groups: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Keys of which at least one must be given."""

    spans: Mapping[str, Span] = field(default_factory=dict, repr=False, compare=False)

    def span_of(self, name: str) -> Span | None:
        """The span of the value of a key, or of an item of it, such as `name[0]`."""
        return self.spans.get(name)

    def key_span_of(self, name: str, inner: str) -> Span | None:
        """The span of the key `inner` in the mapping `name`."""
        return self.spans.get(f"{name}.{inner}:")

    def as_plain(self, *, full: bool = False) -> dict[str, Any]:
        """The section as plain YAML values, without keys that have their default.

        `full` adds the defaults, except empty ones.
        """
        return {
            name: _plain(getattr(self, entry.name), full)
            for name, entry in fields_by_key(type(self)).items()
            if getattr(self, entry.name) != _default(entry)
            or (
                full
                and not traits_of(entry).is_unsupported
                and _default(entry) not in (None, "", (), {})
            )
        }


@dataclass(frozen=True)
class KeyDoc:
    """The documentation of a key: its path such as `train.lr`, type in words, default, help."""

    path: str
    kind: str
    default: Any
    required: bool
    doc: str
    supported: bool


def describe_keys(section: type[Section], prefix: str = "") -> Iterator[KeyDoc]:
    """Yield the documentation of every key of a section, and of the sections inside it."""
    types = field_types(section)
    for name, entry in fields_by_key(section).items():
        kind, traits, path = types[entry.name], traits_of(entry), f"{prefix}{name}"
        default = _default(entry)
        required = default is MISSING
        value = None if required else default
        yield KeyDoc(
            path,
            describe_type(kind, traits),
            value,
            required,
            traits.doc,
            not traits.is_unsupported,
        )
        if inner := inner_section(kind):
            container = strip_optional(kind)
            mark = {dict: ".*", tuple: "[]"}.get(get_origin(container) or container, "")
            yield from describe_keys(inner, f"{path}{mark}.")


def fields_by_key(section: type[Section]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a section by their keys in YAML."""
    fields = [entry for entry in dataclasses.fields(section) if "traits" in entry.metadata]
    return {traits_of(entry).name or entry.name: entry for entry in fields}


def field_types(section: type[Section]) -> dict[str, Any]:
    """The types of the fields of a section, with annotations resolved."""
    return _type_hints(section)


class SectionReader:
    """Reads YAML nodes into sections, and collects all problems in `problems`.

    A field whose value has a problem gets its default, or None, so that reading goes on.
    """

    def __init__(self) -> None:
        self.problems: list[Diagnostic] = []

    def read_section(
        self, section_type: type[S], value: YamlNode, where: str, key_span: Span | None = None
    ) -> S:
        """Read a section. `where` is its path for messages.

        Missing keys are reported at `key_span`, the span of the section's own key.
        """
        if section_type.shorthand and isinstance(value.data, str):
            value = YamlNode(
                {section_type.shorthand: value}, value.span, {section_type.shorthand: value.span}
            )
        if not isinstance(value.data, dict):
            self._report_wrong_type(where, "a mapping of keys", value)
            return section_type(**self._defaults(section_type))
        known, types = fields_by_key(section_type), field_types(section_type)
        self._check_names(section_type, value, where)
        spans: dict[str, Span] = {}
        values: dict[str, Any] = {"spans": spans}
        for name, entry in known.items():
            if name in value.data and not traits_of(entry).is_unsupported:
                inner, path = value.data[name], f"{where}.{name}" if where else name
                spans[name] = inner.span
                spans |= _item_spans(name, inner)
                traits, own = traits_of(entry), value.key_spans[name]
                read = self.read_value(types[entry.name], inner, path, traits, own)
                if read is not None:
                    values[entry.name] = read
        self._check_presence(section_type, value, where, key_span)
        return section_type(**self._defaults(section_type) | values)

    def read_value(
        self,
        value_type: Any,
        value: YamlNode,
        path: str,
        traits: KeyTraits | None = None,
        key_span: Span | None = None,
    ) -> Any:
        """Read a node as `value_type`; None after a problem."""
        value_type, traits = strip_optional(value_type), traits or KeyTraits("")
        origin = get_origin(value_type)
        if isinstance(value_type, type) and issubclass(value_type, Section):
            return self.read_section(value_type, value, path, key_span)
        if origin is tuple:
            return self._read_items(get_args(value_type)[0], value, path, traits)
        if origin is dict:
            return self._read_mapping(get_args(value_type)[1], value, path, traits)
        read = _read_scalar(value_type, value, traits)
        if read is None:
            options = get_args(value_type) if origin is Literal else traits.allowed_values
            near = suggest(str(value.data), options) if options else None
            self._report_wrong_type(path, describe_type(value_type, traits), value, near)
        return read

    def _read_items(self, kind: Any, value: YamlNode, where: str, traits: KeyTraits) -> Any:
        if traits.accepts_scalar and isinstance(value.data, (str, int, float)):
            read = self.read_value(kind, value, where, traits)
            return None if read is None else (read,)
        if not isinstance(value.data, tuple) or not value.data:
            return self._report_wrong_type(where, describe_type(tuple[kind, ...], traits), value)
        # `each` multiplies the items of a list of sections, so their index would mislead.
        paths = [where if inner_section(kind) else f"{where}[{i}]" for i in range(len(value.data))]
        pairs = zip(value.data, paths, strict=True)
        read = [self.read_value(kind, one, path, traits) for one, path in pairs]
        return None if None in read else tuple(read)

    def _read_mapping(self, kind: Any, value: YamlNode, where: str, traits: KeyTraits) -> Any:
        if not isinstance(value.data, dict):
            return self._report_wrong_type(where, describe_type(dict[str, kind], traits), value)
        inner = inner_section(kind)
        values = {}
        for name, one in value.data.items():
            path = f"{where}.{name}"
            if inner is not None:
                values[name] = self.read_section(inner, one, path, value.key_spans[name])
            elif (read := self.read_value(kind, one, path, traits)) is not None:
                values[name] = read
        return values

    def _check_names(self, kind: type[Section], value: YamlNode, where: str) -> None:
        known = fields_by_key(kind)
        current = [name for name, entry in known.items() if not traits_of(entry).is_unsupported]
        for name, span in value.key_spans.items():
            if name not in known:
                near = suggest(name, current)
                values = {"section": where or _document(value.span), "name": name}
                self.problems.append(AC601.at(span, **values, known=", ".join(current), help=near))
            elif traits_of(known[name]).is_unsupported:
                path = f"{where}.{name}" if where else name
                self.problems.append(AC604.at(span, name=path, known=", ".join(current)))

    def _check_presence(
        self, kind: type[Section], value: YamlNode, where: str, at: Span | None
    ) -> None:
        section = where or _document(value.span)
        span = at or value.span.first_line()
        for name, entry in fields_by_key(kind).items():
            if _default(entry) is MISSING and name not in value.data:
                self.problems.append(AC606.at(span, section=section, name=name))
        for names in kind.required_groups:
            present = [name for name in names if name in value.data]
            if not present:
                either = "` or `".join(names)
                help = f"add {' or '.join(f'`{name}:`' for name in names)}"
                self.problems.append(AC606.at(span, section=section, name=either, help=help))
        for names in kind.exclusive_keys:
            present = [name for name in value.data if name in names]
            if len(present) > 1:
                values = {"section": section, "first": present[0], "second": present[1]}
                self.problems.append(AC613.at(value.key_spans[present[1]], **values))

    def _report_wrong_type(
        self, where: str, expected: str, value: YamlNode, near: str | None = None
    ) -> None:
        values = {
            "name": where or _document(value.span),
            "expected": expected,
            "got": describe_value(value),
        }
        brace = isinstance(value.data, dict) and value.span.text.startswith("{")
        help = near or ("put a text that starts with `{` in quotes" if brace else None)
        self.problems.append(AC605.at(value.span.first_line(), **values, help=help))

    def _defaults(self, kind: type[Section]) -> dict[str, Any]:
        defaults = {entry.name: _default(entry) for entry in fields_by_key(kind).values()}
        return {name: None if value is MISSING else value for name, value in defaults.items()}


def describe_value(value: YamlNode) -> str:
    """A value in a few words, for the message "must be …, but is …"."""
    if value.data is None:
        return "empty"
    if isinstance(value.data, dict):
        return "a mapping"
    if isinstance(value.data, tuple):
        return "a list" if value.data else "an empty list"
    text = value.span.text.split("\n")[0]
    text = text if len(text) <= 40 else f"{text[:40]}…"
    return text if type(value.data) in (int, float) else f"`{text}`"


def describe_type(value_type: Any, traits: KeyTraits) -> str:
    """A type in words, with its limits, for the same message and the documentation."""
    value_type = strip_optional(value_type)
    if traits.expected and get_origin(value_type) not in (tuple, dict):
        return traits.expected
    if options := traits.allowed_values or (
        get_args(value_type) if get_origin(value_type) is Literal else ()
    ):
        return f"one of {', '.join(map(str, options))}"
    if get_origin(value_type) is tuple:
        inner = get_args(value_type)[0]
        if traits.accepts_scalar:
            return f"{describe_type(inner, traits)}, or a list of them"
        return f"a list of {_PLURALS.get(inner, 'mappings')}"
    if get_origin(value_type) is dict:
        return "a mapping from names"
    if hasattr(value_type, "expected"):
        return str(value_type.expected)
    if isinstance(value_type, type) and issubclass(value_type, Section):
        return "a mapping of keys"
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(value_type, "an expression") + _limits(traits)


def _limits(traits: KeyTraits) -> str:
    if traits.minimum is not None and traits.maximum is not None:
        return f" between {traits.minimum:g} and {traits.maximum:g}"
    if traits.minimum is not None:
        return f" of at least {traits.minimum:g}"
    return "" if traits.exclusive_minimum is None else f" above {traits.exclusive_minimum:g}"


_PLURALS = {str: "strings", ScalarText: "strings", int: "whole numbers", float: "numbers"}


def _read_scalar(kind: Any, value: YamlNode, traits: KeyTraits) -> Any:
    data = value.data
    if isinstance(data, (dict, tuple)) or data is None:
        return None
    if get_origin(kind) is Literal:
        return data if data in get_args(kind) else None
    if hasattr(kind, "parse"):
        try:
            return kind.parse(value.text)
        except ValueError:
            return None
    if kind is Source:
        return value.source() if isinstance(data, str) else None
    if kind is float and type(data) is int:
        data = float(data)
    if kind is str and value.known_offsets:
        data = value.text  # the value of a variable of `each` may look like a number
    if type(data) is not kind or not _is_within_limits(data, traits):
        return None
    return data


def _is_within_limits(data: Any, traits: KeyTraits) -> bool:
    if isinstance(data, str):
        return (
            bool(data.strip())
            and (traits.pattern is None or re.fullmatch(traits.pattern, data) is not None)
            and (not traits.allowed_values or data in traits.allowed_values)
        )
    if isinstance(data, float) and not math.isfinite(data):
        return False
    return (
        (traits.minimum is None or data >= traits.minimum)
        and (traits.exclusive_minimum is None or data > traits.exclusive_minimum)
        and (traits.maximum is None or data <= traits.maximum)
    )


def strip_optional(kind: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(kind) in (Union, UnionType):
        return next(one for one in get_args(kind) if one is not type(None))
    return kind


def inner_section(kind: Any) -> type[Section] | None:
    """The section type that a type is, or that its items or values have; None without one."""
    kind = strip_optional(kind)
    candidates = [kind, *get_args(kind)]
    return next(
        (one for one in candidates if isinstance(one, type) and issubclass(one, Section)), None
    )


def traits_of(entry: dataclasses.Field[Any]) -> KeyTraits:
    """The traits of a field that was made by `key`."""
    traits: KeyTraits = entry.metadata["traits"]
    return traits


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def _item_spans(name: str, value: YamlNode) -> dict[str, Span]:
    if isinstance(value.data, tuple):
        return {f"{name}[{index}]": one.span for index, one in enumerate(value.data)}
    if isinstance(value.data, dict):
        keys = {f"{name}.{inner}:": span for inner, span in value.key_spans.items()}
        return keys | {f"{name}.{inner}": one.span for inner, one in value.data.items()}
    return {}


def _document(span: Span) -> str:
    return span.source.name.rsplit("/", 1)[-1]


def _plain(value: Any, full: bool) -> Any:
    if isinstance(value, Section):
        return value.as_plain(full=full)
    if isinstance(value, tuple):
        return [_plain(one, full) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one, full) for name, one in value.items()}
    if isinstance(value, Source):
        return value.text
    if value is None or isinstance(value, (bool, int, str)) or type(value) is float:
        return str(value) if isinstance(value, str) else value
    return float(value) if isinstance(value, float) else str(value)
