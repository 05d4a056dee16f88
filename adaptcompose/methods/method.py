"""What a method says of itself: its arguments, its sites, its tensors, how it starts and lowers.

A method is a frozen dataclass; its fields are its arguments in the language. A family adds itself
with `@method`, a well-known setting of it with `register_configuration`.
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
"""How a merge makes one tensor of several."""

SHARED_SITE = Site("shared")
"""No place of the backbone: where a part keeps the tensors that all its sites share."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A family of adapters with its settings."""

    word: ClassVar[str]
    fusible: ClassVar[bool] = False
    """Whether AdapterFusion can attend over its outputs."""
    mergeable: ClassVar[bool] = False
    """Whether the weights of several can be merged into those of one."""
    additive: ClassVar[bool] = True
    """Whether all that it does is added to a state, and so can be averaged, scaled and split."""

    @property
    def position_convention(self) -> tuple[str, str] | None:
        """Which virtual things it has, if any, and what they do to the positions of the tokens."""
        return None

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """Why these settings cannot be had on this backbone."""
        yield from ()

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        """Where it has weights on this backbone."""
        raise NotImplementedError

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        """Names and shapes of its weights at a site."""
        raise NotImplementedError

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        """The same settings with weights at these of its sites and nothing at the others."""
        raise NotImplementedError

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Fill a new weight in place."""
        raise NotImplementedError

    def init_tensor_at(self, site: Site, facts: Facts, name: str, tensor: torch.Tensor) -> None:
        """The same, where it matters at which of its sites the weight is."""
        self.init_tensor(name, tensor)

    def init_from_backbone(
        self, tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> None:
        """Fill in place what starts from the backbone's own tensors at a site, after `start`.

        `own` has `weight` [out, in] and, if there is one, `bias`; of a norm, both [width].
        """

    def is_trainable(self, name: str) -> bool:
        """Whether training changes a tensor; others stay as they started or were read."""
        return True

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """The tensors that the primitive at a site reads, from those stored there and `SHARED_SITE`.

        Differentiable. A method that overrides this lowers to primitives of form `computed`, with
        `sources=(SHARED,)` if it has shared tensors.
        """
        return weights

    def merge_weights(
        self, recipe: MergeRecipe, members: Sequence[Mapping[str, torch.Tensor]], combine: Combine
    ) -> dict[str, torch.Tensor]:
        """What the primitive of a merge reads, from what those of its members read.

        `combine` takes the name of a tensor, one tensor for each member, and what it is where an
        adapter does nothing. A method of factors combines what they multiply to.
        """
        names = dict.fromkeys(name for tensors in members for name in tensors)
        return {
            name: combine(name, [tensors[name] for tensors in members], self.identity_value(name))
            for name in names
        }

    def identity_value(self, name: str) -> float:
        """What a tensor is where an adapter does nothing."""
        return 0.0

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        """What it is at a site, as a primitive of the program; None where it has nothing."""
        raise NotImplementedError

    def parameter_count(self, facts: Facts) -> int:
        """How many numbers it has on this backbone."""
        return self.parameter_count_at(self.sites(facts), facts)

    def parameter_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """How many numbers it has at some of its sites."""
        return self._count(sites, facts, lambda name: True)

    def effective_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """How many are left at some of its sites once the networks that make them have run."""
        return self.parameter_count_at(sites, facts)

    def frozen_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """How many of them training leaves alone."""
        return self._count(sites, facts, lambda name: not self.is_trainable(name))

    def bias_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        """How many of them are biases, which the counts of some papers leave out."""
        return self._count(sites, facts, lambda name: name.endswith("bias"))

    def _count(self, sites: Iterable[Site], facts: Facts, counts: Callable[[str], bool]) -> int:
        return sum(
            math.prod(shape)
            for site in sites
            for name, shape in self.tensors(site, facts).items()
            if counts(name)
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        """The `config` of adapter_config.json that means this method to `adapters`."""
        raise NotImplementedError

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> Mapping[str, Sequence[str]]:
        """Per tensor its keys in AdapterHub files, below the base model; the first one is read."""
        raise NotImplementedError

    def packed_slice(self, name: str, site: Site, facts: Facts) -> PackedSlice | None:
        """Which share of the tensor in AdapterHub files a tensor is; None if it is all of it."""
        return None

    def __str__(self) -> str:
        return format_method(self)


@dataclasses.dataclass(frozen=True)
class PackedSlice:
    """One of `count` tensors that files have as one: stacked along `axis`, in another shape."""

    index: int
    count: int
    axis: int
    shape: Shape

    def extract(self, whole: torch.Tensor, shape: Shape) -> torch.Tensor:
        """The tensor of this shape in the file's."""
        stacked = whole.reshape(*shape[: self.axis], self.count, *shape[self.axis :])
        return stacked.select(self.axis, self.index)

    def pack(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """The file's tensor of all its shares in order."""
        import torch

        return torch.stack(list(pieces), self.axis).reshape(self.shape)


def lost_layers(sites: Iterable[Site], kept: Iterable[Site], facts: Facts) -> frozenset[int]:
    """The layers, as `leave_out` counts them, that have one of the sites and none that is kept."""
    numbers = {facts.layer_number(site) for site in sites if site.layer is not None}
    left = {facts.layer_number(site) for site in kept}
    return frozenset(number for number in numbers - left if number is not None)


_CALLS: dict[str, Method] = {}

M = TypeVar("M", bound=type[Method])


def register_method(cls: M) -> M:
    """Make a family callable in the language by its word."""
    register_configuration(cls.word, cls())
    return cls


def register_configuration(word: str, settings: Method) -> None:
    """Make a well-known setting of a method callable by a word of its own."""
    if word in _CALLS and _CALLS[word] != settings:
        raise ValueError(f"the method `{word}` already exists")
    _CALLS[word] = settings


def registered_methods() -> Mapping[str, Method]:
    """Words of the language that make a new adapter, each with its default settings."""
    load_plugins("methods")
    return _CALLS


def read_settings(
    cls: type[Method], config: Mapping[str, Any], fields: Mapping[str, str]
) -> dict[str, Any]:
    """The values of a file's `config` by the names of the fields; ValueError names a wrong one."""
    settings = {}
    for key, name in fields.items():
        if key in config:
            try:
                settings[name] = validate_value(cls, name, config[key])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{key} {error}") from None
    return settings


def format_method(value: Method) -> str:
    """The shortest call that means these settings.

    >>> from adaptcompose.methods.bottleneck import Bottleneck
    >>> format_method(Bottleneck(reduction=2, invertible="nice"))
    'language()'
    """
    spelt = [
        (len(arguments := list(diff_arguments(value, default))), word, arguments)
        for word, default in _CALLS.items()
        if type(default) is type(value)
    ]
    _, word, arguments = min(spelt, key=lambda found: (found[0], found[1] != value.word))
    return f"{word}({', '.join(f'{name}={format_value(setting)}' for name, setting in arguments)})"
