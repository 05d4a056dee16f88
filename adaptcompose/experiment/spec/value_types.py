"""Types of values in spec.yaml: a reference to data, a range of layers, a duration.

>>> str(DataRef.parse("wikiann[en]/test"))
'wikiann[en]/test'
>>> LayerRange.parse("0..5").last
5
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

_DATA = re.compile(r"([\w.-]+)(?:\[([^\[\]/\s]+)\])?(?:/([\w.-]+))?")


@dataclass(frozen=True)
class DataRef:
    """A reference to data: `name`, `name[config]`, `name/split` or `name[config]/split`."""

    expected: ClassVar[str] = "data as name, name[config], name/split or name[config]/split"

    name: str
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> DataRef:
        if not (match := _DATA.fullmatch(text)):
            raise ValueError(text)
        return cls(*match.groups())

    def __str__(self) -> str:
        config = f"[{self.config}]" if self.config else ""
        return f"{self.name}{config}" + (f"/{self.split}" if self.split else "")


@dataclass(frozen=True)
class LayerRange:
    """A range of layers, `first..last`. Both ends belong to it."""

    expected: ClassVar[str] = "a range such as 0..5"
    pattern: ClassVar[str] = r"([0-9]{1,4})\.\.([0-9]{1,4})"

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> LayerRange:
        match = re.fullmatch(cls.pattern, text)
        if not match or int(match[1]) > int(match[2]):
            raise ValueError(text)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


class ScalarText(str):
    """A text that may look like a number: a label, a column, the value of a variable."""

    expected: ClassVar[str] = "a string or a number"

    @classmethod
    def parse(cls, text: str) -> ScalarText:
        return cls(text)


class Duration(float):
    """A duration in seconds.

    >>> [float(Duration.parse(text)) for text in ("30m", "1h30m", "5ms", "90")]
    [1800.0, 5400.0, 0.005, 90.0]
    """

    expected: ClassVar[str] = "a time such as 90s, 30m or 1h30m"
    pattern: ClassVar[str] = (
        r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhd]))*[0-9]+(?:\.[0-9]+)?(?:ms|[smhd])?"
    )
    _UNITS: ClassVar[dict[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

    @classmethod
    def parse(cls, text: str) -> Duration:
        if not re.fullmatch(cls.pattern, text):
            raise ValueError(text)
        parts = re.findall(r"([0-9.]+)([a-z]*)", text)
        return cls(sum(float(number) * cls._UNITS[unit or "s"] for number, unit in parts))
