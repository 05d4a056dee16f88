"""The attention that the members of fusions get, measured by a run, and the file that records it.

`prune` reads such a file: `fuse(glue/*) | prune(keep=2, by=runs/glue)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed, Span
from adaptcompose.storage.yaml_source import dump_yaml, load_yaml, read_source

Activations = Mapping[str, Mapping[str, tuple[float, ...]]]
"""The mean attention on each member, by fusion and site; 0 for a member that is not at the site."""

ACTIVATIONS_FILE = "activations.yaml"
"""The file with the activations, in the folder of a run or of a saved composition."""


def read_activations(path: Path, title: str, span: Span | None = None) -> Activations:
    """Read activations from a file, or from the folder of a run.

    Raises Failed with AC607 if there is no file, AC413 if the file has other content. Messages
    call the file `title`.
    """
    file = path / ACTIVATIONS_FILE if path.is_dir() else path
    if not file.is_file():
        raise Failed(codes.AC607.at(span, path=title, root=path.parent))
    content = load_yaml(read_source(file, title).text, title)
    try:
        return parse_activations(content["fusions"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Failed(
            codes.AC413.at(span, file=title, why="it does not contain the attention of fusions")
        ) from None


def parse_activations(fusions: Any) -> Activations:
    """Activations from the plain values of a file.

    Raises AttributeError, TypeError or ValueError if the values have another structure.
    """
    return {
        str(name): {
            str(site): tuple(float(mean) for mean in means) for site, means in sites.items()
        }
        for name, sites in fusions.items()
    }


def format_activations(activations: Activations) -> str:
    """The text of a file of activations, with means to 6 digits."""
    rounded = {
        name: {site: [round(mean, 6) for mean in means] for site, means in sites.items()}
        for name, sites in activations.items()
    }
    return dump_yaml({"activations": 1, "fusions": rounded})
