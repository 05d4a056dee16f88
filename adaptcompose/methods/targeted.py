"""The base of methods that change maps of the backbone: their targets, and their form in files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from adaptcompose.backbones.layout import TOKEN_EMBEDDINGS, Facts, Site, SiteKind
from adaptcompose.diagnostics.codes import AC209
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.methods.method import Method, PackedSlice, lost_layers
from adaptcompose.syntax.signature import (
    LayerSet,
    diff_arguments,
    format_value,
    option,
    parameters,
    validate_value,
)

NATIVE_ARCHITECTURE = "adaptcompose"
"""The `architecture` in files of methods and settings that AdapterHub does not have."""


@dataclass(frozen=True)
class TargetedMethod(Method):
    """A method with weights at linear maps or norms, which its argument `targets` names.

    A subclass implements `tensors`, `init_tensor` and `lower`, and can set the class variables.
    """

    target_kinds: ClassVar[tuple[SiteKind, ...]] = ("linear",)
    adapterhub_stem: ClassVar[str] = "loras"
    """The name of its tensors in AdapterHub's files, below the module that is changed."""

    column_vectors: ClassVar[tuple[str, ...]] = ()
    """The vectors that AdapterHub's files store as matrices of one column."""

    targets: tuple[str, ...] = option((), "the maps to adapt")
    leave_out: LayerSet = option(frozenset(), "layers to skip")
    without: tuple[str, ...] = option((), "single sites to skip, such as 3.attn.q")

    def __post_init__(self) -> None:
        """Sort the targets, because their order has no meaning: equal settings compare equal."""
        for name in ("targets", "without"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        """AC209 for targets that this backbone does not have, or if none is left."""
        known = self.possible_targets(facts)
        for name in self.targets:
            if name not in known:
                yield self._wrong_argument(
                    "targets", f"a list of names from {', '.join(known)}", [name]
                )
        places = facts.layout.sites
        paths = {
            places[name].path
            for name in self.targets
            if name in known and places[name].spans_module
        }
        for name in self.targets:
            if name in known and not places[name].spans_module and places[name].path in paths:
                expected = "free of maps that are inside another target"
                yield self._wrong_argument("targets", expected, [name])
        if not self.target_sites(facts):
            expected = "a list of which `leave_out` and `without` leave at least one place"
            yield self._wrong_argument("targets", expected, self.targets)

    def _wrong_argument(self, name: str, expected: str, given: object) -> Diagnostic:
        """AC209 for an argument; `given` is its value, or the list of its wrong items."""
        if isinstance(given, list):
            got = f"a list with {' and '.join(f'`{one}`' for one in given)}"
        else:
            got = format_value(given) if isinstance(given, int) else f"`{format_value(given)}`"
        return AC209.at(name=name, operator=self.word, expected=expected, got=got)

    def possible_targets(self, facts: Facts) -> tuple[str, ...]:
        """The names that can be targets; a gate averages over the states that a map reads."""
        places = facts.layout.sites
        return tuple(
            dict.fromkeys(
                site.name
                for site in facts.sites_of_kind(*self.target_kinds)
                if not (
                    self.is_gated
                    and (places[site.name].is_outside_base or site.name == TOKEN_EMBEDDINGS)
                )
            )
        )

    @property
    def is_gated(self) -> bool:
        """Whether it has a learned gate per example."""
        return False

    def target_names(self, facts: Facts) -> Collection[str]:
        """The names of the maps that it changes."""
        return self.targets

    def target_sites(self, facts: Facts) -> tuple[Site, ...]:
        """The maps that it changes, lowest first."""
        names = self.target_names(facts)
        return tuple(
            site
            for site in facts.sites_of_kind(*self.target_kinds)
            if site.name in names
            and facts.layer_number(site) not in self.leave_out
            and str(site) not in self.without
        )

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return self.target_sites(facts)

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        here = self.sites(facts)
        layers = lost_layers(here, sites, facts)
        single = [str(s) for s in here if s not in sites and facts.layer_number(s) not in layers]
        if not layers and not single:
            return self
        without = tuple(dict.fromkeys([*self.without, *single]))
        return replace(self, leave_out=self.leave_out | layers, without=without)

    def at_sites(
        self, facts: Facts, places: Collection[Site], beside: Collection[Site] = ()
    ) -> Self:
        """The same settings with weights at just these places, however a file came by them.

        `beside` are sites of its own that are no places.
        """
        names = tuple(dict.fromkeys(site.name for site in facts.all_sites() if site in places))
        return replace(self, targets=names, leave_out=frozenset(), without=()).restrict_to(
            [*places, *beside], facts
        )

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        return native_config(self)

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> Mapping[str, Sequence[str]]:
        stem = f"{facts.layout.path(site) or site.name}.{self.adapterhub_stem}.{name}"
        if self._sites_in_module(site, facts) is None:
            stem += f".{site.name}"  # maps of one module whose tensors do not fit into one
        return {
            tensor: [f"{stem}.{self.adapterhub_key(tensor)}"]
            for tensor in self.tensors(site, facts)
        }

    def packed_slice(self, name: str, site: Site, facts: Facts) -> PackedSlice | None:
        """Maps that the backbone has in one module are in one tensor there; vectors are columns."""
        places = self.target_sites(facts)
        if site not in places:
            return None
        beside = self._sites_in_module(site, facts)
        if beside is None or (len(beside) == 1 and name not in self.column_vectors):
            return None
        shape = self.tensors(site, facts)[name]
        column = (1,) if name in self.column_vectors else ()
        whole = (shape[0] * len(beside), *shape[1:], *column)
        return PackedSlice(beside.index(site), len(beside), 0, whole)

    def _sites_in_module(self, site: Site, facts: Facts) -> list[Site] | None:
        """The maps in the module of a site, if their tensors are of one shape."""
        path = facts.layout.path(site)
        places = [site for site in self.sites(facts) if site.name in facts.layout.sites]
        here = [other for other in places if facts.layout.path(other) == path]
        found = [other for other in here if other in self.target_sites(facts)]
        if site not in found and len(here) > 1:
            return None
        shapes = self.tensors(site, facts)
        return found if all(self.tensors(one, facts) == shapes for one in found) else None

    def adapterhub_key(self, tensor: str) -> str:
        """What AdapterHub's files call a tensor."""
        return tensor

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Self | None:
        """The method that a `config` means, or None if it is of another family."""
        found: Self | None = read_native_config(cls, config)
        return found


def native_config(method: Method) -> dict[str, Any]:
    """A `config` of our own, with the settings that differ from the defaults."""
    settings = {name: _plain(value) for name, value in diff_arguments(method, type(method)())}
    return {"architecture": NATIVE_ARCHITECTURE, "method": method.word, "settings": settings}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


def read_native_config(cls: type[Any], config: Mapping[str, Any]) -> Any:
    """The method of a `config` of our own, or None; ValueError names a setting that is wrong."""
    if config.get("architecture") != NATIVE_ARCHITECTURE or config.get("method") != cls.word:
        return None
    fields = {parameter.name: parameter for parameter in parameters(cls)}
    settings = config.get("settings")
    if not isinstance(settings, dict) or not settings.keys() <= fields.keys():
        raise ValueError(f"its settings are not those of {cls.word}")
    read = {}
    for name, written in settings.items():
        field, value = fields[name], written
        if isinstance(written, list):
            value = frozenset(written) if field.type == LayerSet else tuple(written)
        try:
            read[field.field_name] = validate_value(cls, field.field_name, value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} {error}") from None
    return cls(**read)
