"""The lock of a spec: its digest, its data, and the pins that stay when it is rewritten."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adaptcompose.diagnostics.codes import AC607
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.spec.sections import DataSection, Spec
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock, Pin, hash_plain
from adaptcompose.hub.store import file_record
from adaptcompose.resolution.datasets import parse_dataset_ref
from adaptcompose.syntax.references import Ref, parse_repository_ref


def lock_path(spec_path: Path) -> Path:
    """`<stem>.lock`, next to the spec."""
    return spec_path.with_suffix(".lock")


def read_lock(spec_path: Path) -> Lock:
    """The lock next to a spec. Raises AC607 if there is none."""
    path = lock_path(spec_path)
    if (lock := Lock.load(path)) is None:
        help = f"write it with `adaptcompose lock {spec_path}`"
        raise Failed(AC607.at(path=path, root=Path.cwd(), help=help))
    return lock


def data_refs(spec: Spec) -> dict[tuple[DataRef, bool], None]:
    """The splits that a run reads, each once, as (reference, whether labels are required)."""
    refs = [(spec.train.data, True), (spec.train.validation, True)] if spec.train else []
    refs += [(row.data, True) for row in spec.evaluate]
    refs += [(row.data, False) for row in spec.predict]
    return dict.fromkeys((ref, labelled) for ref, labelled in refs if ref is not None)


def pin_data(spec: Spec, others: Iterable[DataRef] = ()) -> Iterator[tuple[str, Pin]]:
    """Yield the pin of every split that a run reads, `others` included, under its reference."""
    for ref in _all_data_refs(spec, others):
        section = spec.data[ref.name]
        if section.dataset is not None:
            paths = section.files_by_split(ref.config)[ref.split or "train"]
            yield str(ref), section.dataset.pin_files(paths)
        else:
            files = {
                _relative(path, spec.root): file_record(path) for path in spec.split_files(ref)
            }
            yield str(ref), Pin(files=files)


def data_download_bytes(spec: Spec, others: Iterable[DataRef] = ()) -> int:
    """The bytes of these splits that are not on this machine yet."""
    files: dict[tuple[str, str], int] = {}
    for ref in _all_data_refs(spec, others):
        section = spec.data[ref.name]
        if section.dataset is not None:
            paths = section.files_by_split(ref.config)[ref.split or "train"]
            missing = section.dataset.missing_files(paths)
            files |= {(str(section.dataset), path): size for path, size in missing.items()}
    return sum(files.values())


def _all_data_refs(spec: Spec, others: Iterable[DataRef]) -> dict[DataRef, None]:
    return dict.fromkeys([*(ref for ref, _ in data_refs(spec)), *others])


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def spec_digest(specs: Sequence[Spec]) -> str:
    """The digest by which a lock recognises the specs of a file: of one spec, or of a sweep."""
    digests = list(dict.fromkeys(_digest(spec) for spec in specs))
    return digests[0] if len(digests) == 1 else hash_plain(digests)


def _digest(spec: Spec) -> str:
    """The hash of the keys that decide which files are used. A learning rate may change."""
    plain = spec.as_plain()
    common = {name: plain.get(name) for name in ("hub", "backbone", "adapters", "compose", "data")}
    rows = [row for name in ("evaluate", "predict") for row in plain.get(name, ())]
    items = [[row.get(name) for name in ("compose", "pipe", "data")] for row in rows]
    train = plain.get("train") or {}
    served = {"serve": plain["serve"]["allow"]} if "serve" in plain else {}
    data = [train.get("data"), train.get("validation")]
    return hash_plain(common | served | {"items": items, "train": data})


def find_data_pin(name: str, pins: Lock | None) -> Pin | None:
    """One pin for a data set, with the pinned files of all its splits; None without a pin."""
    entries = pins.data.items() if pins else ()
    split_pins = [pin for key, pin in entries if pin.repo and data_name(key) == name]
    files = {path: record for pin in split_pins for path, record in pin.files.items()}
    return replace(split_pins[0], files=files) if split_pins else None


def data_name(key: str) -> str:
    """The name of the data set in a reference of a lock.

    >>> data_name("wikiann[en]/test")
    'wikiann'
    """
    return key.partition("/")[0].partition("[")[0]


def merge_locks(locks: Sequence[Lock]) -> Lock:
    """One lock for all runs of a sweep, which share their backbone and hub."""
    first = locks[0]
    globs = {name: repos for lock in locks for name, repos in lock.globs.items()}
    adapters = {name: pin for lock in locks for name, pin in lock.adapters.items()}
    data = {name: pin for lock in locks for name, pin in lock.data.items()}
    members = {text: pruned for lock in locks for text, pruned in lock.members.items()}
    return replace(first, globs=globs, adapters=adapters, data=data, members=members)


def retained_pins(
    old: Lock | None, specs: Sequence[Spec], upgrade: Collection[str] | None
) -> Lock | None:
    """The pins of an older lock that stay when it is rewritten; None if no pin stays.

    `upgrade` names the pins to drop; an empty one drops all. No pin stays if the hub differs, or
    the backbone: a name of the catalogue may mean another adapter on another backbone.
    """
    if old is None or upgrade == () or old.hub != specs[0].hub:
        return None
    name = specs[0].backbone.model
    repo, _, revision = name.removeprefix("hf://").partition("@")
    if old.backbone.path != name and old.backbone.repo != repo:
        return None
    dropped = set(upgrade or ())
    if "backbone" in dropped or not (old.backbone.revision or "").startswith(revision):
        old = replace(old, backbone=Pin())
    text = specs[0].backbone.tokenizer
    if (
        dropped & {"backbone", "tokenizer"}
        or text is None
        or not _may_pin_tokenizer(old.tokenizer, text)
    ):
        old = replace(old, tokenizer=None)
    adapters = {name: pin for name, pin in old.adapters.items() if name not in dropped}
    globs = {name: repos for name, repos in old.globs.items() if name not in dropped}
    members = {} if upgrade is not None else old.members
    data = {
        key: pin
        for key, pin in old.data.items()
        if data_name(key) not in dropped and _may_pin_data(pin, specs[0].data, data_name(key))
    }
    return replace(old, adapters=adapters, globs=globs, data=data, members=members)


def _may_pin_data(pin: Pin, data: Mapping[str, DataSection], name: str) -> bool:
    """Whether a pin still fits the reference to this data set. A pin never fits a branch."""
    text = data[name].repo if name in data else None
    return pin.repo is None if text is None else _matches_pin(parse_dataset_ref(text), pin)


def _may_pin_tokenizer(pin: Pin | None, text: str) -> bool:
    """Whether a pin still fits the reference to the tokenizer."""
    return pin is not None and _matches_pin(parse_repository_ref(text), pin)


def _matches_pin(ref: Ref, pin: Pin) -> bool:
    return pin.repo == ref.repo and (pin.revision or "").startswith(ref.revision or "")
