"""Write adapters, fusions and heads as `adapters` 1.3 writes them, so that it loads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.formats.adapterhub import ADAPTER, FUSION, HEAD, WEIGHTS
from adaptcompose.formats.tensors import write_bin, write_tensors
from adaptcompose.methods import Method
from adaptcompose.methods.fusion import Fusion
from adaptcompose.storage.atomic import write_atomically

if TYPE_CHECKING:
    import torch

VERSION = "adapters.1.3.0"


@dataclass(frozen=True)
class AdapterHubWriter:
    """Writes the objects of one backbone.

    `adapters` loads them without a missing or an unexpected key.
    """

    facts: Facts
    pickles: bool = True
    """Also write `.bin`, without which `adapters` does not open a folder by default."""

    def adapter(
        self,
        folder: Path,
        name: str,
        method: Method,
        weights: Mapping[tuple[Site, str], torch.Tensor],
    ) -> None:
        self._describe(folder / ADAPTER, name, {"config": method.adapterhub_config(self.facts)})
        self._weights(folder, ADAPTER, dict(self._keyed(method, name, weights)))

    def fusion(
        self,
        folder: Path,
        names: Sequence[str],
        method: Fusion,
        weights: Mapping[tuple[Site, str], torch.Tensor],
    ) -> None:
        name = ",".join(names)
        more = {"config": method.adapterhub_config(self.facts), "adapter_names": list(names)}
        self._describe(folder / FUSION, name, more)
        self._weights(folder, FUSION, dict(self._keyed(method, name, weights)))

    def head(
        self,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self._describe(folder / HEAD, name, {"config": dict(config)})
        self._weights(folder, HEAD, {f"heads.{name}.{key}": t for key, t in tensors.items()})

    def _keyed(
        self, method: Method, name: str, weights: Mapping[tuple[Site, str], torch.Tensor]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        prefix = self.facts.layout.base_attribute(self.facts.model_type)
        shares: dict[str, dict[int, torch.Tensor]] = {}
        for site in method.sites(self.facts):
            for tensor, keys in method.adapterhub_keys(name, site, self.facts).items():
                packed = method.packed_slice(tensor, site, self.facts)
                for key in (f"{prefix}.{key}" for key in keys):
                    if packed is None:
                        yield key, weights[site, tensor]
                        continue
                    found = shares.setdefault(key, {})
                    found[packed.index] = weights[site, tensor]
                    if len(found) == packed.count:
                        yield key, packed.pack([found[index] for index in range(packed.count)])

    def _describe(self, path: Path, name: str, more: Mapping[str, Any]) -> None:
        outer = {
            "hidden_size": self.facts.width,
            "model_class": self.facts.layout.adapterhub.get(self.facts.model_type),
            "model_name": self.facts.name or "",
            "model_type": self.facts.model_type,
            "name": name,
            "version": VERSION,
        }
        text = json.dumps(outer | dict(more), indent=2, sort_keys=True, ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)

    def _weights(self, folder: Path, kind: str, tensors: Mapping[str, torch.Tensor]) -> None:
        safe, pickle = WEIGHTS[kind]
        write_tensors(folder / safe, tensors)
        if self.pickles:
            write_bin(folder / pickle, tensors)
