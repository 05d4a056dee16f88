"""The catalogue: `hub_cards/<space>/<name>.md` names the adapter `space/name` for each backbone.

    ---
    title: Swahili language adapter
    languages: [sw]
    task: fill-mask
    datasets: [wikipedia]
    variants:
      FacebookAI/xlm-roberta-base:
        default:
          repo: AdapterHub/xlm-roberta-base-sw-wiki_pfeiffer
          revision: madx
          method: language(reduction=2, activation=relu)
          licence: apache-2.0
    ---
    A paragraph about it.

Spaces are folders, names are files. A card is read when you ask for it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.codes import AC103, AC106, AC107, AC403, AC421
from adaptcompose.diagnostics.diagnostic import Failed, Span, suggest
from adaptcompose.hub.readme import split_front_matter
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml
from adaptcompose.syntax.references import (
    canonical_id,
    is_repo_name,
    is_revision,
    is_safe_path,
    matches_glob,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE_LIMIT = 1_000_000
DEFAULT_VARIANT = "default"
NO_CARDS = "add cards in a folder hub_cards/, or write `user/repo`"

_SPACE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class Variant:
    """One adapter: a name of the catalogue on one backbone.

    `key` is what follows `@` in a reference to it; `backbone` is the canonical repository.
    """

    key: str
    backbone: str
    repo: str
    revision: str | None = None
    subfolder: str | None = None
    method: str | None = None
    licence: str | None = None

    def as_plain(self) -> dict[str, str]:
        """The entry in the card."""
        values = {name: getattr(self, name) for name in _ENTRY}
        return {name: value for name, value in values.items() if value is not None}


_ENTRY = [field.name for field in fields(Variant)][2:]


@dataclass(frozen=True)
class Card:
    """The card of `space/name`; printing a card is the inverse of reading it."""

    space: str
    name: str
    title: str
    variants: tuple[Variant, ...]
    languages: tuple[str, ...] = ()
    text: str = ""
    task: str | None = None
    datasets: tuple[str, ...] = ()

    @property
    def backbones(self) -> list[str]:
        return sorted({variant.backbone for variant in self.variants})

    def variant_keys(self, backbone: str) -> list[str]:
        """The keys of the variants for a backbone."""
        base = canonical_id(backbone)
        return [variant.key for variant in self.variants if variant.backbone == base]

    def find_variant(self, backbone: str, key: str = DEFAULT_VARIANT) -> Variant | None:
        wanted = (canonical_id(backbone), key)
        return next((v for v in self.variants if (v.backbone, v.key) == wanted), None)

    def __str__(self) -> str:
        entries: dict[str, dict[str, dict[str, str]]] = {}
        for variant in self.variants:
            entries.setdefault(variant.backbone, {})[variant.key] = variant.as_plain()
        head: dict[str, Any] = {"title": self.title}
        if self.languages:
            head["languages"] = list(self.languages)
        if self.task:
            head["task"] = self.task
        if self.datasets:
            head["datasets"] = list(self.datasets)
        return f"---\n{dump_yaml(head | {'variants': entries})}---\n\n{self.text}\n"


class Catalogue:
    """The cards of one or more folders.

    If two folders describe the same name for the same backbone, the later folder wins.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self.roots = tuple(Path(root) for root in roots)
        self._read: dict[tuple[str, str], Card] = {}
        self._names: dict[str, list[str]] = {}
        self._spaces: list[str] | None = None

    @classmethod
    def open(cls, *roots: Path) -> Catalogue:
        """The catalogue of some folders, of which the last wins; missing folders count as empty."""
        return cls(roots)

    def spaces(self) -> list[str]:
        if self._spaces is None:
            folders = (path for root in self.roots if root.is_dir() for path in root.iterdir())
            spaces = (path for path in folders if _SPACE.fullmatch(path.name))
            self._spaces = sorted({path.name for path in spaces if path.is_dir()})
        return self._spaces

    def names(self, space: str) -> list[str]:
        """The names of a space, sorted; none if there is no such space."""
        if not _SPACE.fullmatch(space):
            return []
        if space not in self._names:
            pages = (path for root in self.roots for path in (root / space).glob("*.md"))
            cards = (path for path in pages if _NAME.fullmatch(path.stem))
            self._names[space] = sorted({path.stem for path in cards if path.is_file()})
        return self._names[space]

    def card(self, space: str, name: str, span: Span | None = None) -> Card:
        """One card; raises Failed with AC106 for an unknown space, AC103 for an unknown name."""
        if (space, name) not in self._read:
            cards = [_read_card(path, space, name) for path in self._paths(space, name, span)]
            self._read[space, name] = functools.reduce(_merge, cards)
        return self._read[space, name]

    def _paths(self, space: str, name: str, span: Span | None) -> list[Path]:
        """The files of a card, of which the first wins."""
        if name in self.names(space):
            paths = [root / space / f"{name}.md" for root in reversed(self.roots)]
            return [path for path in paths if path.is_file()]
        if (spaces := self.spaces()) and space not in spaces:
            raise Failed(AC106.at(span, space=space, known=", ".join(spaces)))
        near = suggest(name, self.names(space)) or suggest(f"{space}/{name}", self._all())
        raise Failed(AC103.at(span, name=f"{space}/{name}", help=near))

    def _all(self) -> list[str]:
        return [f"{space}/{name}" for space in self.spaces() for name in self.names(space)]

    def match(
        self, pattern: str, backbone: str, key: str = DEFAULT_VARIANT, span: Span | None = None
    ) -> list[tuple[str, Variant]]:
        """The names that match `space/glob` and have a variant `key` for a backbone, sorted."""
        space, _, glob = pattern.partition("/")
        if space not in self.spaces():
            near = None if self.spaces() else NO_CARDS
            raise Failed(AC106.at(span, space=space, known=", ".join(self.spaces()), help=near))
        names = [name for name in self.names(space) if matches_glob(glob, name)]
        variants = ((name, self.card(space, name).find_variant(backbone, key)) for name in names)
        return [(name, variant) for name, variant in variants if variant is not None]

    def resolve_variant(
        self,
        space: str,
        name: str,
        backbone: str | None,
        key: str = DEFAULT_VARIANT,
        *,
        span: Span | None = None,
    ) -> Variant:
        """The adapter that a name means on a backbone.

        Raises Failed with AC103 for an unknown name or key, AC106 for an unknown space, AC107
        without a backbone, AC403 if there is no adapter for the backbone.
        """
        card = self.card(space, name, span)
        label = f"{space}/{name}"
        if backbone is None:
            known = ", ".join(card.backbones)
            raise Failed(AC107.at(span, name=label, known=known, example=card.backbones[0]))
        if (variant := card.find_variant(backbone, key)) is not None:
            return variant
        if keys := card.variant_keys(backbone):
            near = suggest(key, keys) or f"use one of {', '.join(f'{label}@{one}' for one in keys)}"
            raise Failed(AC103.at(span, name=f"{label}@{key}", help=near))
        bases = " and ".join(card.backbones)
        raise Failed(AC403.at(span, name=label, base=bases, backbone=canonical_id(backbone)))


def _merge(first: Card, second: Card) -> Card:
    """The first card, extended by the variants of the second for backbones that it lacks."""
    others = tuple(v for v in second.variants if v.backbone not in first.backbones)
    return replace(first, variants=(*first.variants, *others))


def _read_card(path: Path, space: str, name: str) -> Card:
    label = f"{space}/{name}"
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise _CardError("it is larger than 1 MB")
        parts = split_front_matter(path.read_text("utf-8"))
        if parts is None:
            raise _CardError("it does not start with YAML front matter between `---` lines")
        head = _mapping(load_yaml(parts[0], str(path)), _KEYS, "the card")
        variants = tuple(_variants(_mapping(head.get("variants"), None, "`variants`")))
        title = _text(head.get("title"), "`title`")
        languages = _list(head.get("languages", []), "languages")
        datasets = _list(head.get("datasets", []), "datasets")
        task = _text(head["task"], "`task`") if "task" in head else None
    except OSError as error:
        raise Failed(AC421.at(name=label, why=error.strerror or str(error))) from None
    except (_CardError, UnicodeDecodeError) as error:
        why = "it is not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Failed(AC421.at(name=label, why=why)) from None
    return Card(space, name, title, variants, languages, parts[1].strip(), task, datasets)


_KEYS = {"title", "languages", "task", "datasets", "variants"}


class _CardError(Exception):
    """A card is invalid; the message is the reason."""


def _mapping(value: Any, keys: set[str] | None, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _CardError(f"{what} must be a mapping")
    for key in value:
        if keys is not None and key not in keys:
            near = suggest(key, keys) or f"use one of {', '.join(sorted(keys))}"
            raise _CardError(f"{what} has no key `{key}` ({near})")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise _CardError(f"{what} must be a text")
    return value


def _list(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _CardError(f"`{what}` must be a list")
    return tuple(_text(item, f"one of `{what}`") for item in value)


def _variants(entries: dict[str, Any]) -> Iterable[Variant]:
    for backbone, variants in entries.items():
        if not is_repo_name(backbone):
            raise _CardError(f"`{backbone}` is not the name of a model on the Hub")
        for key, entry in _mapping(variants, None, f"`{backbone}`").items():
            if not _NAME.fullmatch(key):
                raise _CardError(f"`{key}` is not a valid name for a variant")
            yield _variant(key, canonical_id(backbone), entry)


def _variant(key: str, backbone: str, entry: Any) -> Variant:
    what = f"variant `{key}` of {backbone}"
    fields_ = {
        name: _text(value, f"`{name}` of {what}")
        for name, value in _mapping(entry, set(_ENTRY), what).items()
    }
    for name, is_fine in _CHECKS.items():
        if name in fields_ and not is_fine(fields_[name]):
            raise _CardError(f"`{fields_[name]}` is not a valid {name}, in {what}")
    if "repo" not in fields_:
        raise _CardError(f"{what} has no `repo`")
    return Variant(key, backbone, **fields_)


_CHECKS = {"repo": is_repo_name, "revision": is_revision, "subfolder": is_safe_path}
