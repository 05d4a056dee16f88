"""Signatures: the arguments of operators and methods, declared as fields of dataclasses.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Lora:
...     rank: int = option(8, "width of the two factors", minimum=1)
>>> [str(p) for p in parameters(Lora)]
['rank=8']
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adaptcompose.diagnostics.codes import AC201, AC202, AC203, AC204, AC206, AC209, AC210, AC211
from adaptcompose.diagnostics.diagnostic import Code, Diagnostic, either, suggest
from adaptcompose.syntax import nodes
from adaptcompose.syntax.literals import quote

LayerSet = frozenset[int]
"""Layers written as one number, a range `0..4`, or a list of both."""


def option(
    default: Any,
    doc: str = "",
    *,
    minimum: float | None = None,
    exclusive_maximum: float | None = None,
    alias: str | None = None,
) -> Any:
    """A dataclass field that is an argument of an operator or method.

    `doc` is its line in the help. A number must be at least `minimum` and less than
    `exclusive_maximum`. `alias` is the name of the argument if the field cannot have it.
    """
    metadata = {"doc": doc, "least": minimum, "below": exclusive_maximum, "word": alias}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameter:
    """An argument of an operator or method, as `option` declares it."""

    name: str
    type: Any
    default: Any
    doc: str
    minimum: float | None = None
    exclusive_maximum: float | None = None
    field_name: str = ""

    def __str__(self) -> str:
        return f"{self.name}={format_value(self.default)}"

    @property
    def expected(self) -> str:
        """The type in words, as diagnostics and help show it."""
        return _in_words(_alternatives(self.type))

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the argument accepts, if its type is a Literal."""
        kinds = _alternatives(self.type)
        literals = [kind for kind in kinds if _is_literal(kind)]
        return tuple(str(word) for kind in literals for word in typing.get_args(kind))


def parameters(cls: type) -> tuple[Parameter, ...]:
    """The arguments of an operator or method: those fields that `option` declares."""
    return _parameters(cls)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _parameters(cls: Any) -> tuple[Parameter, ...]:
    hints = _hints(cls)
    return tuple(
        Parameter(
            item.metadata["word"] or item.name,
            hints[item.name],
            item.default,
            item.metadata["doc"],
            item.metadata["least"],
            item.metadata["below"],
            item.name,
        )
        for item in dataclasses.fields(cls)
        if "doc" in item.metadata
    )


_PLAIN = re.compile(r"(?:\.{1,2}/|~/|/|hf://)?[A-Za-z_][\w.-]*(?:/[\w.-]+)*(?:@[\w./-]+)?")
_RESERVED_WORDS = ("true", "false", "none", "let")  # without quotes they are no names


def format_value(value: Any) -> str:
    """A value as an expression has it.

    >>> [format_value(value) for value in (True, 0.5, frozenset({0, 1, 2, 7}), "relu", "a b")]
    ['true', '0.5', '[0..2, 7]', 'relu', '"a b"']
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):
        return f"[{format_ranges(sorted(value))}]"
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_value, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value not in _RESERVED_WORDS):
        return quote(value)
    return str(value)


def format_ranges(numbers: list[int]) -> str:
    """Whole numbers as ranges that include both ends.

    >>> format_ranges([0, 1, 2, 5])
    '0..2, 5'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


@dataclass
class ArgumentBinder:
    """Binds the named arguments of one call to the parameters of `operator`.

    What does not fit is appended to `problems`.
    """

    operator: str
    parameters: tuple[Parameter, ...]
    problems: list[Diagnostic]

    def bind(self, arguments: Sequence[nodes.Argument | nodes.Exclusion]) -> dict[str, Any]:
        """The values of the valid arguments, by name."""
        values: dict[str, Any] = {}
        for argument in arguments:
            if isinstance(argument, nodes.Exclusion):
                self.problems.append(AC210.at(argument.span, operator=self.operator))
                continue
            if problem := self._bind(argument, values):
                self.problems.append(problem)
        return values

    def _bind(self, argument: nodes.Argument, values: dict[str, Any]) -> Diagnostic | None:
        if argument.name is None:
            example = self.parameters[0].name if self.parameters else "…"
            return AC203.at(argument.span, operator=self.operator, example=example)
        if argument.weight is not None:
            return AC206.at(argument.weight_span, operator=self.operator)
        by_name = {parameter.name: parameter for parameter in self.parameters}
        if argument.name not in by_name:
            return self.unknown(argument)
        if argument.name in values:
            return AC202.at(argument.name_span, name=argument.name)
        parameter = by_name[argument.name]
        value = _read(parameter.type, argument.value)
        if value is _UNREADABLE:
            return self._mismatch(AC204, parameter, argument, parameter.expected)
        if violated := _violated_bound(parameter, value):
            return self._mismatch(AC209, parameter, argument, violated)
        values[argument.name] = value
        return None

    def unknown(self, argument: nodes.Argument) -> Diagnostic:
        """AC201 for an argument with a name that the operator does not have."""
        assert argument.name is not None
        names = [parameter.name for parameter in self.parameters]
        remedy = suggest(argument.name, names) if names else "remove it"
        return AC201.at(
            argument.name_span,
            operator=self.operator,
            name=argument.name,
            known=", ".join(names),
            help=remedy,
        )

    def unexpected_name(self, argument: nodes.Argument) -> Diagnostic:
        """AC211 for a member with a name where names have no meaning, else AC201."""
        near = suggest(argument.name or "", [parameter.name for parameter in self.parameters])
        if near or not isinstance(argument.value, nodes.Reference | nodes.Call | nodes.Pipe):
            return self.unknown(argument)
        return AC211.at(argument.name_span, operator=self.operator, name=argument.name)

    def _mismatch(
        self, code: Code, parameter: Parameter, argument: nodes.Argument, expected: str
    ) -> Diagnostic:
        value = argument.value
        return code.at(
            value.span,
            name=parameter.name,
            operator=self.operator,
            expected=expected,
            got=str(value) if isinstance(value, nodes.Number) else f"`{value}`",
            help=suggest(str(value), parameter.choices),
        )


_UNREADABLE = object()


def _read(kind: Any, node: nodes.Node) -> Any:
    for alternative in _alternatives(kind):
        reader = _READERS.get(alternative)
        value = reader(node) if reader else _read_literal(alternative, node)
        if value is not _UNREADABLE:
            return value
    return _UNREADABLE


def _read_int(node: nodes.Node) -> Any:
    whole = isinstance(node, nodes.Number) and isinstance(node.value, int)
    return node.value if whole else _UNREADABLE  # type: ignore[attr-defined]


def _read_float(node: nodes.Node) -> Any:
    return float(node.value) if isinstance(node, nodes.Number) else _UNREADABLE


def _read_flag(node: nodes.Node) -> Any:
    return node.value if isinstance(node, nodes.Flag) else _UNREADABLE


def _read_text(node: nodes.Node) -> Any:
    if isinstance(node, nodes.Text):
        return node.value
    return node.text if isinstance(node, nodes.Reference) else _UNREADABLE


def _read_literal(kind: Any, node: nodes.Node) -> Any:
    text = _read_text(node)
    return text if text in typing.get_args(kind) else _UNREADABLE


def _read_none(node: nodes.Node) -> Any:
    return None if isinstance(node, nodes.Reference) and node.text == "none" else _UNREADABLE


def _read_layers(node: nodes.Node) -> Any:
    if isinstance(node, nodes.ListValue):
        layers: set[int] = set()
        for part in map(_read_layers, node.items):
            if part is _UNREADABLE:
                return _UNREADABLE
            layers |= part
        return frozenset(layers)
    if isinstance(node, nodes.Range) and 0 <= node.first <= node.last < _LAYER_LIMIT:
        return frozenset(range(node.first, node.last + 1))
    number = _read_int(node)
    return _UNREADABLE if number is _UNREADABLE or number < 0 else frozenset({number})


def _read_floats(node: nodes.Node) -> Any:
    if not isinstance(node, nodes.ListValue):
        return _UNREADABLE
    values = tuple(_read_float(item) for item in node.items)
    return _UNREADABLE if _UNREADABLE in values or not values else values


def _read_names(node: nodes.Node) -> Any:
    if not isinstance(node, nodes.ListValue):
        return _UNREADABLE
    values = tuple(_read_text(item) for item in node.items)
    return _UNREADABLE if _UNREADABLE in values else values


def _read_ints(node: nodes.Node) -> Any:
    if not isinstance(node, nodes.ListValue):
        return _UNREADABLE
    values = tuple(_read_int(item) for item in node.items)
    return _UNREADABLE if _UNREADABLE in values or not values else values


_LAYER_LIMIT = 1_000  # more than any backbone has; a range becomes a set of all its numbers

_READERS: dict[Any, Callable[[nodes.Node], Any]] = {
    int: _read_int,
    float: _read_float,
    bool: _read_flag,
    str: _read_text,
    types.NoneType: _read_none,
    LayerSet: _read_layers,
    tuple[float, ...]: _read_floats,
    tuple[int, ...]: _read_ints,
    tuple[str, ...]: _read_names,
}

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a name",
    types.NoneType: "none",
    LayerSet: "layers such as 3, 0..4 or [0, 5..7]",
    tuple[float, ...]: "a list of numbers",
    tuple[int, ...]: "a list of whole numbers",
    tuple[str, ...]: "a list of names",
}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if union else (kind,)


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _in_words(kinds: Sequence[Any]) -> str:
    """These types as alternatives in a sentence."""
    words = [[_WORDS[kind]] if kind in _WORDS else typing.get_args(kind) for kind in kinds]
    return either([str(word) for group in words for word in group])


def _violated_bound(parameter: Parameter, value: Any) -> str | None:
    """The bound that a value violates, in words, or None."""
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if parameter.minimum is not None and not number >= parameter.minimum:
            return f"at least {format_value(parameter.minimum)}"
        if parameter.exclusive_maximum is not None and not number < parameter.exclusive_maximum:
            return f"less than {format_value(parameter.exclusive_maximum)}"
    return None


def validate_value(cls: type, name: str, value: Any) -> Any:
    """The value of a field as read from a file; raises ValueError if it does not fit the field.

    >>> validate_value(Parameter, "name", 3)
    Traceback (most recent call last):
    ...
    ValueError: must be a name, not 3
    """
    kinds = _alternatives(_hints(cls)[name])
    accepting = [kind for kind in kinds if _ACCEPTS.get(kind, _accepts_literal(kind))(value)]
    if not accepting:
        raise ValueError(f"must be {_in_words(kinds)}, not {value!r}")
    converted = float(value) if accepting[0] is float else value
    for parameter in parameters(cls):
        if parameter.name == name and (violated := _violated_bound(parameter, converted)):
            raise ValueError(f"must be {violated}, not {value!r}")
    return converted


def _accepts_literal(kind: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in typing.get_args(kind)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_ACCEPTS: dict[Any, Callable[[Any], bool]] = {
    int: lambda value: type(value) is int,
    float: _is_finite,
    bool: lambda value: type(value) is bool,
    str: lambda value: isinstance(value, str),
    types.NoneType: lambda value: value is None,
    LayerSet: lambda value: all(type(layer) is int and layer >= 0 for layer in value),
    tuple[float, ...]: lambda value: isinstance(value, tuple) and all(map(_is_finite, value)),
    tuple[str, ...]: lambda value: (
        isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    ),
}


def diff_arguments(value: Any, default: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the arguments in which `value` differs from `default`.

    Both must be instances of the same dataclass.
    """
    for parameter in parameters(type(value)):
        argument = getattr(value, parameter.field_name)
        if argument != getattr(default, parameter.field_name):
            yield parameter.name, argument
