"""Read examples from files: jsonl, json, csv, tsv, conll, parquet, or text with one per line.

A file may be compressed by gzip: `train.jsonl.gz`. Whatever its columns are called, those of the
examples are named by their roles: `text`, `tokens`, `labels`.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from adaptcompose.diagnostics.codes import AC605, AC606, AC607, AC608
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, counted, suggest
from adaptcompose.experiment.data.parquet import open_parquet
from adaptcompose.experiment.data.readers import READERS, LineReader, Record
from adaptcompose.experiment.spec.sections import DataSection
from adaptcompose.resolution.dataset_splits import GZIP, Classes
from adaptcompose.resolution.datasets import MOST_BYTES

PROBLEM_LIMIT = 20
UNLABELLED = -1
"""The label of examples whose class is secret, as in the test sets of GLUE."""

_TABLE_FORMATS = ("csv", "tsv", "conll", "parquet")


@dataclass(frozen=True)
class Examples:
    """Rows with a value for each of `columns`.

    `origins` has the (index in `files`, line) of each row. `classes` are the names of the class
    numbers, if the files have them, in order.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    origins: tuple[tuple[int, int], ...]
    files: tuple[Path, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def origin(self, row: int) -> tuple[str, int]:
        """The file and the line that a row was read from."""
        file, line = self.origins[row]
        return (str(self.files[file]) if self.files else "<text>", line)


def examples_from_texts(texts: Iterable[str | tuple[str, ...]]) -> Examples:
    """Examples of texts, or of pairs of texts, without labels.

    >>> examples_from_texts(["one", "two"]).column("text")
    ['one', 'two']
    """
    rows = tuple((text,) for text in texts)
    return Examples(("text",), rows, tuple((0, number) for number in range(1, len(rows) + 1)))


def read_example_files(
    paths: Sequence[Path],
    section: DataSection,
    roles: Sequence[str],
    optional: Sequence[str] = (),
    *,
    name: str = "data",
    classes: Classes | None = None,
) -> Examples:
    """Read the examples of some files.

    `roles` are required, `optional` roles may be missing; `classes` names the class numbers of
    columns. Raises one Failed with the problems, at most 20.
    """
    collector = _ExampleCollector(section, tuple(roles), tuple(optional))
    for path in paths:
        form = section.format_of(str(path))
        if form is None:
            raise Failed(AC606.at(section.files_span, section=name, name="format"))
        collector.start(path, form, classes or {})
        if form == "parquet":
            if not path.is_file():
                raise Failed(_no_file(path, section))
            collector.add(collector.parquet_records())
        else:
            lines = LineReader(_content(path, section), collector.problem)
            collector.add(READERS[form](lines, section))
    if collector.problems:
        raise Failed(collector.problems)
    return collector.build_examples(paths)


@dataclass
class _ExampleCollector:
    """Turns records with the columns of a file into rows with the columns of the roles."""

    section: DataSection
    roles: tuple[str, ...]
    optional: tuple[str, ...]
    problems: list[Diagnostic] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    origins: list[tuple[int, int]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    classes: Classes = field(default_factory=dict)
    path: Path = Path()
    file_index: int = -1
    is_table: bool = False

    def start(self, path: Path, form: str, classes: Classes) -> None:
        """Start the next file. Its own class names, if it has some, override `classes`."""
        self.path, self.file_index = path, self.file_index + 1
        self.is_table, self.classes = form in _TABLE_FORMATS, classes

    def parquet_records(self) -> Iterator[Record]:
        """The rows of a Parquet file, not more than `data.limit` needs."""
        names = [name for role in self._columns() for name in self._column_names(role)]
        classes, records = open_parquet(self.path, {*names, "label"}, self.section.files_span)
        self.classes = {**self.classes, **classes}
        first = self.section.limit if self.section.shuffle_seed is None else None
        return islice(records, None if first is None else max(first - len(self.rows), 1))

    def _column_names(self, role: str) -> tuple[str, ...]:
        return self.section.columns.get(role) or (role,)

    def problem(self, line: int, why: str, help: str | None = None) -> None:
        self.problems.append(AC608.at(None, file=str(self.path), line=line, why=why, help=help))
        if len(self.problems) >= PROBLEM_LIMIT:
            raise Failed(self.problems)

    def add(self, records: Iterable[Record]) -> None:
        before, roles = len(self.rows), self._columns()
        for line, record in records:
            values = {role: self._value(role, record, line) for role in roles}
            self.rows.append(tuple(values.values()))
            self.origins.append((self.file_index, line))
            self._check_lengths(values, line)
        if len(self.rows) == before and not self.problems:
            self.problem(1, "the file contains no examples")

    def build_examples(self, files: Sequence[Path]) -> Examples:
        order = list(range(len(self.rows)))
        if self.section.shuffle_seed is not None:
            random.Random(self.section.shuffle_seed).shuffle(order)
        order = order[: self.section.limit]
        roles = self._columns()
        indices = [number for number, role in enumerate(roles) if role not in self.missing]
        rows = tuple(tuple(self.rows[row][number] for number in indices) for row in order)
        origins = tuple(self.origins[row] for row in order)
        columns = tuple(roles[number] for number in indices)
        names = self._column_names("labels")[0]
        classes = self.classes.get(names) or self.classes.get("label", ())
        return Examples(columns, rows, origins, tuple(files), classes)

    def _columns(self) -> tuple[str, ...]:
        return (*self.roles, *(role for role in self.optional if role not in self.roles))

    def _value(self, role: str, record: Mapping[str, Any], line: int) -> Any:
        names = self._column_names(role)
        absent = [name for name in names if name not in record]
        if absent and role == "labels" and role not in self.section.columns:
            names, absent = ("label",), [] if "label" in record else absent
        if absent:
            if role in self.optional and role not in self.section.columns:
                self.missing.add(role)
            else:
                self._report_missing_column(role, absent[0], record, line)
            return None
        if role == "labels" and self._is_unlabelled(names[0], record[names[0]], line):
            return None
        values = [self._check_value(role, name, record[name], line) for name in names]
        return tuple(values) if len(values) > 1 else values[0]

    def _report_missing_column(
        self, role: str, name: str, record: Mapping[str, Any], line: int
    ) -> None:
        """Report a missing column. In a table it is missing in every line, so reading stops."""
        known = list(dict.fromkeys(map(str, record)))
        span = self.section.span_of(f"columns.{role}") or self.section.span_of("repo")
        if self.is_table and span is not None:
            near, expected = suggest(name, known), f"one of the columns {', '.join(known)}"
            values = {"name": f"columns.{role}", "expected": expected, "got": f"`{name}`"}
            raise Failed([*self.problems, AC605.at(span, **values, help=near)])
        help = f"map one of its columns ({', '.join(known)}): `data.columns: {{{role}: …}}`"
        self.problem(line, f"the column `{name}` is missing", help)

    def _is_unlabelled(self, name: str, value: Any, line: int) -> bool:
        """Whether an example has no class. Raises AC608 if labels are required."""
        if self.classes.get(name) is None or value not in (None, UNLABELLED, str(UNLABELLED)):
            return False
        if "labels" in self.optional:
            self.missing.add("labels")
            return True
        self.problem(line, f"`{name}` is {value}, so this split has no labels")
        raise Failed(self.problems)

    def _check_value(self, role: str, name: str, value: Any, line: int) -> Any:
        if role == "labels" and name in self.classes:
            value = _class_names(value, self.classes[name])
        if role == "labels" and isinstance(value, (str, int, float)):
            return _label(value)
        if role == "text" and isinstance(value, str):
            return value
        if role in ("tokens", "labels") and isinstance(value, (list, tuple)) and value:
            kinds = set(map(type, value))  # faster than looking at every word
            if kinds == {str} and (role == "labels" or all(value)):
                return tuple(value)
            if role == "labels" and all(issubclass(kind, (str, int, float)) for kind in kinds):
                return tuple(map(_label, value))
        expected = {"text": "a string", "tokens": "a list of words", "labels": "a label or a list"}
        self.problem(line, f"`{name}` must be {expected.get(role, 'a value')}")
        return None

    def _check_lengths(self, values: Mapping[str, Any], line: int) -> None:
        tokens, labels = values.get("tokens"), values.get("labels")
        if values.get("text") and isinstance(labels, tuple):
            self.problem(line, f"expected one label, found a list of {len(labels)}")
        if not tokens or not labels:
            return
        if isinstance(labels, str) or len(tokens) != len(labels):
            count = "one label" if isinstance(labels, str) else counted(len(labels), "label")
            self.problem(line, f"{counted(len(tokens), 'token')} but {count}")


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _class_names(value: Any, names: tuple[str, ...]) -> Any:
    """The name of a class number, or the names of a list of them; other values unchanged.

    >>> _class_names([0, "1", "b", 7], ("a", "b"))
    ['a', 'b', 'b', 7]
    """
    if isinstance(value, (list, tuple)):
        return [_class_names(one, names) for one in value]
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value in names:
        return value
    number = int(value) if re.fullmatch("[0-9]{1,9}", str(value)) else -1
    return names[number] if 0 <= number < len(names) else value


def _no_file(path: Path, section: DataSection) -> Diagnostic:
    return AC607.at(section.files_span, path=str(path), root=str(Path.cwd()))


def _content(path: Path, section: DataSection) -> bytes:
    """The content of a file, decompressed. Raises AC607 without a file, AC608 if it is damaged."""
    try:
        if path.suffix.lower() != GZIP:
            return path.read_bytes()
        with gzip.open(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise OSError(None, f"it is larger than {MOST_BYTES // 10**9} GB when unpacked")
        return content
    except FileNotFoundError:
        raise Failed(_no_file(path, section)) from None
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or "it cannot be read"
        raise Failed(AC608.at(None, file=str(path), line=1, why=why)) from None
