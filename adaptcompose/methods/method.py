"""The interface of adapter methods, and the register of those that exist.

A method is a frozen dataclass whose fields, made by `option`, are its arguments in the language. It
describes its sites, its tensors, their initial values, and the primitive that it is at each site. A
method registers itself with `@register_method`, and a well-known setting of it under a word of its
own with `register_configuration`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import MergeRecipe, Primitive
from adaptcompose.plugins import load_plugins
from adaptcompose.syntax.signature import diff_arguments, format_value, validate_value

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Combine = Callable[[str, Sequence["torch.Tensor"], float], "torch.Tensor"]
"""A function that merges tensors; see `Method.merge_weights`."""

SHARED_SITE = Site("shared")
"""The key of the tensors that all sites of a part share. It is not a site of the backbone."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A family of adapters with its settings.

    Implement these hooks in every method: `word`, `sites`, `tensors`, `restrict_to`, `init_tensor`
    and `lower`. `TargetedMethod` has `sites` and `restrict_to` for methods that change linear maps
    or norms, and `UnionMethod` delegates to the members of a method that is made of several. If
    files can contain the method, it also needs `adapterhub_config`, `adapterhub_keys` and a class
    method `from_adapterhub`. All other hooks are optional: each says when to override it.

    Hooks are pure. None imports torch, except those that are given tensors, and only in their
    bodies.
    """

    word: ClassVar[str]
    """Required: the name in the language."""
    fusible: ClassVar[bool] = False
    """Optional: whether AdapterFusion can attend over its outputs."""
    mergeable: ClassVar[bool] = False
    """Optional: whether `merge` can combine the weights of several into those of one."""
    additive: ClassVar[bool] = True
    """Optional: whether its whole effect is a sum with a state, so that it can be averaged, scaled
    and split."""

    @property
    def position_convention(self) -> tuple[str, str] | None:
        """Optional: (what is virtual, `kept` or `shifted`) for methods with virtual tokens or keys.

        The second entry says what they do to the positions of the tokens.
        """
        return None

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """Optional: diagnostics for settings that are impossible on this backbone."""
        yield from ()

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        """Required: the sites at which it has weights on this backbone, lowest first.

        `SHARED_SITE` is one of them if its sites share tensors.
        """
        raise NotImplementedError

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        """Required: the names and shapes of its stored weights at one of its sites."""
        raise NotImplementedError

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        """Required: the same settings with weights at those of its sites that are in `sites`."""
        raise NotImplementedError

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Required: fill a new weight in place with its initial values."""
        raise NotImplementedError

    def init_tensor_at(self, site: Site, facts: Facts, name: str, tensor: torch.Tensor) -> None:
        """Optional: like `init_tensor`, if the initial values depend on the site."""
        self.init_tensor(name, tensor)

    def init_from_backbone(
        self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> None:
        """Optional: fill in place the weights whose initial values depend on the backbone's.

        Called for each site after `init_tensor_at`. `own` has the backbone's `weight` [out, in]
        and, if there is one, `bias` [out]; at a norm, both are [width].
        """

    def is_trainable(self, name: str) -> bool:
        """Optional: whether training changes a tensor, or leaves it as it was made or loaded."""
        return True

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """Optional: the tensors that the primitive at a site reads, computed from the stored ones.

        `weights` are the tensors stored at the site, `shared` those at `SHARED_SITE`. Override it
        if the method stores its weights in another form than its primitive reads, and then set
        `parameter_source="computed"` in the primitives, with `source_sites=(SHARED_SITE,)` if there
        are shared tensors. The computation must be differentiable.
        """
        return weights

    def merge_weights(
        self, recipe: MergeRecipe, members: Sequence[Mapping[str, torch.Tensor]], combine: Combine
    ) -> dict[str, torch.Tensor]:
        """Optional: the tensors that the primitive of a merge reads, from those of its members.

        `combine(name, tensors, identity_value)` merges one tensor per member. Override it if the
        tensors are factors: their products have to be merged, not the factors.
        """
        names = dict.fromkeys(name for tensors in members for name in tensors)
        return {
            name: combine(name, [tensors[name] for tensors in members], self.identity_value(name))
            for name in names
        }

    def identity_value(self, name: str) -> float:
        """Optional: the value of a tensor in an adapter that changes nothing."""
        return 0.0

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        """Required: the primitive that it is at a site; None where it has nothing."""
        raise NotImplementedError

    def parameter_count(self, facts: Facts) -> int:
        """The number of its parameters on this backbone."""
        return self.parameter_count_at(self.sites(facts), facts)

    def parameter_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """The number of its parameters at some of its sites."""
        return self._count(sites, facts, lambda name: True)

    def effective_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """Optional: the number of values that its primitives read at some of its sites.

        Override it if a network that training needs computes them, as in prefix tuning.
        """
        return self.parameter_count_at(sites, facts)

    def frozen_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """The number of its parameters that training does not change, at some of its sites."""
        return self._count(sites, facts, lambda name: not self.is_trainable(name))

    def bias_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """The number of its biases at some of its sites; some papers do not count them."""
        return self._count(sites, facts, lambda name: name.endswith("bias"))

    def _count(self, sites: Iterable[Site], facts: Facts, counts: Callable[[str], bool]) -> int:
        return sum(
            math.prod(shape)
            for site in sites
            for name, shape in self.tensors(site, facts).items()
            if counts(name)
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        """For files: the `config` of adapter_config.json by which `adapters` knows this method."""
        raise NotImplementedError

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> Mapping[str, Sequence[str]]:
        """For files: the keys of each tensor in AdapterHub files, below the base model.

        All keys are written, and the first is read.
        """
        raise NotImplementedError

    def packed_slice(self, name: str, site: Site, facts: Facts) -> PackedSlice | None:
        """For files, optional: the slice of a file's tensor that a tensor is; None if all of it."""
        return None

    def __str__(self) -> str:
        return format_method(self)


@dataclasses.dataclass(frozen=True)
class PackedSlice:
    """One of `count` tensors that a file has stacked along `axis` as one tensor of `shape`."""

    index: int
    count: int
    axis: int
    shape: Shape

    def extract(self, whole: torch.Tensor, shape: Shape) -> torch.Tensor:
        """The tensor of the given shape, from the file's tensor."""
        stacked = whole.reshape(*shape[: self.axis], self.count, *shape[self.axis :])
        return stacked.select(self.axis, self.index)

    def pack(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """The file's tensor, from all its pieces in order."""
        import torch

        return torch.stack(list(pieces), self.axis).reshape(self.shape)


def lost_layers(sites: Iterable[Site], kept: Iterable[Site], facts: Facts) -> frozenset[int]:
    """The numbers of the layers that have one of `sites` and none of `kept`, as in `leave_out`."""
    numbers = {facts.layer_number(site) for site in sites if site.layer is not None}
    left = {facts.layer_number(site) for site in kept}
    return frozenset(number for number in numbers - left if number is not None)


_CALLS: dict[str, Method] = {}

M = TypeVar("M", bound=type[Method])


def register_method(cls: M) -> M:
    """Register a method under its `word`; raises ValueError if the word is taken."""
    register_configuration(cls.word, cls())
    return cls


def register_configuration(word: str, settings: Method) -> None:
    """Register a setting of a method under a word; raises ValueError if the word is taken."""
    if word in _CALLS and _CALLS[word] != settings:
        raise ValueError(f"the method `{word}` already exists")
    _CALLS[word] = settings


def registered_methods() -> Mapping[str, Method]:
    """The words that make a new adapter, each with its settings; plug-ins are among them."""
    load_plugins("methods")
    return _CALLS


def read_settings(
    cls: type[Method], config: Mapping[str, Any], fields: Mapping[str, str]
) -> dict[str, Any]:
    """The values of a file's `config` by the names of the fields of `cls`.

    `fields` maps keys of the file to fields. Raises ValueError, which names the key, if a value is
    not valid.
    """
    settings = {}
    for key, name in fields.items():
        if key in config:
            try:
                settings[name] = validate_value(cls, name, config[key])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{key} {error}") from None
    return settings


def format_method(value: Method) -> str:
    """The shortest call of the language that makes these settings.

    >>> from adaptcompose.methods.bottleneck import Bottleneck
    >>> format_method(Bottleneck(reduction=2, invertible="nice"))
    'language()'
    """
    calls = [
        (len(arguments := list(diff_arguments(value, default))), word, arguments)
        for word, default in _CALLS.items()
        if type(default) is type(value)
    ]
    _, word, arguments = min(calls, key=lambda call: (call[0], call[1] != value.word))
    return f"{word}({', '.join(f'{name}={format_value(setting)}' for name, setting in arguments)})"
