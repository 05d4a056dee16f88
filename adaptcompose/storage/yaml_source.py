"""The only door to YAML: strict, with the place of everything that was read.

Scalars are those of YAML 1.2's core schema: `no` is a text (Norwegian), `1e-4` a number. Keys are
texts. Equal keys, tags, anchors, aliases and merge keys are refused.

>>> spec = parse_yaml(Source("lang: no\\ntrain: {lr: 1e-4}\\n", "spec.yaml"))
>>> spec.as_plain()
{'lang': 'no', 'train': {'lr': 0.0001}}
>>> spec.data["train"].data["lr"].span.text
'1e-4'
>>> load_yaml(dump_yaml({"lang": "no", "layers": [0, 1]}))
{'lang': 'no', 'layers': [0, 1]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adaptcompose.diagnostics.codes import AC017, AC602, AC611
from adaptcompose.diagnostics.diagnostic import Failed, Source, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_LIMIT = 1_000_000
DEPTH_LIMIT = 64


@dataclass(frozen=True)
class YamlNode:
    """One YAML node: its data, its place in the file and, for a mapping, the places of its keys.

    A text that was made from a template is `given` the places of its characters.
    """

    data: Any
    span: Span
    key_spans: dict[str, Span] = field(default_factory=dict)
    style: str = field(default="", repr=False, compare=False)
    known_offsets: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """For a text: where in the file each of its characters, and its end, stands."""
        if self.known_offsets or not isinstance(self.data, str):
            return self.known_offsets
        if self.style in ("|", ">"):
            places = list(_block_places(self.span, self.data, self.style == ">"))
        else:
            places = list(_flow_places(self.span, self.style))
        places = places[: len(self.data)]
        # Where libyaml reads an exotic line break otherwise, the place is still in the node.
        places += [max(self.span.start, self.span.end - 1)] * (len(self.data) - len(places))
        if self.style in ("'", '"'):
            return (*places, self.span.end - 1)
        return (*places, places[-1] + 1 if places else self.span.start)

    @property
    def text(self) -> str:
        """A scalar as a text: what was written, if it is none."""
        return self.data if isinstance(self.data, str) else self.span.text

    def source(self) -> Source:
        """This text as a source of its own, whose carets point into the file."""
        assert isinstance(self.data, str)
        return Source(self.data, self.span.source.name, self.span.source, self.offsets)

    def as_plain(self) -> Any:
        """Dictionaries, lists and scalars without their places."""
        if isinstance(self.data, dict):
            return {key: value.as_plain() for key, value in self.data.items()}
        if isinstance(self.data, tuple):
            return [value.as_plain() for value in self.data]
        return self.data


def read_source(path: Path, name: str | None = None) -> Source:
    """The text of a UTF-8 file. The caller has made sure that it exists."""
    with path.open("rb") as file:
        content = file.read(SIZE_LIMIT + 4)
    _check_size(len(content), Source("", name or str(path)))
    return decode_utf8(content, name or str(path))


def decode_utf8(content: bytes, name: str) -> Source:
    """The text that bytes are in UTF-8, with or without a mark; AC017 at the first other byte."""
    try:
        return Source(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        good = Source(content[: error.start].decode("utf-8-sig"), name)
        place = good.span(len(good.text))
        raise Failed(AC017.at(place, byte=f"0x{content[error.start]:02x}")) from None


def parse_yaml(source: Source) -> YamlNode:
    """One YAML document with places. An empty one is None."""
    _check_size(len(source.text.encode("utf-8", "surrogatepass")), source)
    if found := _UNPRINTABLE.search(source.text):
        char = f"U+{ord(found.group()):04X}"
        raise _refusal(source, *found.span(), f"the character {char} is not allowed")
    try:
        return _Reader(source).document()
    except yaml.MarkedYAMLError as error:
        raise _translation(source, error) from None
    except yaml.YAMLError as error:
        raise _refusal(source, 0, 0, str(error)) from None


def load_yaml(text: str, name: str = "<yaml>") -> Any:
    """A document of ours (a card, a lock) as plain values, read as strictly."""
    return parse_yaml(Source(text, name)).as_plain()


def dump_yaml(data: Any) -> str:
    """Block style, in the order given; `load(dump_yaml(data))` is the data again.

    A text that another YAML reader would take for something else is quoted.
    """
    _check_keys(data)
    text: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=float("inf"),
    )
    return text.removesuffix("...\n")


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"(?:null|Null|NULL|~)?")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def parse_scalar(text: str) -> bool | int | float | str | None:
    """What an unquoted scalar means.

    >>> [parse_scalar(text) for text in ("no", "~", "0o17", "0x1F", ".5", "5.", "1_000", "12:30")]
    ['no', None, 15, 31, 0.5, 5.0, '1_000', '12:30']
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) or _BASED.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INFINITE.fullmatch(text):
        return float(f"{found[1]}inf") if found[1] is not None else float("nan")
    return text


class _Reader:
    """Builds values out of libyaml's events."""

    def __init__(self, source: Source):
        self.source = source
        # libyaml would count the mark as the first column.
        self.shift = 1 if source.text.startswith("\ufeff") else 0
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.events: Iterator[Any] = yaml.parse(source.text[self.shift :], Loader=loader)

    def document(self) -> YamlNode:
        found: YamlNode | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent) and found is not None:
                raise self._refuse(event, "it contains more than one document")
            if isinstance(event, yaml.NodeEvent):
                found = self._node(event, 0)
        return found or YamlNode(None, self.source.span(0, 0))

    def _node(self, event: Any, depth: int) -> YamlNode:
        self._check(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, depth + 1)
        return self._mapping(event, depth + 1)

    def _check(self, event: Any, depth: int) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(event, "aliases (`*name`) are not supported", "write the value out")
        if event.anchor is not None:
            raise self._refuse(event, "anchors (`&name`) are not supported", "remove it")
        if event.tag is not None:
            raise self._refuse(
                event,
                "tags (`!name`) are not supported",
                "put a text that starts with `!` in quotes",
            )
        if depth > DEPTH_LIMIT:
            raise self._refuse(event, f"it is nested deeper than {DEPTH_LIMIT} levels")

    def _scalar(self, event: Any) -> YamlNode:
        start, end = self._range(event)
        style = event.style or ""
        if style in ("|", ">"):
            end = start + len(self.source.text[start:end].rstrip())
        span = self.source.span(start, end)
        if not event.implicit[0]:
            return YamlNode(event.value, span, style=style)
        try:
            return YamlNode(parse_scalar(event.value), span)
        except ValueError:
            raise self._refuse(event, "a number is too long") from None

    def _sequence(self, event: Any, depth: int) -> YamlNode:
        start, end = self._range(event)
        items: list[YamlNode] = []
        while not isinstance(after := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(after, depth))
        end = self._range(after)[1] if event.flow_style else (items[-1].span.end if items else end)
        return YamlNode(tuple(items), self.source.span(start, end))

    def _mapping(self, event: Any, depth: int) -> YamlNode:
        start, end = self._range(event)
        data: dict[str, YamlNode] = {}
        keys: dict[str, Span] = {}
        repeated = []
        while not isinstance(after := next(self.events), yaml.MappingEndEvent):
            key, span = self._key(after, depth)
            value = self._node(next(self.events), depth)
            end = max(span.end, value.span.end)
            if key in keys:
                repeated.append(AC602.at(span, name=key))
            data[key], keys[key] = value, span
        if repeated:
            raise Failed(repeated)
        if event.flow_style:
            end = self._range(after)[1]
        return YamlNode(data, self.source.span(start, end), keys)

    def _key(self, event: Any, depth: int) -> tuple[str, Span]:
        self._check(event, depth)
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refuse(event, "a key must be a string")
        if event.implicit[0] and event.value == "<<":
            raise self._refuse(event, "merge keys (`<<`) are not supported", "write the keys out")
        if not event.value:
            raise self._refuse(event, "a key is missing before `:`")
        return event.value, self.source.span(*self._range(event))

    def _range(self, event: Any) -> tuple[int, int]:
        return event.start_mark.index + self.shift, event.end_mark.index + self.shift

    def _refuse(self, event: Any, why: str, help: str | None = None) -> Failed:
        start, end = self._range(event)
        return _refusal(self.source, start, max(end, start), why, help)


def _check_size(size: int, source: Source) -> None:
    if size > SIZE_LIMIT:
        raise _refusal(source, 0, 0, f"it is larger than {SIZE_LIMIT // 1_000_000} MB")


def _refusal(source: Source, start: int, end: int, why: str, help: str | None = None) -> Failed:
    start = min(start, len(source.text))
    line_end = source.text.find("\n", start)
    end = min(end, line_end) if line_end >= 0 else min(end, len(source.text))
    return Failed(AC611.at(source.span(start, max(start, end)), why=why, help=help))


def _translation(source: Source, error: yaml.MarkedYAMLError) -> Failed:
    mark = error.problem_mark or error.context_mark
    place = min(mark.index if mark else 0, len(source.text))
    why = (error.problem or "unreadable").rstrip(".")
    if source.text[place : place + 1] == "\t":
        return _refusal(
            source, place, place + 1, "tabs cannot be used for indentation", "use spaces"
        )
    if why.startswith("mapping values are not allowed"):
        why, help = (
            "`: ` inside a text without quotes",
            "put the text in quotes, or remove the space after `:`",
        )
        return _refusal(source, place, place + 1, why, help)
    remedy = (
        "put a text that contains { } [ ] or `, ` in quotes"
        if "flow" in (error.context or "")
        else None
    )
    why = f"{why} {error.context}" if error.context else why
    return _refusal(source, place, place, why, remedy)


_BREAK = r"(?:\r\n|[\n\r\x85\u2028\u2029])"
_FOLD = re.compile(rf"[ \t]*(?=[\n\r\x85\u2028\u2029])((?:{_BREAK}[ \t]*)+)")
_ESCAPED_FOLD = re.compile(rf"\\{_BREAK}((?:[ \t]*{_BREAK})*)[ \t]*")
_ONE_BREAK = re.compile(_BREAK)
_ESCAPE_LENGTH = {"x": 4, "u": 6, "U": 10}


def _flow_places(span: Span, quote: str) -> Iterator[int]:
    """Where the characters of a plain or quoted scalar stand, line folding and escapes undone."""
    text = span.source.text
    at, end = (span.start + 1, span.end - 1) if quote else (span.start, span.end)
    while at < end:
        if found := _FOLD.match(text, at, end):
            breaks = [one.start() for one in _ONE_BREAK.finditer(text, *found.span(1))]
            yield from breaks[:1] if len(breaks) == 1 else breaks[1:]
            if len(breaks) > 1 and text[breaks[0]] in "\u2028\u2029":
                yield breaks[-1]
            at = found.end()
        elif quote == '"' and (found := _ESCAPED_FOLD.match(text, at, end)):
            yield from (one.start() for one in _ONE_BREAK.finditer(text, *found.span(1)))
            at = found.end()
        else:
            yield at
            if quote == '"' and text[at] == "\\":
                at += _ESCAPE_LENGTH.get(text[at + 1], 2)
            else:
                at += 2 if quote == "'" and text[at] == "'" else 1


def _block_places(span: Span, data: str, folded: bool) -> Iterator[int]:
    """Where the characters of a `|` or `>` scalar stand, and those that were clipped."""
    text = span.source.text
    lines = list(_lines(text, span.start))[1:]
    first = next(((start, end) for start, end, _ in lines if text[start:end].strip(" ")), None)
    if first is None or not data.strip("\n"):
        yield from (end for _, end, _ in lines)
        return
    content = data.lstrip("\n")
    line = text[slice(*first)]
    indent = len(line) - len(line.lstrip(" ")) - len(content) + len(content.lstrip(" "))
    previous: str | None = None
    pending: list[int] = []
    for start, end, after in lines:
        line = text[start + indent : end] if end - start > indent else ""
        if line:
            if text[start:end][:indent].strip(" "):
                break
            tight = folded and previous is not None
            tight = tight and line[0] not in " \t" and previous not in (" ", "\t")
            yield from pending[1:] if tight and len(pending) > 1 else pending
            yield from range(start + indent, end)
            pending, previous = [], line[0]
        elif text[start:end].strip(" "):
            break
        if after > end:
            pending.append(end)
    yield from pending


def _lines(text: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and start of the next, of each line."""
    for found in _ONE_BREAK.finditer(text, start):
        yield start, found.start(), found.end()
        start = found.end()
    yield start, len(text), len(text)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    odd = any(char in text for char in "\r\x85\u2028\u2029\ufeff")
    style = '"' if odd else "|" if "\n" in text.rstrip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _pattern in (_INT, _BASED, _FLOAT, _INFINITE):
    _number = re.compile(f"(?:{_pattern.pattern})$")
    _Dumper.add_implicit_resolver("tag:adaptcompose,2026:number", _number, list("-+.0123456789"))


def _check_keys(data: Any) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str) or not key:
                raise TypeError(f"a key must be a string: {key!r}")
            _check_keys(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            _check_keys(value)
