"""Assign the files of a data set to splits, by its README or by their names.

>>> found = read_layout(["data/train-00000-of-00001.parquet", "data/dev.csv", "README.md"], {})
>>> dict(found.splits("default"))
{'train': ('data/train-00000-of-00001.parquet',)}
>>> dict(read_layout(["en/train.csv", "en/dev.csv", "sw/test.csv"], {}).splits("en"))
{'train': ('en/train.csv',), 'validation': ('en/dev.csv',)}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from adaptcompose.syntax.references import matches_glob

Splits = Mapping[str, tuple[str, ...]]
Classes = Mapping[str, tuple[str, ...]]
"""The names of the classes by column; the numbers in a column are indices of them."""

FORMATS = {
    "parquet": (".parquet",),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "conll": (".conll", ".iob", ".iob2", ".bio"),
    "text": (".txt",),
}
"""The endings of files by format. If two formats are equally frequent, the first one counts."""
GZIP = ".gz"
"""An ending that may follow the others."""
KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?(?:\.\w+)+")
_NO_EXAMPLES = re.compile(r"(dataset_infos?|state|dataset_dict|package|config)\.json|[._].*"
                          r"|(licen[cs]e|readme|requirements|changelog).*", re.I)  # fmt: skip
_PLAIN = re.compile(r"[^*?\[{]*")
_PATTERN_LIMIT = 300


@dataclass(frozen=True)
class DatasetLayout:
    """The splits of each configuration, and the classes that the README names for columns."""

    configs: Mapping[str, Splits]
    default: str | None
    classes_by_config: Mapping[str, Classes]

    def choose_config(self, wanted: str | None) -> str | None:
        """The configuration `wanted`, or the default one; None if it does not exist."""
        name = self.default if wanted is None else wanted
        return name if name in self.configs else None

    def splits(self, config: str) -> Splits:
        """The files of each split."""
        return self.configs[config]

    def classes(self, config: str) -> Classes:
        """The classes of each column of labels."""
        return self.classes_by_config.get(config, {})


def read_layout(paths: Iterable[str], metadata: Mapping[str, Any]) -> DatasetLayout:
    """The layout of a repository with these files and this front matter of its README."""
    paths = sorted(paths)
    declared = dict(_declared_configs(metadata.get("configs"), paths))
    default = next(iter(_marked(metadata.get("configs"))), None)
    configs = declared or _inferred_configs(_examples(paths))
    if default not in configs:
        default = next(iter(configs)) if len(configs) == 1 else "default"
    classes = dict(_features(metadata.get("dataset_info"), default or "default"))
    return DatasetLayout(configs, default if default in configs else None, classes)


def _entries(value: Any) -> list[Mapping[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, dict)]


def _marked(configs: Any) -> Iterator[str]:
    """The configurations that the README marks as the default."""
    yield from (str(c.get("config_name")) for c in _entries(configs) if c.get("default"))


def _declared_configs(configs: Any, paths: Sequence[str]) -> Iterator[tuple[str, Splits]]:
    """Read `configs:` of a README; patterns select only files that are in the repository."""
    for entry in _entries(configs):
        folder = str(entry.get("data_dir") or "").removeprefix("./").strip("/")
        inside = [path for path in paths if not folder or path.startswith(f"{folder}/")]
        if "data_files" not in entry:
            found = _by_names(_examples(inside), folder)
        else:
            start = f"{folder}/" if folder else ""
            found = {}
            for split, patterns in _data_files(entry["data_files"]):
                chosen = [
                    p for one in patterns for p in inside if matches_pattern(f"{start}{one}", p)
                ]
                found[split] = tuple(dict.fromkeys((*found.get(split, ()), *chosen)))
        if found := {split: files for split, files in found.items() if files}:
            yield str(entry.get("config_name") or "default"), found


def _data_files(value: Any) -> Iterator[tuple[str, list[str]]]:
    """The patterns of each split: a string, a list, a list of `split` and `path`, or a mapping."""
    if isinstance(value, dict):
        for split, patterns in value.items():
            yield str(split), _texts(patterns)
        return
    entries = _entries(value)
    for entry in entries:
        yield str(entry.get("split") or "train"), _texts(entry.get("path"))
    if not entries:
        yield "train", _texts(value)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one.removeprefix("./") for one in values if isinstance(one, str)]


def matches_pattern(pattern: str, path: str) -> bool:
    """Whether a path matches a pattern, in which `**` matches across folders and `*` does not.

    >>> [matches_pattern(p, "en/train-0.csv") for p in ("en/train-*", "**/*.csv", "*.csv", "en/**")]
    [True, True, False, True]
    """
    plain = _PLAIN.match(pattern)
    if len(pattern) > _PATTERN_LIMIT or not path.startswith(plain[0] if plain else ""):
        return False
    places = {0}
    steps = path.split("/")
    for part in re.sub(r"\[[^\]]*\]", "?", pattern).split("/"):
        if part == "**":
            places = set(range(min(places), len(steps) + 1)) if places else places
        else:
            one = part.replace("**", "*")
            places = {n + 1 for n in places if n < len(steps) and matches_glob(one, steps[n])}
    return len(steps) in places


def format_of(path: str) -> str | None:
    """The format of a file by its ending.

    >>> format_of("a/train.jsonl"), format_of("test.CSV.gz"), format_of("dev.csv.zip")
    ('jsonl', 'csv', None)
    """
    name = path.lower().removesuffix(GZIP)
    return next((form for form, endings in FORMATS.items() if name.endswith(endings)), None)


def _examples(paths: Sequence[str]) -> list[str]:
    """The files with examples in the most frequent format."""
    named = {path: format_of(path) for path in paths}
    found = [path for path in named if not _NO_EXAMPLES.fullmatch(PurePosixPath(path).name)]
    counts = Counter(named[path] for path in found)
    tables = [form for form in FORMATS if counts[form] and form != "text"] or ["text"]
    best = max(tables, key=lambda form: counts[form])
    return [path for path in found if named[path] == best]


def _inferred_configs(paths: Sequence[str]) -> Mapping[str, Splits]:
    """One configuration for each folder; a single one, `default`, if folders are splits."""
    tops = {path.split("/")[0] for path in paths if "/" in path}
    plain = {top for top in tops if top == "data" or _keyword(top)}
    if not tops or plain or any("/" not in path for path in paths):
        found = _by_names(paths, "")
        return {"default": found} if found else {}
    below = {top: [path for path in paths if path.startswith(f"{top}/")] for top in sorted(tops)}
    return {top: _by_names(inside, top) for top, inside in below.items()}


def _by_names(paths: Sequence[str], folder: str) -> Splits:
    """The splits by the names of files, or else of their folders; without any, all is `train`."""
    found: dict[str, list[str]] = {}
    for path in paths:
        *above, name = path.removeprefix(f"{folder}/" if folder else "").split("/")
        shard = _SHARD.fullmatch(name)
        split = shard[1] if shard else _keyword(PurePosixPath(name).stem)
        split = split or next(filter(None, map(_keyword, reversed(above))), None)
        found.setdefault(split or "", []).append(path)
    if found.keys() == {""}:
        found = {"train": found[""]}
    return {split: tuple(found[split]) for split in (*KEYWORDS, *found) if split in found and split}


def _keyword(name: str) -> str | None:
    """The split that a word in a name means.

    >>> _keyword("my-dev_set"), _keyword("devil")
    ('validation', None)
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, known in KEYWORDS.items() if words & {*known}), None)


def _features(info: Any, default: str) -> Iterator[tuple[str, Classes]]:
    """Read `dataset_info:` of a README: the classes of each column by configuration."""
    for entry in _entries(info):
        columns = _entries(entry.get("features") or [])
        found = {str(one.get("name")): names for one in columns if (names := _class_names(one))}
        yield str(entry.get("config_name") or default), found


def _class_names(feature: Any, depth: int = 4) -> tuple[str, ...]:
    """The classes of a column, or of the items of a column of lists."""
    if not isinstance(feature, dict) or depth == 0:
        return ()
    label = feature.get("class_label")
    names = label.get("names") if isinstance(label, dict) else None
    if isinstance(names, dict):
        numbered = {str(number): str(name) for number, name in names.items()}
        return tuple(numbered.get(str(number), "") for number in range(len(numbered)))
    if isinstance(names, list):
        return tuple(map(str, names))
    inner = (feature.get(key) for key in ("dtype", "sequence", "list", "feature"))
    return next(filter(None, (_class_names(one, depth - 1) for one in inner)), ())
