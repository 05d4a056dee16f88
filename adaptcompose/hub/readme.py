"""The metadata of a repository: the YAML front matter of its README.md.

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

_FRONT_MATTER = re.compile(r"---\n(.*?)\n---(?:\n|$)", re.DOTALL)
_BASE_MODEL_TAG = re.compile(r"base_model:(?:adapter:)?([^:]+/[^:]+|[^:/]+)")


def split_front_matter(page: str) -> tuple[str, str] | None:
    """The YAML between the `---` lines at the top of a page, and the text after it, or None."""
    page = page.replace("\r\n", "\n")
    match = _FRONT_MATTER.match(page)
    return None if match is None else (match[1], page[match.end() :])


def front_matter(page: str) -> dict[str, Any]:
    """The metadata of a card; empty if there are none or if they are invalid.

    Cards are other people's texts, so a damaged one is no reason to stop.
    """
    parts = split_front_matter(page) if len(page) <= SIZE_LIMIT else None
    try:
        data = load_yaml(parts[0]) if parts is not None else None
    except Failed:
        return {}
    return data if isinstance(data, dict) else {}


def hit_from_file(repo: str, page: Path) -> RepositoryHit:
    """A repository in a folder, described by its README.md."""
    if not page.is_file() or page.stat().st_size > SIZE_LIMIT:
        return RepositoryHit(repo)
    return hit_from_metadata(repo, front_matter(page.read_text("utf-8", "replace")))


def hit_from_metadata(
    repo: str, metadata: Mapping[str, Any], tags: tuple[str, ...] = ()
) -> RepositoryHit:
    """What a search shows of a repository; values of a wrong type are ignored.

    `tags` are those that the hub derives itself, which may name backbones, too.
    """
    all_tags = (*_texts(metadata.get("tags")), *tags)
    tagged = [match[1] for tag in all_tags if (match := _BASE_MODEL_TAG.fullmatch(tag))]
    bases = (*_texts(metadata.get("base_model")), *tagged)
    return RepositoryHit(
        repo,
        next(iter(_texts(metadata.get("library_name"))), None),
        tuple(dict.fromkeys(map(canonical_id, bases))),
        _texts(metadata.get("language")),
        next(iter(_texts(metadata.get("pipeline_tag"))), None),
        next(iter(_texts(metadata.get("license"))), None),
        _texts(metadata.get("datasets")),
        tags=tuple(dict.fromkeys(all_tags)),
    )


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for text in values if isinstance(text, str) and text)


def matches_words(hit: RepositoryHit, words: tuple[str, ...]) -> bool:
    """Whether every word occurs in the name or the metadata of a repository.

    >>> matches_words(RepositoryHit("user/sw-ner", languages=("sw",)), ("NER", "sw"))
    True
    """
    text = " ".join([hit.repo, *hit.backbones, *hit.languages, *hit.datasets, *hit.tags])
    text = f"{text} {hit.task or ''} {hit.library or ''}".casefold()
    return all(word.casefold() in text for word in words)
