"""What a pass did and what it left alone, with the reason: plans print it, tests count it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Site
from adaptcompose.syntax.signature import format_ranges


@dataclass
class PassLog:
    """Where one pass fired, and where it declined and why.

    >>> log = PassLog()
    >>> log.record_declined(Site("ffn.out", 3), "a member has `norm_after`")
    >>> log.record_declined(Site("ffn.out", 4), "a member has `norm_after`")
    >>> list(log.reasons())
    ['a member has `norm_after` (ffn.out of layers 3..4)']
    """

    applied_at: list[Site | None] = field(default_factory=list)
    declined_at: list[tuple[Site | None, str]] = field(default_factory=list)

    def record_applied(self, site: Site | None = None) -> None:
        """It changed the program at a site, or as a whole."""
        self.applied_at.append(site)

    def record_declined(self, site: Site | None, why: str) -> None:
        """Its condition failed where it would have had something to do."""
        self.declined_at.append((site, why))

    def reasons(self) -> Iterator[str]:
        """A line for each reason."""
        found: dict[tuple[str, str], list[Site | None]] = {}
        for site, why in self.declined_at:
            found.setdefault(("" if site is None else site.name, why), []).append(site)
        for (name, why), sites in found.items():
            layers = sorted({s.layer for s in sites if s is not None and s.layer is not None})
            where = (
                f"{name} of layer{'s' * (len(layers) > 1)} {format_ranges(layers)}"
                if layers
                else name
            )
            yield f"{why} ({where})" if where else why
