"""The configuration of one stored adapter, head or fusion, and the checks that both formats share.

Configurations are read without torch. Nothing that a file says becomes a path, a module or an
import.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.diagnostics.codes import AC403, AC408, AC413
from adaptcompose.diagnostics.diagnostic import Failed, Span
from adaptcompose.formats.tensors import is_finite
from adaptcompose.syntax.references import canonical_id

if TYPE_CHECKING:
    import torch

CONFIG_LIMIT = 1_000_000  # bytes; far more than a configuration needs


@dataclass(frozen=True)
class StoredObject:
    """The configuration of one adapter, head or fusion.

    `document` is the file as it was written, `config` the settings in AdapterHub's newest form.
    `name` is part of the keys of the object's weights. `backbone_name` is the name of the backbone
    as the file has it. Messages call the object `title` and point at `span`.
    """

    folder: Path
    title: str
    name: str
    config: Mapping[str, Any]
    document: Mapping[str, Any]
    span: Span | None = None
    backbone_name: str = ""

    @property
    def base(self) -> str | None:
        """The repository of the backbone; None if the file names none, or a path of its author's.

        Trainers record what they loaded the backbone from, which is often a folder.
        """
        name = self.backbone_name
        is_local = name.startswith((".", "/", "~")) or name.count("/") > 1
        return canonical_id(name) if name and not is_local else None


def read_document(
    folder: Path, file: str, title: str, span: Span | None = None
) -> dict[str, Any] | None:
    """The JSON mapping in a configuration file, or None if the folder has no such file.

    Raises Failed with AC413 if the file is something else or larger than 1 MB.
    """
    path = folder / file
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            raise ValueError("it is larger than 1 MB")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it is not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise Failed(AC413.at(span, file=f"{title}: {file}", why=str(error))) from None
    return document


@contextmanager
def config_errors(stored: StoredObject, file: str) -> Iterator[None]:
    """Report exceptions in the body as AC413: the configuration in `file` is invalid.

    Readers index and convert the settings of a file without checking the type of each first.
    """
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        why = f"its configuration is invalid: {error}"
        raise Failed(AC413.at(stored.span, file=f"{stored.title}: {file}", why=why)) from None


def check_base(stored: StoredObject, facts: Facts) -> None:
    """Raise Failed if an object was trained on another backbone.

    AC403 for another type or name of model, AC408 for another width. Type and width come first,
    since they are certain, whereas the same backbone may have several names.
    """
    model_type, width = stored.document.get("model_type"), stored.document.get("hidden_size")
    if model_type is not None and model_type != facts.model_type:
        base = stored.base or f"a {model_type} model"
        backbone = facts.name or f"a {facts.model_type} model"
        raise Failed(AC403.at(stored.span, name=stored.title, base=base, backbone=backbone))
    if width is not None and width != facts.width:
        detail = f"it was made for width {width}, but the backbone has width {facts.width}"
        raise Failed(AC408.at(stored.span, name=stored.title, detail=detail))
    if stored.base and facts.name and stored.base != facts.name:
        raise Failed(
            AC403.at(stored.span, name=stored.title, base=stored.base, backbone=facts.name)
        )


def check_finite(stored: StoredObject, weights: Mapping[tuple[Site, str], torch.Tensor]) -> None:
    """Raise Failed with AC413 if a tensor has values other than finite floating-point numbers."""
    for (site, name), tensor in weights.items():
        if not tensor.is_floating_point() or not is_finite(tensor):
            why = f"{name} at {site} contains values that are not finite floating-point numbers"
            raise Failed(AC413.at(stored.span, file=stored.title, why=why))
