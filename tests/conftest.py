"""What tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workshop import Workshop, make_workshop

collect_ignore = [
    "plugin",  # a package of its own: its words are no words of this process
    "hub/in_adapters.py",  # these run where the other libraries are
    "hub/in_peft.py",
]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Made once; a test that writes takes `shop`."""
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def shop(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A workshop of the test's own."""
    return workshop.copy(tmp_path / "shop")
