"""Examples out of local files: jsonl, csv, tsv, conll, and text with one example a line.

Whatever the columns are called in the file, examples have the roles `text`, `tokens`, `labels`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptcompose.language.codes import AC606, AC607, AC608
from adaptcompose.language.diagnostics import Diagnostic, Failed
from adaptcompose.work.references import DataRef
from adaptcompose.work.sections import DataSection, Spec

PROBLEM_LIMIT = 20
Record = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class DataFile:
    """A file that was read, as the lock records it."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Examples:
    """Rows of `columns`; `places` says for each row its file and line."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    places: tuple[tuple[int, int], ...]
    files: tuple[DataFile, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def place(self, row: int) -> tuple[str, int]:
        """The file and the line that a row comes from."""
        file, line = self.places[row]
        return (str(self.files[file].path) if self.files else "<text>", line)


def examples_of(texts: Iterable[str | tuple[str, ...]]) -> Examples:
    """Texts without labels, such as those that `predict` gets.

    >>> examples_of(["one", "two"]).column("text")
    ['one', 'two']
    """
    rows = tuple((text,) for text in texts)
    return Examples(("text",), rows, tuple((0, number) for number in range(1, len(rows) + 1)))


def open_data(
    spec: Spec, ref: DataRef, roles: Sequence[str], optional: Sequence[str] = ()
) -> Examples:
    """The examples of a split, with the columns that a task needs."""
    section = spec.data[ref.name]
    paths = spec.files(ref)
    return read_examples(paths, section, roles, optional, name=ref.name)


def read_examples(
    paths: Sequence[Path],
    section: DataSection,
    roles: Sequence[str],
    optional: Sequence[str] = (),
    name: str = "data",
) -> Examples:
    """The examples of some files. Everything wrong with them (up to a limit) is in one Failed."""
    collecting = _Collecting(section, tuple(roles), tuple(optional))
    files = []
    for path in paths:
        form = section.format_of(str(path))
        if form is None:
            raise Failed(AC606.at(section.place("files"), section=name, name="format"))
        collecting.start(path)
        content = _content(path, section)
        files.append(DataFile(path, hashlib.sha256(content).hexdigest(), len(content)))
        collecting.add(_READERS[form](_Lines(content, collecting.problem), section))
    if collecting.problems:
        raise Failed(collecting.problems)
    return collecting.examples(files)


@dataclass
class _Lines:
    """The lines of a file; where not all is UTF-8, a bad byte has a line."""

    content: bytes
    problem: Callable[[int, str], None]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        content = self.content.removeprefix(b"\xef\xbb\xbf")
        try:
            text = content.decode().replace("\r\n", "\n").removesuffix("\r")
        except UnicodeDecodeError:
            return self._one_by_one(content)
        return enumerate(text.split("\n"), 1)

    def _one_by_one(self, content: bytes) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(content.split(b"\n"), 1):
            try:
                yield number, line.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                self.problem(number, f"the byte 0x{line[error.start]:02x} is not UTF-8")


@dataclass
class _Collecting:
    """Turns records of a file's own columns into rows of the roles."""

    section: DataSection
    roles: tuple[str, ...]
    optional: tuple[str, ...]
    problems: list[Diagnostic] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    path: Path = Path()
    number: int = -1

    def start(self, path: Path) -> None:
        self.path, self.number = path, self.number + 1

    def problem(self, line: int, why: str, help: str | None = None) -> None:
        self.problems.append(AC608.at(None, file=str(self.path), line=line, why=why, help=help))
        if len(self.problems) >= PROBLEM_LIMIT:
            raise Failed(self.problems)

    def add(self, records: Iterable[Record]) -> None:
        before, wanted = len(self.rows), self._wanted()
        for line, record in records:
            values = {role: self._value(role, record, line) for role in wanted}
            self.rows.append(tuple(values.values()))
            self.places.append((self.number, line))
            self._check_lengths(values, line)
        if len(self.rows) == before and not self.problems:
            self.problem(1, "the file holds no examples")

    def examples(self, files: Sequence[DataFile]) -> Examples:
        order = list(range(len(self.rows)))
        if self.section.shuffle_seed is not None:
            random.Random(self.section.shuffle_seed).shuffle(order)
        order = order[: self.section.limit]
        wanted = self._wanted()
        kept = [number for number, role in enumerate(wanted) if role not in self.missing]
        rows = tuple(tuple(self.rows[row][number] for number in kept) for row in order)
        places = tuple(self.places[row] for row in order)
        return Examples(tuple(wanted[number] for number in kept), rows, places, tuple(files))

    def _wanted(self) -> tuple[str, ...]:
        return (*self.roles, *(role for role in self.optional if role not in self.roles))

    def _value(self, role: str, record: Mapping[str, Any], line: int) -> Any:
        names = self.section.columns.get(role) or (role,)
        absent = [name for name in names if name not in record]
        if absent and role == "labels" and role not in self.section.columns:
            names, absent = ("label",), [] if "label" in record else absent
        if absent:
            if role in self.optional and role not in self.section.columns:
                self.missing.add(role)
            else:
                known = ", ".join(dict.fromkeys(map(str, record)))
                help = f"columns: {known}; data.columns says which is which: {{{role}: …}}"
                self.problem(line, f"no column `{absent[0]}`", help)
            return None
        values = [self._checked(role, name, record[name], line) for name in names]
        return tuple(values) if len(values) > 1 else values[0]

    def _checked(self, role: str, name: str, value: Any, line: int) -> Any:
        if role == "labels" and isinstance(value, (str, int, float)):
            return _label(value)
        if role == "text" and isinstance(value, str):
            return value
        if role in ("tokens", "labels") and isinstance(value, (list, tuple)) and value:
            kinds = set(map(type, value))  # few, however long the sentence is
            if kinds == {str} and (role == "labels" or all(value)):
                return tuple(value)
            if role == "labels" and all(issubclass(kind, (str, int, float)) for kind in kinds):
                return tuple(map(_label, value))
        expected = {"text": "a text", "tokens": "a list of words", "labels": "a label or a list"}
        self.problem(line, f"`{name}` must be {expected.get(role, 'a value')}")
        return None

    def _check_lengths(self, values: Mapping[str, Any], line: int) -> None:
        tokens, labels = values.get("tokens"), values.get("labels")
        if values.get("text") and isinstance(labels, tuple):
            self.problem(line, f"one label expected, got a list of {len(labels)}")
        if not tokens or not labels:
            return
        if isinstance(labels, str) or len(tokens) != len(labels):
            count = "one label" if isinstance(labels, str) else f"{len(labels)} labels"
            self.problem(line, f"{len(tokens)} tokens and {count}")


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _content(path: Path, section: DataSection) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Failed(
            AC607.at(section.place("files"), path=str(path), root=str(path.parent))
        ) from None
    except OSError as error:
        why = error.strerror or "it cannot be read"
        raise Failed(AC608.at(None, file=str(path), line=1, why=why)) from None


def _read_jsonl(lines: _Lines, section: DataSection) -> Iterator[Record]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            lines.problem(number, f"not JSON: {error.msg} at column {error.colno}")
            continue
        except (ValueError, RecursionError):
            lines.problem(number, "not JSON that can be read: too long a number, or too deep")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            lines.problem(number, "expected a JSON object, {…}")


def _read_table(lines: _Lines, section: DataSection, **dialect: Any) -> Iterator[Record]:
    start = 1

    def texts() -> Iterator[str]:
        for _, line in lines:
            yield line + "\n"

    reader = csv.reader(texts(), strict=True, **dialect)
    header: list[str] | None = None
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells or cells == [""]:
                continue
            if header is None:
                header = cells if section.header else [str(index) for index in range(len(cells))]
                if repeated := next((name for name in header if header.count(name) > 1), None):
                    lines.problem(line, f"the column `{repeated}` appears twice")
                if section.header:
                    continue
            if len(cells) != len(header):
                lines.problem(line, f"{len(header)} columns expected, got {len(cells)}")
            else:
                yield line, _named(header, cells)
    except csv.Error as error:
        lines.problem(start, f"not a table: {error}")


def _read_csv(lines: _Lines, section: DataSection) -> Iterator[Record]:
    return _read_table(lines, section)


def _read_tsv(lines: _Lines, section: DataSection) -> Iterator[Record]:
    return _read_table(lines, section, delimiter="\t", quoting=csv.QUOTE_NONE)


def _named(header: list[str], cells: list[str]) -> dict[str, str]:
    """A row by the names of its columns, and by their numbers where no name is in the way."""
    return {str(index): cell for index, cell in enumerate(cells)} | dict(
        zip(header, cells, strict=True)
    )


def _read_conll(lines: _Lines, section: DataSection) -> Iterator[Record]:
    """Sentences between blank lines. Columns are numbers; `tokens` is 0, `labels` the last.

    `-DOCSTART-` lines of the CoNLL-2003 files mark documents and are no words.
    """
    numbered = [*lines, (0, "")]
    pattern = next((line for _, line in numbered if line.strip() and line[0] != "#"), "")
    split = _by_tabs if "\t" in pattern else _by_blanks
    width = len(split(pattern))
    sentence: list[list[str]] = []
    first = 0
    for number, line in numbered:
        if not line.strip(" \t"):
            if sentence:
                yield first, _sentence(sentence)
            sentence = []
            continue
        cells = split(line)
        # `#` may also be a word: `# O` is one where every line has two columns.
        if not sentence and line[0] == "#" and (len(cells) != width or _REMARK.match(line)):
            continue
        if cells[0] == "-DOCSTART-":
            continue
        if len(cells) != width:
            lines.problem(number, f"{width} columns expected, got {len(cells)}")
            continue
        first = first if sentence else number
        sentence.append(cells)


_REMARK = re.compile(r"# *[\w ]+ = ")


def _by_tabs(line: str) -> list[str]:
    return line.split("\t")


def _by_blanks(line: str) -> list[str]:
    return re.split(" +", line.strip(" "))


def _sentence(rows: list[list[str]]) -> dict[str, Any]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    named: dict[str, Any] = {str(index): column for index, column in enumerate(columns)}
    named["tokens"] = columns[0]
    if len(columns) > 1:
        named["labels"] = columns[-1]
    return named


def _read_text(lines: _Lines, section: DataSection) -> Iterator[Record]:
    for number, line in lines:
        if line.strip():
            yield number, {"text": line.strip()}


_READERS: dict[str, Callable[[_Lines, DataSection], Iterator[Record]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "conll": _read_conll,
    "text": _read_text,
}
