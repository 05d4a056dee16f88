"""docs/formats.md names all that is read, as the code has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptcompose.backbones.layout import registered_layouts
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD, WEIGHTS
from adaptcompose.formats.peft_settings import READERS
from adaptcompose.formats.transformers_heads import STATIC_HEADS
from adaptcompose.runtime.heads import _SLOTS

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
READ, _, REST = PAGE.partition("**Not read.**")


@pytest.mark.parametrize("name", [*READERS, *registered_layouts(), ADAPTER, HEAD, FUSION])
def test_what_is_read_is_named(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sum(WEIGHTS.values(), ()))
def test_files_are_named(name: str) -> None:
    assert f"`{name}`" in READ


@pytest.mark.parametrize(
    "kind", sorted({static.kind for static in STATIC_HEADS.values()} | set(_SLOTS))
)
def test_heads_run_or_are_refused_as_the_page_says(kind: str) -> None:
    assert (f"`{kind}`" in READ) == (kind in _SLOTS)
    assert (f"`{kind}`" in REST.split("\n\n")[0]) == (kind not in _SLOTS)
