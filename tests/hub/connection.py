"""The client of this process, connected to a loopback Hub instead of the public one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Hub, serve


@contextlib.contextmanager
def connected(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """What HF_ENDPOINT and HF_HOME do, which the client reads when it is imported."""
    server = serve(hub)
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    paths = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + paths)
    use_home(home / "home", monkeypatch)
    yield hub
    server.shutdown()
    server.server_close()


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with nothing in it."""
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
