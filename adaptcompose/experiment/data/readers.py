"""Readers of example files: one per format, from the lines of a file to records."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adaptcompose.diagnostics.diagnostic import counted
from adaptcompose.experiment.spec.sections import DataSection

Record = tuple[int, Mapping[str, Any]]
"""The number of a line, counted from 1, and the values of its columns by name."""


@dataclass
class LineReader:
    """Iterates over the numbered lines of a file, decoded from UTF-8.

    `problem` is called with the number of a line and a reason, for instance for an invalid byte.
    """

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
                self.problem(number, f"the byte 0x{line[error.start]:02x} is not valid UTF-8")


def _read_jsonl(lines: LineReader, section: DataSection) -> Iterator[Record]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            lines.problem(number, f"invalid JSON: {error.msg} at column {error.colno}")
            continue
        except (ValueError, RecursionError):
            lines.problem(
                number, "invalid JSON: a number is too long, or values are nested too deeply"
            )
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            lines.problem(number, "expected a JSON object: `{…}`")


def _read_json(lines: LineReader, section: DataSection) -> Iterator[Record]:
    """A JSON list of records, or one record per line. In a list, the number is the index."""
    if lines.content.lstrip()[:1] != b"[":
        yield from _read_jsonl(lines, section)
        return
    try:
        records = json.loads(lines.content)
    except (ValueError, RecursionError) as error:
        lines.problem(1, f"invalid JSON: {str(error)[:80]}")
        return
    for number, record in enumerate(records, 1):
        if isinstance(record, dict):
            yield number, record
        else:
            lines.problem(number, "expected a JSON object: `{…}`")


def _read_table(lines: LineReader, section: DataSection, **dialect: Any) -> Iterator[Record]:
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
                lines.problem(
                    line, f"expected {counted(len(header), 'column')}, found {len(cells)}"
                )
            else:
                yield line, _record_of_row(header, cells)
    except csv.Error as error:
        lines.problem(start, f"invalid table: {error}")


def _read_csv(lines: LineReader, section: DataSection) -> Iterator[Record]:
    return _read_table(lines, section)


def _read_tsv(lines: LineReader, section: DataSection) -> Iterator[Record]:
    return _read_table(lines, section, delimiter="\t", quoting=csv.QUOTE_NONE)


def _record_of_row(header: list[str], cells: list[str]) -> dict[str, str]:
    """A row by the names of its columns, and by their indices. A name wins over an index."""
    return {str(index): cell for index, cell in enumerate(cells)} | dict(
        zip(header, cells, strict=True)
    )


def _read_conll(lines: LineReader, section: DataSection) -> Iterator[Record]:
    """Sentences between blank lines. Columns are numbered; 0 is `tokens`, the last is `labels`.

    Lines with `-DOCSTART-`, which start documents in CoNLL-2003, are skipped.
    """
    numbered = [*lines, (0, "")]
    pattern = next((line for _, line in numbered if line.strip() and line[0] != "#"), "")
    split = _split_at_tabs if "\t" in pattern else _split_at_blanks
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
        # `#` may also be a word: `# O` is one in a file with two columns.
        if not sentence and line[0] == "#" and (len(cells) != width or _COMMENT.match(line)):
            continue
        if cells[0] == "-DOCSTART-":
            continue
        if len(cells) != width:
            lines.problem(number, f"expected {counted(width, 'column')}, found {len(cells)}")
            continue
        first = first if sentence else number
        sentence.append(cells)


_COMMENT = re.compile(r"# *[\w ]+ = ")


def _split_at_tabs(line: str) -> list[str]:
    return line.split("\t")


def _split_at_blanks(line: str) -> list[str]:
    return re.split(" +", line.strip(" "))


def _sentence(rows: list[list[str]]) -> dict[str, Any]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    named: dict[str, Any] = {str(index): column for index, column in enumerate(columns)}
    named["tokens"] = columns[0]
    if len(columns) > 1:
        named["labels"] = columns[-1]
    return named


def _read_text(lines: LineReader, section: DataSection) -> Iterator[Record]:
    for number, line in lines:
        if line.strip():
            yield number, {"text": line.strip()}


READERS: dict[str, Callable[[LineReader, DataSection], Iterator[Record]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "conll": _read_conll,
    "text": _read_text,
}
