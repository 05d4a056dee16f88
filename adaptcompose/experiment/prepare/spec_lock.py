"""What a lock holds for a spec: its digest, its data, and the pins that an older lock keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adaptcompose.diagnostics.codes import AC607
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.experiment.spec.sections import DataSection, Spec
from adaptcompose.experiment.spec.value_types import DataRef
from adaptcompose.hub.lock import Lock, Locked, hash_of
from adaptcompose.hub.store import record
from adaptcompose.resolution.datasets import data_ref
from adaptcompose.syntax.references import Ref, repository_ref


def lock_path(spec_path: Path) -> Path:
    """`<spec stem>.lock` beside the spec."""
    return spec_path.with_suffix(".lock")


def lock_of(spec_path: Path) -> Lock:
    """The lock beside a spec, or AC607 with the command that writes it."""
    path = lock_path(spec_path)
    if (found := Lock.open(path)) is None:
        help = f"write it: adaptcompose lock {spec_path}"
        raise Failed(AC607.at(path=path, root=Path.cwd(), help=help))
    return found


def references(spec: Spec) -> dict[tuple[DataRef, bool], None]:
    """Every split that a run reads, and whether it needs the labels; each once."""
    refs = [(spec.train.data, True), (spec.train.validation, True)] if spec.train else []
    refs += [(item.data, True) for item in spec.evaluate]
    refs += [(item.data, False) for item in spec.predict]
    return dict.fromkeys((ref, labelled) for ref, labelled in refs if ref is not None)


def pinned_data(spec: Spec, others: Iterable[DataRef] = ()) -> Iterator[tuple[str, Locked]]:
    """The files of every split that a run reads, `others` with those that its sections name."""
    for ref in _splits(spec, others):
        section = spec.data[ref.name]
        if section.held is not None:
            yield str(ref), section.held.pinned(section.parts(ref.config)[ref.split or "train"])
            continue
        yield str(ref), Locked(files={_relative(p, spec.root): record(p) for p in spec.files(ref)})


def unfetched(spec: Spec, others: Iterable[DataRef] = ()) -> int:
    """How many bytes of the same data are not on this machine yet."""
    files: dict[tuple[str, str], int] = {}
    for ref in _splits(spec, others):
        section = spec.data[ref.name]
        if section.held is not None:
            found = section.held.unfetched(section.parts(ref.config)[ref.split or "train"])
            files |= {(str(section.held), path): size for path, size in found.items()}
    return sum(files.values())


def _splits(spec: Spec, others: Iterable[DataRef]) -> dict[DataRef, None]:
    return dict.fromkeys([*(ref for ref, _ in references(spec)), *others])


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def digest(specs: Sequence[Spec]) -> str:
    """What a lock holds of the spec, or of all specs of a sweep, that it was written for."""
    found = list(dict.fromkeys(_digest(spec) for spec in specs))
    return found[0] if len(found) == 1 else hash_of(found)


def _digest(spec: Spec) -> str:
    """The hash of what decides which files are used; a learning rate is free to change."""
    plain = spec.plain()
    kept = {name: plain.get(name) for name in ("hub", "backbone", "adapters", "compose", "data")}
    rows = [(name, row) for name in ("evaluate", "predict") for row in plain.get(name, ())]
    items = [[row.get(name) for name in ("compose", "pipe", "data")] for _, row in rows]
    train = plain.get("train") or {}
    served = {"serve": plain["serve"]["allow"]} if "serve" in plain else {}
    data = [train.get("data"), train.get("validation")]
    return hash_of(kept | served | {"items": items, "train": data})


def data_pin(name: str, pins: Lock | None) -> Locked | None:
    """What a lock says of a data set: its revision, and all of its files that are pinned."""
    entries = pins.data.items() if pins else ()
    found = [pin for key, pin in entries if pin.repo and section_of(key) == name]
    files = {path: one for pin in found for path, one in pin.files.items()}
    return replace(found[0], files=files) if found else None


def section_of(key: str) -> str:
    """The name of the data in a lock's reference to it."""
    return key.partition("/")[0].partition("[")[0]


def merged(locks: Sequence[Lock]) -> Lock:
    """One lock for all runs of a sweep: they share backbone and hub."""
    first = locks[0]
    globs = {name: found for lock in locks for name, found in lock.globs.items()}
    adapters = {name: pin for lock in locks for name, pin in lock.adapters.items()}
    data = {name: pin for lock in locks for name, pin in lock.data.items()}
    members = {text: found for lock in locks for text, found in lock.members.items()}
    return replace(first, globs=globs, adapters=adapters, data=data, members=members)


def kept(old: Lock | None, specs: Sequence[Spec], upgrade: Collection[str] | None) -> Lock | None:
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
        old = replace(old, backbone=Locked())
    text = specs[0].backbone.tokenizer
    if gone & {"backbone", "tokenizer"} or text is None or not _still(old.tokenizer, text):
        old = replace(old, tokenizer=None)
    adapters = {name: pin for name, pin in old.adapters.items() if name not in gone}
    globs = {name: found for name, found in old.globs.items() if name not in gone}
    members = {} if upgrade is not None else old.members
    stays = {key: pin for key, pin in old.data.items() if section_of(key) not in gone}
    data = {key: pin for key, pin in stays.items() if _meant(pin, specs[0].data, section_of(key))}
    return replace(old, adapters=adapters, globs=globs, data=data, members=members)


def _meant(pin: Locked, data: Mapping[str, DataSection], name: str) -> bool:
    """Whether a pin may be what the spec says of its data now; a branch is asked anew."""
    text = data[name].repo if name in data else None
    return pin.repo is None if text is None else _names(data_ref(text), pin)


def _still(pin: Locked | None, text: str) -> bool:
    """Whether a pin may be what the spec says of its tokenizer now."""
    return pin is not None and _names(repository_ref(text), pin)


def _names(ref: Ref, pin: Locked) -> bool:
    return pin.repo == ref.repo and (pin.revision or "").startswith(ref.revision or "")
