from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub import store
from adaptcompose.hub.lock import Lock, Pin, compare_locks, hash_plain
from adaptcompose.hub.store import FileRecord, file_record
from tests.sampling import sampled

if TYPE_CHECKING:
    from pathlib import Path

FILE = FileRecord(3, "ab" * 32)
LOCK = Lock(
    spec=hash_plain({"compose": "stack(lang=sw)"}),
    hub="./hub",
    backbone=Pin("demo/tiny", "0" * 40, files={"config.json": FILE}),
    globs={"glue/*": ("glue/a", "glue/b")},
    adapters={
        "lang/sw": Pin(
            "demo/sw", "1" * 40, "sub", method="language(reduction=2)", files={"w": FILE}
        ),
        "./ner": Pin(path="./ner", files={"w": FileRecord(4, "cd" * 32)}),
        "glue/a": Pin("a/b", "2" * 40, files={"w": FileRecord(1, blob="3" * 40)}),
    },
    data={"train": Pin(path="train.jsonl", files={"train.jsonl": FILE})},
)

hexes = st.integers(0, 16**40 - 1).map(lambda n: f"{n:040x}")
names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=9)
file_records = st.builds(FileRecord, st.integers(0, 2**40), st.just("ab" * 32))
entries = st.builds(
    Pin,
    repo=st.sampled_from([None, "demo/tiny", "1/2"]),
    revision=st.one_of(st.none(), hexes),
    path=st.one_of(st.none(), names),
    method=st.one_of(st.none(), names),
    files=st.dictionaries(st.sampled_from(["a", "b/c", "5", "no"]), file_records, max_size=3),
)
locks = st.builds(
    Lock,
    spec=st.just(hash_plain(1)),
    hub=names,
    backbone=entries,
    globs=st.dictionaries(names, st.lists(names, max_size=3).map(tuple), max_size=3),
    adapters=st.dictionaries(names, entries, max_size=3),
    data=st.dictionaries(names, entries, max_size=2),
)


@sampled(100, locks)
def test_printing_is_the_inverse_of_reading(lock: Lock) -> None:
    assert Lock.parse(str(lock)) == lock
    assert str(Lock.parse(str(lock))) == str(lock)


def test_order_does_not_show() -> None:
    backwards = replace(LOCK, adapters=dict(reversed(list(LOCK.adapters.items()))))
    assert str(backwards) == str(LOCK)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert Lock.load(path) is None
    LOCK.write(path)
    assert Lock.load(path) == LOCK
    before = path.stat().st_mtime_ns, path.stat().st_ino
    LOCK.write(path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def changes(new: Lock) -> list[str]:
    found = compare_locks(LOCK, new, "x.lock")
    assert all(one.code == "AC410" and "x.lock is out of date" in one.message for one in found)
    return [one.message.split(": ", 1)[1].removesuffix(" changed") for one in found]


def with_adapter(key: str, **values: Any) -> Lock:
    return replace(LOCK, adapters={**LOCK.adapters, key: replace(LOCK.adapters[key], **values)})


def test_what_changed_is_said() -> None:
    assert changes(LOCK) == []
    assert changes(replace(LOCK, spec=hash_plain("y"))) == ["the spec"]
    assert changes(replace(LOCK, hub="hf")) == ["`hub`"]
    assert changes(replace(LOCK, globs={"glue/*": ("glue/a", "glue/c")})) == [
        "`glue/*` (without glue/b and with glue/c)"
    ]
    assert changes(replace(LOCK, globs={"glue/*": ("glue/b", "glue/a")})) == [
        "the order of `glue/*`"
    ]
    assert changes(with_adapter("lang/sw", revision="9" * 40)) == [
        "`lang/sw` (revision 111111111111 to 999999999999)"
    ]
    assert changes(with_adapter("lang/sw", files={"w": FileRecord(4, "ab" * 32)})) == [
        "`lang/sw` (w)"
    ]
    assert changes(with_adapter("./ner", path="./pos")) == ["`./ner` (path ./ner to ./pos)"]
    assert changes(replace(LOCK, data={})) == ["`train` (no longer used)"]
    assert changes(replace(LOCK, data={**LOCK.data, "dev": Pin(path="d")})) == ["`dev` (new)"]


TEXT = str(LOCK)


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        (TEXT.replace("lock: 1", "lock: 2"), "AC413", "version 2"),
        (TEXT.replace("demo/tiny", "../tiny"), "AC413", "not a valid repo"),
        (TEXT.replace("1" * 40, "main"), "AC413", "not a valid revision"),
        (TEXT.replace("subfolder: sub", "subfolder: ../sub"), "AC413", "not a valid subfolder"),
        (TEXT.replace("config.json:", "../config.json:"), "AC413", "not a valid name of a file"),
        (TEXT.replace("size: 3", "size: x"), "AC413", "a size and a hash"),
        (TEXT.replace("ab" * 32, "ab"), "AC413", "not a valid sha256"),
        (TEXT.replace("hub: ./hub", "hub: 5"), "AC413", "a string is missing"),
        (TEXT + "more: 1\n", "AC413", "unknown key `more`"),
        ("[]", "AC413", "mapping is missing"),
        (TEXT + "hub: hf\n", "AC602", "twice"),
        ("{", "AC611", "YAML"),
    ],
)
def test_damaged_locks(text: str, code: str, why: str) -> None:
    with pytest.raises(Failed) as failure:
        Lock.parse(text, "x.lock")
    (found,) = failure.value.diagnostics
    assert found.code == code
    assert why in found.message


def test_a_file_is_read_again_once_it_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_record(path)
    path.write_bytes(b"two")
    os.utime(path, (0, 0))  # whatever its owner says of its age
    assert file_record(path) != first
    monkeypatch.setattr(time, "time_ns", lambda: 2 * path.stat().st_ctime_ns)
    digests: list[str] = []
    monkeypatch.setattr(store, "_digest", lambda path: digests.append(path) or "a digest")
    assert file_record(path) == file_record(path) == FileRecord(3, "a digest")
    path.write_bytes(b"tri")
    assert file_record(path) == FileRecord(3, "a digest")
    assert len(digests) == 2
