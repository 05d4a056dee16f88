"""The real client of the Hub against a loopback server; the public Hub is never asked."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.huggingface import HuggingFaceStore
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.store import FileRecord

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Fault, Hub, blob, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = "user/ner"
FILES = {"config.json": b"{}", "sub/weights.bin": b"weights"}


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def store(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HuggingFaceStore]:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server = serve(hub)
    opened = open_store(f"http://127.0.0.1:{server.server_port}", tmp_path)
    assert isinstance(opened, HuggingFaceStore)
    yield opened
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def fails(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(Failed) as failure:
        yield
    (found,) = failure.value.diagnostics
    assert found.code == code, found
    for word in words:
        assert word in str(found)


def test_resolve_list_and_fetch(store: HuggingFaceStore, hub: Hub) -> None:
    first = hub.add(REPO, {"config.json": b"[]"})
    second = hub.add(REPO, FILES)
    hub.branches[REPO, "old"] = first
    for wanted, meaning in [(None, second), ("main", second), ("old", first), (first[:8], first)]:
        assert store.resolve(REPO, wanted) == meaning
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert store.list_files(REPO) == {
        "config.json": FileRecord(2, blob=blob(b"{}")),
        "sub/weights.bin": FileRecord(7, sha256=sha256),
    }
    folder = store.fetch(REPO, second)
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert (store.fetch(REPO, "old") / "config.json").read_bytes() == b"[]"


def test_only_what_is_asked_for_is_fetched(store: HuggingFaceStore, hub: Hub) -> None:
    hub.add(REPO, FILES)
    folder = store.fetch(REPO, paths=["config.json"])
    assert not (folder / "sub").exists()
    assert not any("resolve" in line and "weights" in line for line in hub.requests)
    with fails("AC413", "the file does not exist"):
        store.fetch(REPO, paths=["other"])


def test_what_a_fetch_would_bring_is_known_before(store: HuggingFaceStore, hub: Hub) -> None:
    revision = hub.add(REPO, FILES)
    assert store.uncached_files(REPO, revision, FILES) == sorted(FILES)
    store.fetch(REPO, revision, ["config.json"])
    assert store.uncached_files(REPO, revision, FILES) == ["sub/weights.bin"]


def test_a_pinned_revision_in_the_cache_needs_no_network(
    store: HuggingFaceStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add(REPO, FILES)
    store.fetch(REPO, sha)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    folder = store.fetch(REPO, sha)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert len(hub.requests) == asked
    with fails("AC405", REPO):
        store.resolve(REPO)
    with fails("AC405", "user/other"):
        store.fetch("user/other", "0" * 40)


@pytest.mark.parametrize(
    ("path", "data"), [("config.json", b"[]"), ("sub/weights.bin", b"Weights")]
)
def test_a_changed_file_is_noticed(
    store: HuggingFaceStore, hub: Hub, path: str, data: bytes
) -> None:
    hub.add(REPO, FILES)
    hub.changed[path] = data
    with fails("AC411", path, REPO):
        store.fetch(REPO)
    hub.changed.clear()
    store.fetch(REPO)


def test_what_does_not_exist(store: HuggingFaceStore, hub: Hub) -> None:
    hub.add(REPO, FILES)
    hub.gated.add("user/gated")
    with fails("AC401", "user/other"):
        store.resolve("user/other")
    with fails("AC402", "v9", "main"):
        store.resolve(REPO, "v9")
    with fails("AC402", "0000000"):
        store.resolve(REPO, "0000000")
    with fails("AC404", "user/gated", "accept the terms"):
        store.resolve("user/gated")
    with fails("AC420"):
        store.resolve("user/../x")


def test_names_that_leave_the_folder(store: HuggingFaceStore, hub: Hub) -> None:
    hub.add(REPO, {"../x": b""})
    with fails("AC413", "not an allowed file name"):
        store.fetch(REPO)


def test_a_server_that_is_not_there(
    store: HuggingFaceStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = HuggingFaceStore("http://127.0.0.1:9")
    with fails("AC419", "127.0.0.1:9"):
        nowhere.resolve(REPO)
    with fails("AC415"):
        nowhere.commit(REPO, {"a": b""}, message="")


def test_globs(store: HuggingFaceStore, hub: Hub) -> None:
    for name in ("bert-pf-rte", "bert-pf-mnli", "roberta-pf-rte"):
        hub.add(f"AdapterHub/{name}", {})
    found = store.list_repositories("AdapterHub/bert-pf-{rte,mnli,x}")
    assert found == ["AdapterHub/bert-pf-mnli", "AdapterHub/bert-pf-rte"]
    with fails("AC420"):
        store.list_repositories("*")


def test_commit(store: HuggingFaceStore, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"new")
    first = store.commit(REPO, {"a/w.bin": tmp_path / "w", "b": b"1"}, message="one")
    second = store.commit(REPO, {"b": b"2"}, message="two", delete=["a/w.bin", "nothing"])
    assert store.resolve(REPO) == second
    assert sorted(store.list_files(REPO, first)) == [".gitattributes", "a/w.bin", "b"]
    folder = store.fetch(REPO)
    assert (folder / "b").read_bytes() == b"2"
    assert list(store.list_files(REPO)) == [".gitattributes", "b"]


def test_a_refused_commit_changes_nothing(store: HuggingFaceStore, hub: Hub) -> None:
    sha = hub.add(REPO, FILES)
    for status, remedy in (
        (507, "try again; the hub has not been changed"),
        (403, "a token that has write access"),
    ):
        hub.commits_refused = status
        hub.faults = [Fault("POST .*/commit/", status)]
        with fails("AC415", REPO, remedy):
            store.commit(REPO, {"config.json": b"[]"}, message="new")
    assert store.resolve(REPO) == sha


def test_a_token_stays_on_this_machine(
    store: HuggingFaceStore, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HuggingFaceStore("http://example.org")._api.token is False
    assert HuggingFaceStore("https://example.org")._api.token is None
    assert HuggingFaceStore()._api.token is None
