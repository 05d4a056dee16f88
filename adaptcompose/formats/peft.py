"""PEFT's folders: adapter_config.json with a `peft_type`, adapter_model.safetensors or .bin.

Which modules an adapter has weights for is read from the names of its tensors, not from the
patterns of its configuration: what is not in the file does nothing. Only `alpha_pattern` is run,
on those names, and only regular expressions that cannot take long. Tensors are named
`base_model.model.<path in the class>.<kind>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC407, AC408, AC418
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.formats import adapterhub, peft_heads
from adaptcompose.formats.adapterhub import Described
from adaptcompose.formats.peft_heads import StoredHead
from adaptcompose.formats.peft_modules import PROJECTION, STEM, Modules, Tensor, inside
from adaptcompose.formats.peft_settings import BEGUN, READERS, UnsupportedError, risky
from adaptcompose.formats.tensors import Shapes, read_tensors
from adaptcompose.methods import Method
from adaptcompose.methods.method import SHARED

if TYPE_CHECKING:
    import torch

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

Place = tuple[Site, str]


@dataclass(frozen=True)
class Contents:
    """What a folder holds: the method, where its tensors are, and the head beside it.

    `copies` are the keys of matrices that are the backbone's own.
    """

    method: Method
    tensors: Mapping[Place, Tensor]
    head: StoredHead
    copies: Mapping[Site, str] = field(default_factory=dict)


def is_peft(found: Described) -> bool:
    return "peft_type" in found.outer


def read(found: Described, facts: Facts, shapes: Shapes) -> Contents:
    """The contents of a folder on this backbone; AC403, AC407, AC408, AC413 or AC418 if none."""
    adapterhub.check_base(found, facts)
    kind = str(found.outer.get("peft_type")).rpartition(".")[2].upper()
    if kind not in READERS:
        raise Failed(refused(found, f"PEFT's {kind}"))
    with adapterhub.understood(found, adapterhub.ADAPTER):
        for key in risky(found.outer, kind):
            raise Failed(refused(found, f"PEFT's {kind} with {key}"))
        biases = found.outer.get("bias") == "all"
        modules = Modules.sort(facts, shapes, _saved(found.outer), biases=biases)
        for what in _strange(found.outer, kind, modules):
            raise Failed(refused(found, what))
        try:
            method = READERS[kind](found.outer, modules)
        except UnsupportedError as error:
            raise Failed(refused(found, f"PEFT's {kind} with {error}")) from None
    head = peft_heads.find(found.outer, facts, modules.left)
    for key in head.slots.values():
        modules.left.pop(key)
    for what in _beyond(found.outer, modules.left):
        raise Failed(refused(found, f"PEFT's {kind} with {what}"))
    tensors = _tensors(method, modules, facts)
    if resized := list(_resized(found, modules)):
        raise Failed(resized)
    if wrong := list(_misfits(found, method, tensors, modules, facts)):
        raise Failed(wrong)
    return Contents(method, tensors, head, modules.copies)


def _strange(config: Mapping[str, Any], kind: str, modules: Modules) -> Iterator[str]:
    """What else a file may change that no method of ours does."""
    if config.get("ensure_weight_tying") and modules.tied:
        yield f"PEFT's {kind} with ensure_weight_tying"
    if modules.saved and kind != "LORA":
        yield f"PEFT's {kind} with modules_to_save={min(modules.saved)}"
    if modules.unplaced is not None:
        yield f"a change of {modules.unplaced}"


def refused(found: Described, method: str) -> Diagnostic:
    """AC407 with all that can be read."""
    known = f"PEFT's {', '.join(READERS)}, and AdapterHub's methods"
    return AC407.at(found.span, name=found.title, method=method, known=known)


def _tensors(method: Method, modules: Modules, facts: Facts) -> dict[Place, Tensor]:
    found = {
        (site, name): tensor
        for part in (modules.tensors, modules.saved)
        for site, tensors in part.items()
        for name, tensor in tensors.items()
    }
    if SHARED in method.sites(facts):
        found |= {(SHARED, name): Tensor(key) for name, key in PROJECTION.items()}
    return found


def _misfits(
    found: Described,
    method: Method,
    tensors: Mapping[Place, Tensor],
    modules: Modules,
    facts: Facts,
) -> Iterator[Diagnostic]:
    """What is missing, of another shape, or not explained: the first of each."""
    expected = {
        (site, name): shape
        for site in method.sites(facts)
        for name, shape in method.tensors(site, facts).items()
    }
    lacking = [f"{name} at {site}" for site, name in expected if (site, name) not in tensors]
    if lacking:
        yield AC418.at(found.span, name=found.title, missing=lacking[0])
    for (site, name), tensor in tensors.items():
        shape, wanted = tensor.shape(modules.shapes[tensor.key]), expected.get((site, name))
        if wanted is None:
            modules.left[tensor.key] = shape
        elif shape != wanted and not (prod(shape) == prod(wanted) and len(wanted) == 1):
            detail = f"{name} at {site} is {shape}, the backbone needs {wanted}"
            yield AC408.at(found.span, name=found.title, detail=detail)
            return
    if modules.left:
        detail = f"its configuration does not explain the tensor {min(modules.left)}"
        yield AC408.at(found.span, name=found.title, detail=detail)


def _beyond(config: Mapping[str, Any], left: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """What PEFT's files may have of modules other than heads."""
    for key in sorted(left):
        module, _, _ = key.removeprefix(STEM).rpartition(".")
        yield from (f"modules_to_save={name}" for name in inside(module, _saved(config)))


def _saved(config: Mapping[str, Any]) -> list[str]:
    """The names of modules of which a file has all."""
    names = config.get("modules_to_save")
    return [n for n in names if isinstance(n, str)] if isinstance(names, list) else []


def _resized(found: Described, modules: Modules) -> Iterator[Diagnostic]:
    """AC408 where a file is of embeddings with another number of tokens, or of another width."""
    for key, expected in modules.of_words():
        stored = modules.shapes[key]
        if len(stored) == 2 and stored[0] != expected[0]:
            detail = f"it is for {stored[0]} tokens, the backbone has {expected[0]} ({key})"
            help = f"give a backbone saved after model.resize_token_embeddings({stored[0]})"
            yield AC408.at(found.span, name=found.title, detail=detail, help=help)
            return
        if stored != expected:
            detail = f"{key} is {stored}, the backbone needs {expected}"
            yield AC408.at(found.span, name=found.title, detail=detail)
            return


def read_weights(found: Described, contents: Contents, facts: Facts) -> dict[Place, torch.Tensor]:
    """The tensors of an adapter by site and name, each of the expected shape."""
    stored = read_file(found)
    weights = {}
    for (site, name), place in contents.tensors.items():
        tensor = stored[place.key]
        number, count = place.piece
        if count > 1:
            tensor = tensor.chunk(count)[number]
        tensor = tensor.T if place.transposed else tensor
        if place.doubled is not None:
            tensor = _with_zeros(tensor, place.doubled)
        shape = contents.method.tensors(site, facts)[name]
        tensor = tensor if place.packed is None else place.packed.take(tensor, shape)
        weights[site, name] = tensor.reshape(shape).clone()
    adapterhub.check_numbers(found, weights)
    return weights


def _with_zeros(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    import torch

    return torch.cat([tensor, torch.zeros_like(tensor)], dim=axis)


def begun(found: Described) -> str | None:
    """How factors began whose other half is to be made from the backbone's weights."""
    kind = found.outer.get("init_lora_weights")
    return str(kind) if kind in BEGUN else None


def read_head(found: Described, contents: Contents) -> dict[str, torch.Tensor]:
    """The tensors of the head by slot: `1.weight`, …"""
    stored = read_file(found)
    return {slot: stored[key].clone() for slot, key in contents.head.slots.items()}


def read_copies(found: Described, contents: Contents) -> dict[Site, torch.Tensor]:
    """What the file has of the backbone's own matrices, as they are stored."""
    stored = read_file(found) if contents.copies else {}
    return {site: stored[key] for site, key in contents.copies.items()}


def read_file(found: Described) -> dict[str, torch.Tensor]:
    """Everything in the file of weights."""
    for name in WEIGHTS:
        if (found.folder / name).is_file():
            return read_tensors(found.folder / name, f"{found.title}: {name}")
    missing = " and ".join(WEIGHTS)
    raise Failed(AC418.at(found.span, name=found.title, missing=missing))
