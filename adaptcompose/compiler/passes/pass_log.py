"""The log of a pass: where it changed the program, and where it did not and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Site
from adaptcompose.syntax.signature import format_ranges


@dataclass
class PassLog:
    """Where one pass changed the program, and where it declined and why. Plans print it.

    >>> log = PassLog()
    >>> log.record_declined(Site("ffn.out", 3), "a member has `norm_after`")
    >>> log.record_declined(Site("ffn.out", 4), "a member has `norm_after`")
    >>> list(log.reasons())
    ['a member has `norm_after` (ffn.out of layers 3..4)']
    """

    applied_at: list[Site | None] = field(default_factory=list)
    declined_at: list[tuple[Site | None, str]] = field(default_factory=list)

    def record_applied(self, site: Site | None = None) -> None:
        """Note that the pass changed the program at a site; without one, as a whole."""
        self.applied_at.append(site)

    def record_declined(self, site: Site | None, why: str) -> None:
        """Note that the condition failed at a site at which the pass could have applied."""
        self.declined_at.append((site, why))

    def reasons(self) -> Iterator[str]:
        """One line for each reason to decline, with the sites for which it holds."""
        sites_of: dict[tuple[str, str], list[Site | None]] = {}
        for site, why in self.declined_at:
            sites_of.setdefault(("" if site is None else site.name, why), []).append(site)
        for (name, why), sites in sites_of.items():
            layers = sorted({s.layer for s in sites if s is not None and s.layer is not None})
            word = "layer" if len(layers) == 1 else "layers"
            where = f"{name} of {word} {format_ranges(layers)}" if layers else name
            yield f"{why} ({where})" if where else why
