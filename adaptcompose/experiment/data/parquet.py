"""Read examples from Parquet files, the format of most data sets on the Hub, with pyarrow."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptcompose.diagnostics.codes import AC413, AC615
from adaptcompose.diagnostics.diagnostic import Failed, Span
from adaptcompose.resolution.dataset_splits import Classes

SIZE_LIMIT = 8_000_000_000
"""The largest size in bytes of a decompressed file: a small file can expand enormously."""
_BATCH = 1024


def open_parquet(
    path: Path, columns: Collection[str], span: Span | None = None
) -> tuple[Classes, Iterator[tuple[int, Mapping[str, Any]]]]:
    """The class names of the columns of a file, and its rows, numbered from 1.

    Only the named columns are read; the others are None in every row. `span` is the
    position in the spec for messages. Raises AC615 without pyarrow, AC413 if the file is damaged.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise Failed(AC615.at(span)) from None
    try:
        file = parquet.ParquetFile(path)
        metadata = file.metadata
        groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > SIZE_LIMIT:
            raise ValueError(f"it contains more than {SIZE_LIMIT // 10**9} GB")
    except (ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error, span) from None
    names = dict.fromkeys(file.schema_arrow.names)
    classes = _classes(file.schema_arrow.metadata or {})

    def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
        number = 0
        try:
            for batch in file.iter_batches(_BATCH, columns=[n for n in names if n in columns]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {**names, **row}
        except (ArrowException, OSError, ValueError) as error:
            raise _unreadable(path, error, span) from None

    return classes, rows()


def _unreadable(path: Path, error: Exception, span: Span | None) -> Failed:
    why = "".join(filter(str.isprintable, (str(error).splitlines() or ["damaged"])[0][:200]))
    return Failed(AC413.at(span, file=path, why=why))


def _classes(metadata: Mapping[bytes, bytes]) -> Classes:
    """The class names of columns in the metadata that the library `datasets` writes."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        named = {str(column): _names(feature) for column, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in named.items() if names}


def _names(feature: Any) -> tuple[str, ...]:
    """The class names of a feature `ClassLabel`, or of a list of it; empty for other features."""
    inner = feature[0] if isinstance(feature, list) and feature else feature
    if not isinstance(inner, dict):
        return ()
    if inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
        return tuple(map(str, inner["names"]))
    return _names(inner["feature"]) if "feature" in inner else ()
