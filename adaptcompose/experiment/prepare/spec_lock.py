"""What a lock holds for a spec: its digest, its data, and the pins that an older lock keeps."""

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
    """`<spec stem>.lock` beside the spec."""
    return spec_path.with_suffix(".lock")


def read_lock(spec_path: Path) -> Lock:
    """The lock beside a spec, or AC607 with the command that writes it."""
    path = lock_path(spec_path)
    if (found := Lock.load(path)) is None:
        help = f"write it with `adaptcompose lock {spec_path}`"
        raise Failed(AC607.at(path=path, root=Path.cwd(), help=help))
    return found


def data_refs(spec: Spec) -> dict[tuple[DataRef, bool], None]:
    """Every split that a run reads, and whether it needs the labels; each once."""
    refs = [(spec.train.data, True), (spec.train.validation, True)] if spec.train else []
    refs += [(item.data, True) for item in spec.evaluate]
    refs += [(item.data, False) for item in spec.predict]
    return dict.fromkeys((ref, labelled) for ref, labelled in refs if ref is not None)


def pin_data(spec: Spec, others: Iterable[DataRef] = ()) -> Iterator[tuple[str, Pin]]:
    """The files of every split that a run reads, `others` with those that its sections name."""
    for ref in _all_data_refs(spec, others):
        section = spec.data[ref.name]
        if section.dataset is not None:
            yield (
                str(ref),
                section.dataset.pin_files(section.files_by_split(ref.config)[ref.split or "train"]),
            )
            continue
        yield (
            str(ref),
            Pin(files={_relative(p, spec.root): file_record(p) for p in spec.split_files(ref)}),
        )


def data_download_bytes(spec: Spec, others: Iterable[DataRef] = ()) -> int:
    """How many bytes of the same data are not on this machine yet."""
    files: dict[tuple[str, str], int] = {}
    for ref in _all_data_refs(spec, others):
        section = spec.data[ref.name]
        if section.dataset is not None:
            found = section.dataset.missing_files(
                section.files_by_split(ref.config)[ref.split or "train"]
            )
            files |= {(str(section.dataset), path): size for path, size in found.items()}
    return sum(files.values())


def _all_data_refs(spec: Spec, others: Iterable[DataRef]) -> dict[DataRef, None]:
    return dict.fromkeys([*(ref for ref, _ in data_refs(spec)), *others])


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def spec_digest(specs: Sequence[Spec]) -> str:
    """What a lock holds of the spec, or of all specs of a sweep, that it was written for."""
    found = list(dict.fromkeys(_digest(spec) for spec in specs))
    return found[0] if len(found) == 1 else hash_plain(found)


def _digest(spec: Spec) -> str:
    """The hash of what decides which files are used; a learning rate is free to change."""
    plain = spec.as_plain()
    kept = {name: plain.get(name) for name in ("hub", "backbone", "adapters", "compose", "data")}
    rows = [(name, row) for name in ("evaluate", "predict") for row in plain.get(name, ())]
    items = [[row.get(name) for name in ("compose", "pipe", "data")] for _, row in rows]
    train = plain.get("train") or {}
    served = {"serve": plain["serve"]["allow"]} if "serve" in plain else {}
    data = [train.get("data"), train.get("validation")]
    return hash_plain(kept | served | {"items": items, "train": data})


def find_data_pin(name: str, pins: Lock | None) -> Pin | None:
    """What a lock says of a data set: its revision, and all of its files that are pinned."""
    entries = pins.data.items() if pins else ()
    found = [pin for key, pin in entries if pin.repo and data_name(key) == name]
    files = {path: one for pin in found for path, one in pin.files.items()}
    return replace(found[0], files=files) if found else None


def data_name(key: str) -> str:
    """The name of the data in a lock's reference to it."""
    return key.partition("/")[0].partition("[")[0]


def merge_locks(locks: Sequence[Lock]) -> Lock:
    """One lock for all runs of a sweep: they share backbone and hub."""
    first = locks[0]
    globs = {name: found for lock in locks for name, found in lock.globs.items()}
    adapters = {name: pin for lock in locks for name, pin in lock.adapters.items()}
    data = {name: pin for lock in locks for name, pin in lock.data.items()}
    members = {text: found for lock in locks for text, found in lock.members.items()}
    return replace(first, globs=globs, adapters=adapters, data=data, members=members)


def retained_pins(
    old: Lock | None, specs: Sequence[Spec], upgrade: Collection[str] | None
) -> Lock | None:
    """The pins of an older lock that stay when it is written anew.

    Those of the same hub do, without those named by `upgrade`; none do if that is empty. A
    catalogue name may be another adapter on another backbone, so the backbone has to be the same.
    """
    if old is None or upgrade == () or old.hub != specs[0].hub:
        return None
    name = specs[0].backbone.model
    repo, _, revision = name.removeprefix("hf://").partition("@")
    if old.backbone.path != name and old.backbone.repo != repo:
        return None
    gone = set(upgrade or ())
    if "backbone" in gone or not (old.backbone.revision or "").startswith(revision):
        old = replace(old, backbone=Pin())
    text = specs[0].backbone.tokenizer
    if (
        gone & {"backbone", "tokenizer"}
        or text is None
        or not _may_pin_tokenizer(old.tokenizer, text)
    ):
        old = replace(old, tokenizer=None)
    adapters = {name: pin for name, pin in old.adapters.items() if name not in gone}
    globs = {name: found for name, found in old.globs.items() if name not in gone}
    members = {} if upgrade is not None else old.members
    stays = {key: pin for key, pin in old.data.items() if data_name(key) not in gone}
    data = {
        key: pin for key, pin in stays.items() if _may_pin_data(pin, specs[0].data, data_name(key))
    }
    return replace(old, adapters=adapters, globs=globs, data=data, members=members)


def _may_pin_data(pin: Pin, data: Mapping[str, DataSection], name: str) -> bool:
    """Whether a pin may be what the spec says of its data now; a branch is asked anew."""
    text = data[name].repo if name in data else None
    return pin.repo is None if text is None else _matches_pin(parse_dataset_ref(text), pin)


def _may_pin_tokenizer(pin: Pin | None, text: str) -> bool:
    """Whether a pin may be what the spec says of its tokenizer now."""
    return pin is not None and _matches_pin(parse_repository_ref(text), pin)


def _matches_pin(ref: Ref, pin: Pin) -> bool:
    return pin.repo == ref.repo and (pin.revision or "").startswith(ref.revision or "")
