"""What goes wrong between here and the Hub: one coded message, and nothing half done anywhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub import huggingface
from adaptcompose.hub.huggingface import HuggingFaceStore

sys.path.insert(0, str(Path(__file__).parent))
from connection import connected
from hub_server import Fault, Files, Hub, sha256

REPO = "user/ner"
OLD: Files = {"README.md": b"# old", "config.json": b"{}", "sub/weights.bin": b"weights" * 1000}
NEW: dict[str, Path | bytes] = {"README.md": b"# new", "sub/weights.bin": b"WEIGHTS" * 1000}

INFO, TREE = "GET /api/models/user/ner$", "GET .*/tree/"
HEAD, GET = "HEAD .*/resolve/", "GET .*/resolve/"
CARD, BEFORE, COMMIT = "POST .*/validate-yaml", "POST .*/preupload/", "POST .*/commit/"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's waits between its attempts, which are left out here."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.3)
    monkeypatch.setattr(huggingface, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(huggingface, "WRITE_TIMEOUT_FACTOR", 1)
    return found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with connected(Hub(), tmp_path, monkeypatch) as hub:
        hub.add(REPO, dict(OLD))
        yield hub


@contextlib.contextmanager
def fails(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(Failed) as failure:
        yield
    (found,) = failure.value.diagnostics
    assert found.code == code, found
    for word in words:
        assert word in str(found)


def held(store: HuggingFaceStore) -> Files:
    folder = store.fetch(REPO)
    return {path: (folder / path).read_bytes() for path in store.list_files(REPO)}


@pytest.mark.parametrize("where", [INFO, TREE, HEAD, GET])
@pytest.mark.parametrize(
    ("how", "code"),
    [(401, "AC404"), (403, "AC404"), (404, "AC419"), (429, "AC419"), (500, "AC419"),
     ("drop", "AC419"), ("hang", "AC419")],
)  # fmt: skip
def test_a_fetch_that_fails(hub: Hub, where: str, how: int | str, code: str) -> None:
    store = HuggingFaceStore()
    hub.faults = [Fault(where, how)]
    with fails(code):
        store.fetch(REPO)
    hub.faults = []
    assert held(store) == OLD


@pytest.mark.parametrize("where", [INFO, TREE, HEAD, GET])
def test_a_repository_that_goes_away(hub: Hub, where: str) -> None:
    hub.faults = [Fault(where, 404, headers={"X-Error-Code": "RepoNotFound"})]
    with fails("AC401", REPO):
        HuggingFaceStore().fetch(REPO)


def test_a_body_that_is_cut_is_fetched_again(hub: Hub) -> None:
    hub.faults = [Fault(GET, "cut", times=2)]
    assert held(HuggingFaceStore()) == OLD
    hub.add(REPO, OLD | {"more.bin": b"more" * 1000})
    hub.faults = [Fault(GET, "cut")]
    with fails("AC419"):
        HuggingFaceStore().fetch(REPO)


@pytest.mark.parametrize(
    ("data", "code"), [(b"weights", "AC413"), (b"WEIGHTS" * 1000, "AC411"), (b"", "AC413")]
)
def test_a_hub_that_serves_other_bytes(hub: Hub, data: bytes, code: str) -> None:
    hub.changed["sub/weights.bin"] = data
    store = HuggingFaceStore()
    with fails(code, "sub/weights.bin", REPO):
        store.fetch(REPO)
    hub.changed.clear()
    assert held(store) == OLD


def test_a_hub_that_is_busy_says_when_it_is_not(hub: Hub, waits: list[float]) -> None:
    busy = {"Retry-After": "7"}
    hub.faults = [Fault(TREE, 429, times=1, headers=busy)]
    assert held(HuggingFaceStore()) == OLD
    assert max(waits) >= 7, "the client waited as long as it was told to"
    hub.faults = [Fault(INFO, 429, headers=busy)]
    with fails("AC419", "try again in 7 s"):
        HuggingFaceStore().fetch(REPO)
    hub.faults = [Fault(INFO, 429, headers={"ratelimit": '"api";r=0;t=30'})]
    with fails("AC419", "try again in 30 s"):
        HuggingFaceStore().fetch(REPO)


def test_a_token_that_was_revoked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.users, hub.private = {"good": "write"}, {REPO}
    monkeypatch.setenv("HF_TOKEN", "good")
    store = HuggingFaceStore()
    assert held(store) == OLD
    hub.users = {}
    hub.users["other"] = "write"
    head = hub.branches[REPO, "main"]
    with fails("AC430", "hf auth login"):
        store.fetch(REPO)
    with fails("AC430", "hf auth login"):
        store.commit(REPO, NEW, message="new")
    assert hub.branches[REPO, "main"] == head
    assert all(held is None or "good" in held for held in hub.tokens)


def test_without_a_token_what_is_private_is_not_there(hub: Hub) -> None:
    hub.users, hub.private = {"good": "write"}, {REPO}
    with fails("AC401", "if the repository is private, run `hf auth login`"):
        HuggingFaceStore().fetch(REPO)


def test_a_repository_that_changes_in_between(hub: Hub) -> None:
    hub.faults = [Fault(HEAD, times=1, then=lambda: hub.add(REPO, {"config.json": b"[]"}))]
    store = HuggingFaceStore()
    folder = store.fetch(REPO)
    assert {path: (folder / path).read_bytes() for path in OLD} == OLD
    assert held(store) == {"config.json": b"[]"}


def test_a_commit_that_is_gone_by_the_time_it_is_fetched(hub: Hub) -> None:
    def squash() -> None:
        hub.repos[REPO] = []
        hub.add(REPO, {"config.json": b"[]"})

    hub.faults = [Fault(HEAD, times=1, then=squash)]
    with fails("AC402", REPO):
        HuggingFaceStore().fetch(REPO)


@pytest.mark.parametrize("how", [500, "drop", "hang"])
def test_a_branch_that_is_not_there_and_nobody_says_which_are(hub: Hub, how: int | str) -> None:
    hub.faults = [Fault("GET .*/refs", how)]
    with fails("AC402", "no revision `v9`", "main"):
        HuggingFaceStore().resolve(REPO, "v9")


def test_offline_every_missing_file_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HuggingFaceStore()
    sha = store.resolve(REPO)
    store.fetch(REPO, sha, ["config.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with fails("AC405", "README.md, sub/weights.bin", f"hf download {REPO} README.md sub/weig"):
        store.fetch(REPO, sha)
    with fails("AC405", "README.md"):
        store.fetch(REPO, sha, ["config.json", "README.md"])
    assert (store.fetch(REPO, None, ["config.json"]) / "config.json").read_bytes() == b"{}"


def test_offline_without_a_listing_the_cache_tells_what_a_file_must_be(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HuggingFaceStore()
    sha = store.resolve(REPO)
    folder = store.fetch(REPO, sha)
    for listing in (tmp_path / "home/adaptcompose").rglob("*.json"):
        listing.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert store.fetch(REPO, sha, list(OLD)) == folder
    (folder / "config.json").resolve().write_bytes(b"[]")
    with fails("AC411", "config.json"):
        store.fetch(REPO, sha, list(OLD))


@pytest.mark.parametrize("where", [INFO, TREE, CARD, BEFORE, COMMIT])
@pytest.mark.parametrize(
    ("how", "code"),
    [(401, "AC415"), (403, "AC415"), (404, "AC415"), (409, "AC431"), (412, "AC431"),
     (429, "AC415"), (500, "AC415"), ("drop", "AC415"), ("hang", "AC415")],
)  # fmt: skip
def test_a_push_that_fails_changes_nothing(hub: Hub, where: str, how: int | str, code: str) -> None:
    store = HuggingFaceStore()
    before, branches = hub.files(REPO), dict(hub.branches)
    hub.faults = [Fault(where, how)]
    with fails(code, REPO):
        store.commit(REPO, NEW, message="new", delete=["config.json"])
    assert hub.files(REPO) == before
    assert hub.branches == branches
    hub.faults = []
    store.commit(REPO, NEW, message="new", delete=["config.json"])
    assert held(store) == NEW


def test_a_connection_that_breaks_in_the_middle_of_a_commit(hub: Hub) -> None:
    hub.faults = [Fault(COMMIT, "middle", times=1)]
    store, large = HuggingFaceStore(), {"sub/weights.bin": bytes(3_000_000)}
    with fails("AC415", REPO):
        store.commit(REPO, large, message="new")
    assert hub.files(REPO) == OLD
    store.commit(REPO, large, message="new")
    assert held(store) == OLD | large


@pytest.mark.parametrize("how", [500, "drop", "hang"])
def test_a_branch_of_a_push_that_failed_is_not_left_behind(hub: Hub, how: int | str) -> None:
    hub.faults = [Fault(COMMIT, how)]
    with fails("AC415", REPO):
        HuggingFaceStore().commit(REPO, NEW, message="new", branch="next")
    assert (REPO, "next") not in hub.branches


@pytest.mark.parametrize("branch", ["main", "next"])
def test_a_commit_whose_answer_was_lost_is_found(hub: Hub, branch: str) -> None:
    hub.faults = [Fault(COMMIT, "late", times=1)]
    made = HuggingFaceStore().commit(
        REPO, NEW, message="new", delete=["config.json"], branch=branch
    )
    assert hub.branches[REPO, branch] == made
    assert hub.files(REPO, branch) == NEW


def test_somebody_else_was_faster(hub: Hub) -> None:
    theirs = OLD | {"theirs": b"1"}
    hub.faults = [Fault(BEFORE, times=1, then=lambda: hub.add(REPO, theirs))]
    with fails("AC431", "push again"):
        HuggingFaceStore().commit(REPO, NEW, message="new")
    assert hub.files(REPO) == theirs


def test_what_arrived_is_verified(hub: Hub) -> None:
    def tamper() -> None:
        hub.files(REPO)["README.md"] = b"# not"

    store = HuggingFaceStore()
    hub.faults = [Fault(COMMIT, times=1), Fault(TREE, times=1), Fault(TREE, then=tamper)]
    with fails("AC411", "README.md", "push again"):
        store.commit(REPO, NEW, message="new")


@pytest.mark.filterwarnings("ignore:Use 'content")  # the client's own way of sending
def test_an_interrupted_push_goes_on_where_it_was(hub: Hub) -> None:
    hub.lfs = True
    files: dict[str, Path | bytes] = {"a.bin": b"a" * 9000, "b.bin": b"b" * 9000}
    hub.faults = [Fault(f"PUT /lfs/{sha256(b'b' * 9000)}", 500)]
    store = HuggingFaceStore()
    with fails("AC415", REPO):
        store.commit(REPO, files, message="new")
    assert hub.files(REPO) == OLD
    hub.faults, done = [], len(hub.requests)
    store.commit(REPO, files, message="new")
    assert [line for line in hub.requests[done:] if line.startswith("PUT")] == [
        f"PUT /lfs/{sha256(b'b' * 9000)}?signed=1"
    ]
    assert held(store) == OLD | files


def test_pushing_the_same_again_makes_no_commit(hub: Hub) -> None:
    store = HuggingFaceStore()
    first = store.commit(REPO, NEW, message="new")
    assert store.commit(REPO, NEW, message="again") == first


def test_a_pull_request_leaves_main_alone(hub: Hub) -> None:
    store = HuggingFaceStore()
    proposal = store.open_pull_request(REPO, NEW, message="new", delete=["config.json"])
    assert (proposal.number, proposal.url.rpartition("/")[0]) == (
        1, f"{constants.ENDPOINT}/{REPO}/discussions",
    )  # fmt: skip
    assert hub.files(REPO) == OLD
    assert store.resolve(REPO, "refs/pr/1") == proposal.revision
    folder = store.fetch(REPO, "refs/pr/1")
    assert (folder / "README.md").read_bytes() == b"# new"
    hub.merge(REPO, 1)
    assert held(store) == NEW
    hub.faults = [Fault(COMMIT, 403)]
    with fails("AC415", "a token that has write access"):
        store.open_pull_request(REPO, {"README.md": b"# newer"}, message="new")


def test_a_card_that_the_hub_refuses(hub: Hub) -> None:
    with fails("AC415", "must be a string"):
        HuggingFaceStore().commit(REPO, {"README.md": b"---\ntags: [null]\n---\n"}, message="x")
    assert hub.files(REPO) == OLD


def test_who_may_see_a_new_repository(hub: Hub) -> None:
    store = HuggingFaceStore()
    for name, private in (("a", True), ("b", False)):
        store.commit(f"user/{name}", {"x": b"1"}, message="new", private=private)
    assert [store.is_public(f"user/{name}") for name in "ab"] == [False, True]


def test_search_reads_every_page_and_asks_by_language(hub: Hub) -> None:
    hub.page = 2
    for number in range(5):
        language = "sw" if number % 2 else "en"
        page = f"---\ntags: [adapter-transformers]\nlanguage: {language}\n---\n".encode()
        hub.add(f"user/tagger-{number}", {"README.md": page})
    store = HuggingFaceStore()
    assert [one.repo for one in store.search(["tagger"])] == [f"user/tagger-{n}" for n in range(5)]
    assert [one.repo for one in store.search(["tagger"], language="sw")] == [
        "user/tagger-1", "user/tagger-3"
    ]  # fmt: skip
    assert store.search(["tagger", "nothing"]) == []
