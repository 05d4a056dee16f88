from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.folder import FolderStore
from adaptcompose.hub.opening import open_store
from adaptcompose.hub.store import file_record, file_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REPO = "demo/ner"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of commits: the disk need not turn for each."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "hub")


@contextlib.contextmanager
def fails(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(Failed) as failure:
        yield
    (found,) = failure.value.diagnostics
    assert found.code == code, found
    for word in words:
        assert word in str(found)


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in file_records(folder)}


def test_revisions_keep_what_they_had(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    first = store.commit(REPO, {"a/w.bin": tmp_path / "w.bin", "b": b"1"}, message="one")
    second = store.commit(REPO, {"b": b"2", "c": b"3"}, message="two")
    third = store.commit(REPO, {}, delete=["c", "nothing"], message="three")
    assert contents(store.fetch(REPO, first)) == {"a/w.bin": b"weights", "b": b"1"}
    assert contents(store.fetch(REPO, second)) == {"a/w.bin": b"weights", "b": b"2", "c": b"3"}
    assert contents(store.fetch(REPO)) == {"a/w.bin": b"weights", "b": b"2"}
    assert store.history(REPO) == [third, second, first]
    assert store.list_repositories() == [REPO]
    assert store.list_repositories("other/*") == []
    unchanged = [store.fetch(REPO, name) / "a/w.bin" for name in (first, third)]
    assert unchanged[0].samefile(unchanged[1])


def test_the_record_of_a_file(store: FolderStore) -> None:
    store.commit(REPO, {"a": b"abc"}, message="")
    folder = store.fetch(REPO)
    assert store.list_files(REPO) == {"a": file_record(folder / "a")} == file_records(folder)
    assert store.list_files(REPO)["a"].size == 3
    assert str(store.list_files(REPO)["a"].sha256).startswith("ba7816bf")


def test_a_revision_is_named_after_its_content(tmp_path: Path) -> None:
    names = []
    for hub in ("x", "y"):
        store = FolderStore(tmp_path / hub)
        store.commit(REPO, {"b": b"1", "a": b"2"}, message=hub)
        names.append(store.commit(REPO, {"a": b"3"}, message=f"again {hub}"))
    assert names[0] == names[1]
    assert store.commit(REPO, {"a": b"3"}, message="nothing new") == names[0]
    back = store.commit(REPO, {"a": b"2"}, message="back")
    assert len(store.history(REPO)) == 3
    assert back not in names


def test_names_of_revisions(store: FolderStore) -> None:
    first = store.commit(REPO, {"a": b"1"}, message="")
    side = store.commit(REPO, {"a": b"2"}, message="", branch="feature/x")
    second = store.commit(REPO, {"a": b"3"}, message="")
    store.tag(REPO, "v1", first)
    for wanted, meaning in [
        (None, second), ("main", second), ("feature/x", side), ("v1", first),
        (first, first), (first[:7], first), (side[:39], side),
    ]:  # fmt: skip
        assert store.resolve(REPO, wanted) == meaning
    for wanted in ("v9", first[:6], "0" * 40, "..", "../main", "refs/pr/3"):
        with fails("AC402", "main"):
            store.resolve(REPO, wanted)


def test_an_ambiguous_prefix(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(REPO, {"a": b"1"}, message="")
    known = ["a" * 39 + "1", "a" * 39 + "2"]
    monkeypatch.setattr(store, "_known_revisions", lambda repo: known)
    with fails("AC402", "matches 2 revisions", "write more digits"):
        store.resolve(REPO, "a" * 10)


def test_what_does_not_exist(store: FolderStore, tmp_path: Path) -> None:
    with fails("AC412"):
        store.resolve(REPO)
    store.commit(REPO, {"a": b"1"}, message="")
    with fails("AC401", "did you mean `demo/ner`?"):
        store.fetch("demo/nar")
    with fails("AC413", "the file does not exist"):
        store.fetch(REPO, paths=["b"])
    for name in ("ner", "../x", "a/b/c", "a/.."):
        with fails("AC420"):
            store.resolve(name)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a//b", "a/../b", ".", "", "a\\b", "C:x", "a\0b", ".git/config", "a\nb"]
)
def test_names_that_leave_the_folder(store: FolderStore, name: str) -> None:
    with fails("AC413", "not an allowed file name"):
        store.commit(REPO, {name: b""}, message="")
    assert not store.list_repositories()


@pytest.mark.parametrize("names", [("a", "A"), ("a", "a/b"), ("x/B", "X/b")])
def test_names_that_exclude_each_other(store: FolderStore, names: tuple[str, str]) -> None:
    with fails("AC413"):
        store.commit(REPO, dict.fromkeys(names, b""), message="")


def test_damage_is_found(store: FolderStore, tmp_path: Path) -> None:
    revision = store.commit(REPO, {"w.bin": b"weights", "x": b""}, message="")
    folder = store.fetch(REPO)
    weights, manifest = folder / "w.bin", folder.with_suffix(".json")
    label = f"{REPO}@{revision[:7]}"

    def damaged(path: Path, content: bytes, code: str, *words: str) -> None:
        kept = path.read_bytes()
        path.write_bytes(content)
        with fails(code, *words):
            store.fetch(REPO)
        path.write_bytes(kept)

    damaged(weights, b"Weights", "AC411", "w.bin", label)
    damaged(weights, b"weights+", "AC411", "w.bin", label)
    damaged(weights, b"weig", "AC413", "w.bin", label, "cut off")
    text = manifest.read_text()
    damaged(
        manifest, text.replace("weights", "x").replace('"size": 7', '"size": 8').encode(), "AC411"
    )
    for content in (b"", b"[]", b"{", b"[" * 9999, b'{"parent": 1, "files": {}, "message": ""}'):
        damaged(manifest, content, "AC413", "manifest is damaged", label)
    outside = json.loads(text)
    outside["files"]["../../../x"] = {"size": 0, "sha256": "0"}
    damaged(manifest, json.dumps(outside).encode(), "AC411")
    damaged(store.root / REPO / "refs/main", b"../../x", "AC413")
    weights.unlink()
    with fails("AC413", "missing", "w.bin"):
        store.fetch(REPO)
    store.fetch(REPO, paths=["x"])
    (tmp_path / "weights").write_bytes(b"weights")
    weights.symlink_to(tmp_path / "weights")
    with fails("AC413", "symbolic link", "w.bin"):
        store.fetch(REPO)


def test_a_file_slipped_in_beside_the_others(store: FolderStore) -> None:
    store.commit(REPO, {"w.bin": b"weights"}, message="")
    (store.fetch(REPO) / "w.safetensors").write_bytes(b"other weights")
    with fails("AC413", "w.safetensors", "was added to the folder after publishing"):
        store.fetch(REPO, paths=["w.bin"])


def test_a_damaged_file_is_not_carried_on(store: FolderStore) -> None:
    store.commit(REPO, {"a": b"1", "b": b"2"}, message="")
    (store.fetch(REPO) / "a").write_bytes(b"x")
    with fails("AC411"):
        store.commit(REPO, {"b": b"3"}, message="")
    store.commit(REPO, {"a": b"1"}, message="the damaged file anew", delete=["b"])
    assert contents(store.fetch(REPO)) == {"a": b"1"}


FAULTS: dict[str, Callable[[], None]] = {}


def _full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _interrupt() -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def fault(step: int, happen: Callable[[], None], after: bool = False) -> Iterator[list[str]]:
    """Let something happen before (or after) the step-th call that touches the disk."""
    calls: list[str] = []

    def due(name: str, late: bool) -> None:
        if not late:
            calls.append(name)
        if late == after and len(calls) == step:
            calls.append("fault")
            happen()

    def wrap(name: str, function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            due(name, False)
            result = function(*arguments, **options)
            due(name, True)
            return result

        return wrapped

    class Disk(io.BufferedWriter):
        def write(self, data: Any) -> int:
            due("write", False)
            count = super().write(data)
            due("write", True)
            return count

    opened = io.open

    def open_file(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "x" in mode or "w" in mode:
            due("open", False)
            return Disk(io.FileIO(path, mode.replace("b", "")))
        return opened(path, mode, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "rename", "link", "mkdir", "unlink", "rmdir", "open"):
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        patch.setattr(io, "open", open_file)
        yield calls


OLD = {"keep/a": b"1", "change": b"2", "go": b"3"}
NEW = {"keep/a": b"1", "change": b"4", "new/b": b"5"}


def publish(store: FolderStore) -> str:
    new = {"change": NEW["change"], "new/b": NEW["new/b"]}
    return store.commit(REPO, new, delete=["go"], message="new")


def steps(folder: Path) -> int:
    store = FolderStore(folder)
    store.commit(REPO, OLD, message="old")
    with fault(-1, _full_disk) as calls:
        publish(store)
    return len(calls)


def assert_whole(store: FolderStore, old: str, new: str) -> str:
    """The hub is at one of two revisions, complete, and publishing again works."""
    head = store.resolve(REPO)
    assert head in (old, new)
    assert contents(store.fetch(REPO)) == (OLD if head == old else NEW)
    assert contents(store.fetch(REPO, old)) == OLD
    assert store.history(REPO) == ([old] if head == old else [new, old])
    if head == old:
        with fails("AC402"):
            store.resolve(REPO, new[:12])
    assert publish(store) == new
    assert contents(store.fetch(REPO)) == NEW
    assert not list(store.root.rglob(".*.tmp"))
    return head


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("happen", [_full_disk, _interrupt], ids=["full disk", "interrupt"])
def test_whatever_fails_the_hub_stays_whole(
    tmp_path: Path, happen: Callable[[], None], after: bool
) -> None:
    total = steps(tmp_path / "probe")
    assert total > 25
    heads = []
    for step in range(1, total + 1):
        store = FolderStore(tmp_path / str(step))
        old = store.commit(REPO, OLD, message="old")
        raised = None
        try:
            with fault(step, happen, after):
                publish(store)
        except (Failed, KeyboardInterrupt) as error:
            raised = error
        new = FolderStore(tmp_path / "probe").resolve(REPO)
        moved = store.resolve(REPO) == new
        if isinstance(raised, Failed):
            assert [found.code for found in raised.diagnostics] == ["AC415"]
            assert not moved
        assert raised is not None or moved
        heads.append(assert_whole(store, old, new))
    assert heads.count(old) > total / 2


def test_a_first_commit_that_fails_leaves_no_repository(tmp_path: Path) -> None:
    failures = 0
    with fault(-1, _full_disk) as calls:
        FolderStore(tmp_path / "probe").commit(REPO, OLD, message="old")
    for step in range(1, len(calls) + 1):
        store = FolderStore(tmp_path / str(step))
        store.root.mkdir()
        try:
            with fault(step, _full_disk):
                store.commit(REPO, OLD, message="old")
        except Failed:
            failures += 1
            with fails("AC401"):
                store.resolve(REPO)
            assert store.list_repositories() == []
    assert failures > len(calls) / 2


def test_a_killed_process_leaves_the_hub_whole(tmp_path: Path) -> None:
    total = steps(tmp_path / "probe")
    new = FolderStore(tmp_path / "probe").resolve(REPO)
    for step in range(1, total + 1):
        store = FolderStore(tmp_path / str(step))
        old = store.commit(REPO, OLD, message="old")
        child = os.fork()
        if not child:
            with fault(step, lambda: os._exit(9)):
                publish(store)
            os._exit(0)
        os.waitpid(child, 0)
        assert_whole(store, old, new)


def test_a_source_that_cannot_be_read(store: FolderStore, tmp_path: Path) -> None:
    old = store.commit(REPO, OLD, message="old")
    with fails("AC415", "No such file"):
        store.commit(REPO, {"a": tmp_path / "missing"}, message="")
    assert store.resolve(REPO) == old


def test_threads_lose_nothing(store: FolderStore) -> None:
    def publish_one(number: int) -> str:
        return store.commit(REPO, {f"f{number}": str(number).encode()}, message="")

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(publish_one, range(16)))
    assert sorted(store.history(REPO)) == sorted(made)
    assert contents(store.fetch(REPO)) == {f"f{n}": str(n).encode() for n in range(16)}


def test_processes_lose_nothing(store: FolderStore) -> None:
    program = (
        "import sys; from pathlib import Path; from adaptcompose.hub.folder import FolderStore\n"
        "for n in range(6):\n"
        f"    FolderStore(Path(sys.argv[1])).commit({REPO!r}, "
        "{f'{sys.argv[2]}{n}': b'x'}, message='')\n"
    )
    command = [sys.executable, "-c", program, str(store.root)]
    running = [subprocess.Popen([*command, who]) for who in ("p", "q", "r")]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(store.list_files(REPO)) == sorted(f"{who}{n}" for who in "pqr" for n in range(6))


def test_open_store(tmp_path: Path) -> None:
    FolderStore(tmp_path / "hub").commit(REPO, OLD, message="")
    store = open_store("./hub", tmp_path)
    assert store.name == "./hub"
    assert contents(store.fetch(REPO)) == OLD
