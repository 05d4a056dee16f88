"""What tests of whole runs share, and what random tests report."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.sampling import TRIED
from tests.workshop import Workshop, make_workshop

collect_ignore = [
    "plugin",  # a package of its own: its words are no words of this process
    "hub/in_adapters.py",  # these run where the other libraries are
    "hub/in_peft.py",
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """How much a random test has tried, and in which time, goes into its report."""
    TRIED.clear()
    started = time.process_time()
    try:
        return (yield)
    finally:
        if TRIED:
            item.user_properties.append(("tried", dict(TRIED.most_common())))
            item.user_properties.append(("seconds", time.process_time() - started))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Made once; a test that writes takes `shop`."""
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def shop(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A workshop of the test's own."""
    return workshop.copy(tmp_path / "shop")
