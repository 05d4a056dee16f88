"""What a repository says of itself: the YAML between the first lines of its README.md.

>>> metadata = front_matter("---\\nlanguage: sw\\nbase_model: bert-base-uncased\\n---\\n# NER")
>>> hit_from_metadata("user/ner", metadata).backbones
('google-bert/bert-base-uncased',)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.store import RepositoryHit
from adaptcompose.storage.yaml_source import load_yaml
from adaptcompose.syntax.references import canonical_id

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE_LIMIT = 1_000_000

_FRONT = re.compile(r"---\n(.*?)\n---(?:\n|$)", re.DOTALL)
_MARK = re.compile(r"base_model:(?:adapter:)?([^:]+/[^:]+|[^:/]+)")


def front_matter(page: str) -> dict[str, Any]:
    """The metadata of a card; none if it has none, or none that can be read."""
    match = _FRONT.match(page.replace("\r\n", "\n")) if len(page) <= SIZE_LIMIT else None
    try:
        data = load_yaml(match[1]) if match is not None else None
    except Failed:
        return {}
    return data if isinstance(data, dict) else {}


def hit_from_file(repo: str, page: Path) -> RepositoryHit:
    """A repository whose card is a file."""
    if not page.is_file() or page.stat().st_size > SIZE_LIMIT:
        return RepositoryHit(repo)
    return hit_from_metadata(repo, front_matter(page.read_text("utf-8", "replace")))


def hit_from_metadata(
    repo: str, metadata: Mapping[str, Any], tags: tuple[str, ...] = ()
) -> RepositoryHit:
    """What a search shows of a repository; a value of the wrong kind counts as none."""
    every = (*_texts(metadata.get("tags")), *tags)
    named = [found[1] for tag in every if (found := _MARK.fullmatch(tag))]
    bases = (*_texts(metadata.get("base_model")), *named)
    return RepositoryHit(
        repo,
        next(iter(_texts(metadata.get("library_name"))), None),
        tuple(dict.fromkeys(map(canonical_id, bases))),
        _texts(metadata.get("language")),
        next(iter(_texts(metadata.get("pipeline_tag"))), None),
        next(iter(_texts(metadata.get("license"))), None),
        _texts(metadata.get("datasets")),
        tags=tuple(dict.fromkeys(every)),
    )


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(one for one in values if isinstance(one, str) and one)


def matches_words(found: RepositoryHit, words: tuple[str, ...]) -> bool:
    """Whether every word occurs in what is known of a repository.

    >>> matches_words(RepositoryHit("user/sw-ner", languages=("sw",)), ("NER", "sw"))
    True
    """
    text = " ".join([found.repo, *found.backbones, *found.languages, *found.datasets, *found.tags])
    text = f"{text} {found.task or ''} {found.library or ''}".casefold()
    return all(word.casefold() in text for word in words)
