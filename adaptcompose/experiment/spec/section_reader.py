"""Sections of spec.yaml are dataclasses: their fields are the schema, and this reads them.

>>> from adaptcompose.storage.yaml_source import Source, read
>>> @dataclass(frozen=True, kw_only=True)
... class Oven(Section):
...     heat: float = key("degrees", above=0)
...     mode: Literal["top", "both"] = key("where the heat comes from", "both")
>>> reading = Reading()
>>> reading.section(Oven, read(Source("heat: 1.8e2")), "oven").heat
180.0
>>> _ = reading.section(Oven, read(Source("mod: top")), "oven")
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
from adaptcompose.experiment.spec.value_types import Word
from adaptcompose.storage.yaml_source import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

S = TypeVar("S", bound="Section")


@dataclass(frozen=True)
class Traits:
    """What a field says about itself besides its type and default."""

    doc: str
    name: str | None = None
    least: float | None = None
    above: float | None = None
    most: float | None = None
    form: str | None = None
    among: tuple[str, ...] = ()
    expected: str | None = None
    single: bool = False
    later: bool = False


def key(doc: str, default: Any = MISSING, **traits: Any) -> Any:
    """A key of a section: its one line of help, its default (else it is required), its limits."""
    metadata = {"traits": Traits(doc, **traits)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A mapping of spec.yaml. `places` says where in the file each given key's value stands."""

    shorthand: ClassVar[str | None] = None
    """The key that a bare text stands for."""
    choices: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Keys of which at most one may be given."""
    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Keys of which at least one must be given."""

    places: Mapping[str, Span] = field(default_factory=dict, repr=False, compare=False)

    def place(self, name: str) -> Span | None:
        """Where `name`, or item 0 of it as `name[0]`, stands in the file."""
        return self.places.get(name)

    def key_place(self, name: str, inner: str) -> Span | None:
        """Where the key `inner` of the mapping `name` stands."""
        return self.places.get(f"{name}.{inner}:")

    def plain(self, *, full: bool = False) -> dict[str, Any]:
        """The section as YAML would hold it, without what equals its default, or `full` of them.

        A key that means nothing unless it is given is left out.
        """
        return {
            name: _plain(getattr(self, entry.name), full)
            for name, entry in entries(type(self)).items()
            if getattr(self, entry.name) != _default(entry)
            or (full and not traits_of(entry).later and _default(entry) not in (None, "", (), {}))
        }


@dataclass(frozen=True)
class Key:
    """A line of the reference: `train.lr`, its type in words, its default, its meaning."""

    path: str
    kind: str
    default: Any
    required: bool
    doc: str
    supported: bool


def describe(section: type[Section], prefix: str = "") -> Iterator[Key]:
    """Every key of a section and of the sections inside it."""
    types = kinds(section)
    for name, entry in entries(section).items():
        kind, traits, path = types[entry.name], traits_of(entry), f"{prefix}{name}"
        default = _default(entry)
        required = default is MISSING
        value = None if required else default
        yield Key(path, word(kind, traits), value, required, traits.doc, not traits.later)
        if inner := inner_section(kind):
            container = present(kind)
            mark = {dict: ".*", tuple: "[]"}.get(get_origin(container) or container, "")
            yield from describe(inner, f"{path}{mark}.")


def entries(section: type[Section]) -> dict[str, dataclasses.Field[Any]]:
    """The keys as they are written in YAML, with their fields."""
    found = [entry for entry in dataclasses.fields(section) if "traits" in entry.metadata]
    return {traits_of(entry).name or entry.name: entry for entry in found}


def kinds(section: type[Section]) -> dict[str, Any]:
    """The types of the fields, resolved."""
    return _type_hints(section)


class Reading:
    """Reads values into sections and collects every problem on the way.

    A value with a problem leaves its field at the default, or None, so that reading goes on.
    """

    def __init__(self) -> None:
        self.problems: list[Diagnostic] = []

    def section(self, kind: type[S], value: Value, where: str, at: Span | None = None) -> S:
        """The section in `value`; missing keys are told at `at`, the place of its own key."""
        if kind.shorthand and isinstance(value.data, str):
            value = Value({kind.shorthand: value}, value.span, {kind.shorthand: value.span})
        if not isinstance(value.data, dict):
            self._mistyped(where, "a mapping of keys", value)
            return kind(**self._defaults(kind))
        known, types = entries(kind), kinds(kind)
        self._check_names(kind, value, where)
        places: dict[str, Span] = {}
        found: dict[str, Any] = {"places": places}
        for name, entry in known.items():
            if name in value.data and not traits_of(entry).later:
                inner, path = value.data[name], f"{where}.{name}" if where else name
                places[name] = inner.span
                places |= _item_places(name, inner)
                traits, own = traits_of(entry), value.keys[name]
                read = self.value(types[entry.name], inner, path, traits, own)
                if read is not None:
                    found[entry.name] = read
        self._check_presence(kind, value, where, at)
        return kind(**self._defaults(kind) | found)

    def value(
        self,
        kind: Any,
        value: Value,
        where: str,
        traits: Traits | None = None,
        at: Span | None = None,
    ) -> Any:
        """`value` as `kind`, or None after a problem."""
        kind, traits = present(kind), traits or Traits("")
        origin = get_origin(kind)
        if isinstance(kind, type) and issubclass(kind, Section):
            return self.section(kind, value, where, at)
        if origin is tuple:
            return self._items(get_args(kind)[0], value, where, traits)
        if origin is dict:
            return self._entries(get_args(kind)[1], value, where, traits)
        read = _scalar(kind, value, traits)
        if read is None:
            options = get_args(kind) if origin is Literal else traits.among
            near = suggest(str(value.data), options) if options else None
            self._mistyped(where, word(kind, traits), value, near)
        return read

    def _items(self, kind: Any, value: Value, where: str, traits: Traits) -> Any:
        if traits.single and isinstance(value.data, (str, int, float)):
            read = self.value(kind, value, where, traits)
            return None if read is None else (read,)
        if not isinstance(value.data, tuple) or not value.data:
            return self._mistyped(where, word(tuple[kind, ...], traits), value)
        # The items of a list of sections may be written out of a template: an index would mislead.
        paths = [where if inner_section(kind) else f"{where}[{i}]" for i in range(len(value.data))]
        pairs = zip(value.data, paths, strict=True)
        read = [self.value(kind, one, path, traits) for one, path in pairs]
        return None if None in read else tuple(read)

    def _entries(self, kind: Any, value: Value, where: str, traits: Traits) -> Any:
        if not isinstance(value.data, dict):
            return self._mistyped(where, word(dict[str, kind], traits), value)
        inner = inner_section(kind)
        found = {}
        for name, one in value.data.items():
            path = f"{where}.{name}"
            if inner is not None:
                found[name] = self.section(inner, one, path, value.keys[name])
            elif (read := self.value(kind, one, path, traits)) is not None:
                found[name] = read
        return found

    def _check_names(self, kind: type[Section], value: Value, where: str) -> None:
        known = entries(kind)
        current = [name for name, entry in known.items() if not traits_of(entry).later]
        for name, span in value.keys.items():
            if name not in known:
                near = suggest(name, current)
                values = {"section": where or _document(value.span), "name": name}
                self.problems.append(AC601.at(span, **values, known=", ".join(current), help=near))
            elif traits_of(known[name]).later:
                path = f"{where}.{name}" if where else name
                self.problems.append(AC604.at(span, name=path, known=", ".join(current)))

    def _check_presence(
        self, kind: type[Section], value: Value, where: str, at: Span | None
    ) -> None:
        section = where or _document(value.span)
        place = at or value.span.first_line()
        for name, entry in entries(kind).items():
            if _default(entry) is MISSING and name not in value.data:
                self.problems.append(AC606.at(place, section=section, name=name))
        for names in kind.needs:
            given = [name for name in names if name in value.data]
            if not given:
                either = "` or `".join(names)
                help = f"add {' or '.join(f'{name}:' for name in names)}"
                self.problems.append(AC606.at(place, section=section, name=either, help=help))
        for names in kind.choices:
            given = [name for name in value.data if name in names]
            if len(given) > 1:
                values = {"section": section, "first": given[0], "second": given[1]}
                self.problems.append(AC613.at(value.keys[given[1]], **values))

    def _mistyped(self, where: str, expected: str, value: Value, near: str | None = None) -> None:
        values = {"name": where or _document(value.span), "expected": expected}
        self.problems.append(AC605.at(value.span.first_line(), **values, got=got(value), help=near))

    def _defaults(self, kind: type[Section]) -> dict[str, Any]:
        defaults = {entry.name: _default(entry) for entry in entries(kind).values()}
        return {name: None if value is MISSING else value for name, value in defaults.items()}


def got(value: Value) -> str:
    """What stands there, in a few words."""
    if value.data is None:
        return "nothing"
    if isinstance(value.data, dict):
        flow = value.span.text.startswith("{")
        return "a mapping; quote a text that starts with {" if flow else "a mapping"
    if isinstance(value.data, tuple):
        return "a list" if value.data else "an empty list"
    text = value.span.text.split("\n")[0]
    return text if len(text) <= 40 else f"{text[:40]}…"


def word(kind: Any, traits: Traits) -> str:
    """A type in the user's words, with its limits."""
    kind = present(kind)
    if traits.expected and get_origin(kind) not in (tuple, dict):
        return traits.expected
    if options := traits.among or (get_args(kind) if get_origin(kind) is Literal else ()):
        return f"one of {', '.join(map(str, options))}"
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if traits.single:
            return f"{word(inner, traits)}, or a list of them"
        return f"a list of {_PLURALS.get(inner, 'mappings')}"
    if get_origin(kind) is dict:
        return "a mapping from names"
    if hasattr(kind, "expected"):
        return str(kind.expected)
    if isinstance(kind, type) and issubclass(kind, Section):
        return "a mapping of keys"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, "an expression") + _limits(traits)


def _limits(traits: Traits) -> str:
    if traits.least is not None and traits.most is not None:
        return f" between {traits.least:g} and {traits.most:g}"
    if traits.least is not None:
        return f" of at least {traits.least:g}"
    return "" if traits.above is None else f" above {traits.above:g}"


_PLURALS = {str: "texts", Word: "texts", int: "whole numbers", float: "numbers"}


def _scalar(kind: Any, value: Value, traits: Traits) -> Any:
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
    if kind is str and value.given:
        data = value.text  # a variable's value, which may look like a number
    if type(data) is not kind or not _within(data, traits):
        return None
    return data


def _within(data: Any, traits: Traits) -> bool:
    if isinstance(data, str):
        return (
            bool(data.strip())
            and (traits.form is None or re.fullmatch(traits.form, data) is not None)
            and (not traits.among or data in traits.among)
        )
    if isinstance(data, float) and not math.isfinite(data):
        return False
    return (
        (traits.least is None or data >= traits.least)
        and (traits.above is None or data > traits.above)
        and (traits.most is None or data <= traits.most)
    )


def present(kind: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(kind) in (Union, UnionType):
        return next(one for one in get_args(kind) if one is not type(None))
    return kind


def inner_section(kind: Any) -> type[Section] | None:
    """The section that a type is, or holds."""
    kind = present(kind)
    found = [kind, *get_args(kind)]
    return next((one for one in found if isinstance(one, type) and issubclass(one, Section)), None)


def traits_of(entry: dataclasses.Field[Any]) -> Traits:
    """What a field says about itself."""
    traits: Traits = entry.metadata["traits"]
    return traits


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def _item_places(name: str, value: Value) -> dict[str, Span]:
    if isinstance(value.data, tuple):
        return {f"{name}[{index}]": one.span for index, one in enumerate(value.data)}
    if isinstance(value.data, dict):
        keys = {f"{name}.{inner}:": span for inner, span in value.keys.items()}
        return keys | {f"{name}.{inner}": one.span for inner, one in value.data.items()}
    return {}


def _document(span: Span) -> str:
    return span.source.name.rsplit("/", 1)[-1]


def _plain(value: Any, full: bool) -> Any:
    if isinstance(value, Section):
        return value.plain(full=full)
    if isinstance(value, tuple):
        return [_plain(one, full) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one, full) for name, one in value.items()}
    if isinstance(value, Source):
        return value.text
    if value is None or isinstance(value, (bool, int, str)) or type(value) is float:
        return str(value) if isinstance(value, str) else value
    return float(value) if isinstance(value, float) else str(value)
