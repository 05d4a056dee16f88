"""What a pass did and what it left alone, with the reason: plans print it, tests count it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from adaptcompose.backbones.layout import Site
from adaptcompose.syntax.signature import spans


@dataclass
class Log:
    """Where one pass fired, and where it declined and why.

    >>> log = Log()
    >>> log.declined(Site("ffn.out", 3), "`norm_after` stands behind a member")
    >>> log.declined(Site("ffn.out", 4), "`norm_after` stands behind a member")
    >>> list(log.reasons())
    ['ffn.out of layers 3..4: `norm_after` stands behind a member']
    """

    done: list[Site | None] = field(default_factory=list)
    left: list[tuple[Site | None, str]] = field(default_factory=list)

    def fired(self, site: Site | None = None) -> None:
        """It changed the program at a site, or as a whole."""
        self.done.append(site)

    def declined(self, site: Site | None, why: str) -> None:
        """Its condition failed where it would have had something to do."""
        self.left.append((site, why))

    def reasons(self) -> Iterator[str]:
        """A line for each reason."""
        found: dict[tuple[str, str], list[Site | None]] = {}
        for site, why in self.left:
            found.setdefault(("" if site is None else site.name, why), []).append(site)
        for (name, why), sites in found.items():
            layers = sorted({s.layer for s in sites if s is not None and s.layer is not None})
            where = f"{name} of layers {spans(layers)}" if layers else name
            yield f"{where}: {why}" if where else why
