"""Methods that are several at once: one adapter, one file, one name.

AdapterHub's files call them unions. Each member has sites of its own, and the tensors that all
sites of a member share are those of the one member that has some.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.diagnostic import Diagnostic
from adaptcompose.ir.primitives import Primitive
from adaptcompose.methods.method import Method, PackedSlice, Shape, lost_layers
from adaptcompose.syntax.signature import LayerSet, option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class UnionMethod(Method):
    """Several methods under one name; what each of them is, the fields say."""

    additive: ClassVar[bool] = False

    leave_out: LayerSet = option(frozenset(), "layers to skip")

    def members(self) -> tuple[Method, ...]:
        """Required: the methods that it consists of."""
        raise NotImplementedError

    def member_of_tensor(self, name: str) -> Method:
        """Required: the member that has a tensor of this name."""
        raise NotImplementedError

    @property
    def position_convention(self) -> tuple[str, str] | None:
        found = (member.position_convention for member in self.members())
        return next((words for words in found if words), None)

    def problems(self, facts: Facts) -> Iterator[Diagnostic]:
        for member in self.members():
            yield from member.problems(facts)

    def sites(self, facts: Facts) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(s for member in self.members() for s in member.sites(facts)))

    def _at(self, site: Site, facts: Facts) -> Method:
        return next(member for member in self.members() if site in member.sites(facts))

    def restrict_to(self, sites: Collection[Site], facts: Facts) -> Self:
        lost = lost_layers(self.sites(facts), sites, facts)
        return replace(self, leave_out=self.leave_out | lost) if lost else self

    def tensors(self, site: Site, facts: Facts) -> dict[str, Shape]:
        return self._at(site, facts).tensors(site, facts) if site in self.sites(facts) else {}

    def effective_count_at(self, sites: Iterable[Site], facts: Facts) -> int:
        own = ((m, frozenset(m.sites(facts)).intersection(sites)) for m in self.members())
        return sum(member.effective_count_at(here, facts) for member, here in own)

    def init_tensor(self, name: str, tensor: torch.Tensor) -> None:
        self.member_of_tensor(name).init_tensor(name, tensor)

    def is_trainable(self, name: str) -> bool:
        return self.member_of_tensor(name).is_trainable(name)

    def effective_weights(
        self, site: Site, weights: Mapping[str, torch.Tensor], shared: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        return self.member_of_tensor(next(iter(weights))).effective_weights(site, weights, shared)

    def lower(self, part: str, site: Site, facts: Facts) -> Primitive | None:
        found = (member.lower(part, site, facts) for member in self.members())
        return next((node for node in found if node is not None), None)

    def adapterhub_config(self, facts: Facts) -> dict[str, Any]:
        configs = [member.adapterhub_config(facts) for member in self.members()]
        return {"architecture": "union", "configs": configs}

    @classmethod
    def from_adapterhub(cls, config: dict[str, Any], facts: Facts) -> Self | None:
        """The method that a `config` describes, or None if its members are of other families."""
        configs = config.get("configs")
        if config.get("architecture") != "union" or not isinstance(configs, list):
            return None
        kinds = [type(member) for member in cls().members()]
        found: dict[type[Method], Method] = {}
        for one in configs:
            read = (kind.from_adapterhub(dict(one), facts) for kind in kinds)  # type: ignore[attr-defined]
            member = next((method for method in read if method is not None), None)
            if member is not None:
                found[type(member)] = member
        if len(found) != len(kinds) or len(configs) != len(kinds):
            return None
        members = tuple(found[kind] for kind in kinds)
        made = cls.from_members(members)
        return made if made.members() == members else None

    @classmethod
    def from_members(cls, members: tuple[Method, ...]) -> Self:
        """The settings that give these members, as far as settings can."""
        given: dict[str, Any] = {}
        for member, names in zip(members, cls().member_fields(), strict=True):
            given |= {name: getattr(member, name) for name in names}
        return cls(**given)

    def member_fields(self) -> tuple[tuple[str, ...], ...]:
        """Required: for each member, the names of its settings that are settings here, too."""
        raise NotImplementedError

    def member_settings(self) -> tuple[dict[str, Any], ...]:
        """For each member, the values of these settings."""
        return tuple(
            {name: getattr(self, name) for name in names} for names in self.member_fields()
        )

    def adapterhub_keys(self, name: str, site: Site, facts: Facts) -> Mapping[str, Any]:
        return self._at(site, facts).adapterhub_keys(name, site, facts)

    def packed_slice(self, name: str, site: Site, facts: Facts) -> PackedSlice | None:
        return self._at(site, facts).packed_slice(name, site, facts)
