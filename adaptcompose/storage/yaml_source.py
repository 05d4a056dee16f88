"""Reading YAML strictly and with source positions, and writing it.

All YAML of the project goes through this module. Scalars follow the core schema of YAML 1.2: `no`
is a string (Norwegian), `1e-4` a number. Keys are strings. Repeated keys, tags, anchors, aliases
and merge keys are errors (AC602, AC611).

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

SIZE_LIMIT = 1_000_000  # bytes
DEPTH_LIMIT = 64  # levels


@dataclass(frozen=True)
class YamlNode:
    """A YAML node: its data, its span in the file and, for a mapping, the spans of its keys.

    `data` is a dict of nodes, a tuple of nodes or a scalar. `known_offsets` are the offsets of a
    string that cannot be computed from the file, because it was made from a template.
    """

    data: Any
    span: Span
    key_spans: dict[str, Span] = field(default_factory=dict)
    style: str = field(default="", repr=False, compare=False)
    known_offsets: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """For a string: the offset in the file of each of its characters, and of its end."""
        if self.known_offsets or not isinstance(self.data, str):
            return self.known_offsets
        if self.style in ("|", ">"):
            offsets = list(_block_offsets(self.span, self.data, self.style == ">"))
        else:
            offsets = list(_flow_offsets(self.span, self.style))
        offsets = offsets[: len(self.data)]
        # libyaml may read an exotic line break in another way; offsets stay inside the node
        offsets += [max(self.span.start, self.span.end - 1)] * (len(self.data) - len(offsets))
        if self.style in ("'", '"'):
            return (*offsets, self.span.end - 1)
        return (*offsets, offsets[-1] + 1 if offsets else self.span.start)

    @property
    def text(self) -> str:
        """The string, or the text of another scalar as it is in the file."""
        return self.data if isinstance(self.data, str) else self.span.text

    def source(self) -> Source:
        """The string as a source of its own, whose carets point into the file."""
        assert isinstance(self.data, str)
        return Source(self.data, self.span.source.name, self.span.source, self.offsets)

    def as_plain(self) -> Any:
        """The node as dictionaries, lists and scalars, without spans."""
        if isinstance(self.data, dict):
            return {key: value.as_plain() for key, value in self.data.items()}
        if isinstance(self.data, tuple):
            return [value.as_plain() for value in self.data]
        return self.data


def read_source(path: Path, name: str | None = None) -> Source:
    """Read a UTF-8 file that exists; `name` is its name in diagnostics.

    Raises AC017 if it is not UTF-8 and AC611 if it is larger than SIZE_LIMIT.
    """
    with path.open("rb") as file:
        content = file.read(SIZE_LIMIT + 4)
    _check_size(len(content), Source("", name or str(path)))
    return decode_utf8(content, name or str(path))


def decode_utf8(content: bytes, name: str) -> Source:
    """Decode UTF-8, with or without a byte order mark; AC017 points at the first invalid byte."""
    try:
        return Source(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        valid = Source(content[: error.start].decode("utf-8-sig"), name)
        end = valid.span(len(valid.text))
        raise Failed(AC017.at(end, byte=f"0x{content[error.start]:02x}")) from None


def parse_yaml(source: Source) -> YamlNode:
    """Parse one YAML document; the data of an empty one is None. Raises AC602 or AC611."""
    _check_size(len(source.text.encode("utf-8", "surrogatepass")), source)
    if match := _UNPRINTABLE.search(source.text):
        char = f"U+{ord(match.group()):04X}"
        raise _refusal(source, *match.span(), f"the character {char} is not allowed")
    try:
        return _Reader(source).document()
    except yaml.MarkedYAMLError as error:
        raise _translate_error(source, error) from None
    except yaml.YAMLError as error:
        raise _refusal(source, 0, 0, str(error)) from None


def load_yaml(text: str, name: str = "<yaml>") -> Any:
    """Parse a document, such as a card or a lock, into plain values."""
    return parse_yaml(Source(text, name)).as_plain()


def dump_yaml(data: Any) -> str:
    """Write data in block style, with keys in their order; `load_yaml` is the inverse.

    A string that any YAML reader would take for another type is quoted. Raises TypeError for a key
    that is not a string.
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
    """The value of an unquoted scalar.

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
    if match := _INFINITE.fullmatch(text):
        return float(f"{match[1]}inf") if match[1] is not None else float("nan")
    return text


class _Reader:
    """Builds nodes from the events of libyaml."""

    def __init__(self, source: Source):
        self.source = source
        # libyaml would count a byte order mark as the first column
        self.shift = 1 if source.text.startswith("\ufeff") else 0
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.events: Iterator[Any] = yaml.parse(source.text[self.shift :], Loader=loader)

    def document(self) -> YamlNode:
        node: YamlNode | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent) and node is not None:
                raise self._refuse(event, "it contains more than one document")
            if isinstance(event, yaml.NodeEvent):
                node = self._node(event, 0)
        return node or YamlNode(None, self.source.span(0, 0))

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
        while not isinstance(event_inside := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event_inside, depth))
        if event.flow_style:
            end = self._range(event_inside)[1]
        elif items:
            end = items[-1].span.end
        return YamlNode(tuple(items), self.source.span(start, end))

    def _mapping(self, event: Any, depth: int) -> YamlNode:
        start, end = self._range(event)
        data: dict[str, YamlNode] = {}
        keys: dict[str, Span] = {}
        repeated = []
        while not isinstance(key_event := next(self.events), yaml.MappingEndEvent):
            key, span = self._key(key_event, depth)
            value = self._node(next(self.events), depth)
            end = max(span.end, value.span.end)
            if key in keys:
                repeated.append(AC602.at(span, name=key))
            data[key], keys[key] = value, span
        if repeated:
            raise Failed(repeated)
        if event.flow_style:
            end = self._range(key_event)[1]
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


def _translate_error(source: Source, error: yaml.MarkedYAMLError) -> Failed:
    mark = error.problem_mark or error.context_mark
    offset = min(mark.index if mark else 0, len(source.text))
    why = (error.problem or "unreadable").rstrip(".")
    if source.text[offset : offset + 1] == "\t":
        return _refusal(
            source, offset, offset + 1, "tabs cannot be used for indentation", "use spaces"
        )
    if why.startswith("mapping values are not allowed"):
        why, help = (
            "`: ` inside a text without quotes",
            "put the text in quotes, or remove the space after `:`",
        )
        return _refusal(source, offset, offset + 1, why, help)
    remedy = (
        "put a text that contains { } [ ] or `, ` in quotes"
        if "flow" in (error.context or "")
        else None
    )
    why = f"{why} {error.context}" if error.context else why
    return _refusal(source, offset, offset, why, remedy)


_BREAK = r"(?:\r\n|[\n\r\x85\u2028\u2029])"
_FOLD = re.compile(rf"[ \t]*(?=[\n\r\x85\u2028\u2029])((?:{_BREAK}[ \t]*)+)")
_ESCAPED_FOLD = re.compile(rf"\\{_BREAK}((?:[ \t]*{_BREAK})*)[ \t]*")
_ONE_BREAK = re.compile(_BREAK)
_ESCAPE_LENGTH = {"x": 4, "u": 6, "U": 10}


def _flow_offsets(span: Span, quote: str) -> Iterator[int]:
    """The offset of each character of a plain or quoted scalar, after line folding and escapes."""
    text = span.source.text
    at, end = (span.start + 1, span.end - 1) if quote else (span.start, span.end)
    while at < end:
        if fold := _FOLD.match(text, at, end):
            breaks = [each.start() for each in _ONE_BREAK.finditer(text, *fold.span(1))]
            yield from breaks[:1] if len(breaks) == 1 else breaks[1:]
            if len(breaks) > 1 and text[breaks[0]] in "\u2028\u2029":
                yield breaks[-1]
            at = fold.end()
        elif quote == '"' and (fold := _ESCAPED_FOLD.match(text, at, end)):
            yield from (each.start() for each in _ONE_BREAK.finditer(text, *fold.span(1)))
            at = fold.end()
        else:
            yield at
            if quote == '"' and text[at] == "\\":
                at += _ESCAPE_LENGTH.get(text[at + 1], 2)
            else:
                at += 2 if quote == "'" and text[at] == "'" else 1


def _block_offsets(span: Span, data: str, folded: bool) -> Iterator[int]:
    """The offset of each character of a `|` or `>` scalar, with line breaks clipped at its end."""
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
            folds = folded and previous is not None
            folds = folds and line[0] not in " \t" and previous not in (" ", "\t")
            yield from pending[1:] if folds and len(pending) > 1 else pending
            yield from range(start + indent, end)
            pending, previous = [], line[0]
        elif text[start:end].strip(" "):
            break
        if after > end:
            pending.append(end)
    yield from pending


def _lines(text: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Start and end of each line, and the start of the line after it."""
    for line_break in _ONE_BREAK.finditer(text, start):
        yield start, line_break.start(), line_break.end()
        start = line_break.end()
    yield start, len(text), len(text)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    needs_escapes = any(char in text for char in "\r\x85\u2028\u2029\ufeff")
    style = '"' if needs_escapes else "|" if "\n" in text.rstrip("\n") else None
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
