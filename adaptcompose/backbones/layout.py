"""A family of backbones as data: where its layers are, and which places in them have a name.

>>> facts = read_facts({"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12,
...     "intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512,
...     "type_vocab_size": 2, "num_attention_heads": 12})
>>> facts.parameters
109482240
>>> facts.layout.path(Site("ffn.out", 5))
'encoder.layer.5.output'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adaptcompose.hub.refs import canonical_id
from adaptcompose.language.codes import AC413, AC504
from adaptcompose.language.diagnostics import Failed
from adaptcompose.plugins import plugins

Kind = Literal[
    "linear", "norm", "sublayer", "output", "attention", "vocabulary", "tokens", "positions"
]


BELOW = ("tokens", "positions", "embed.norm", "embed.out", "embed.project")
ABOVE = ("final.norm", "pooler", "head.in")
"""The places that are in no layer, in the order in which a state passes them."""


@dataclass(frozen=True, order=True)
class Site:
    """A named place: `embed.out`, or `ffn.out` of layer 5. `part` is set in encoder-decoders."""

    name: str
    layer: int | None = None
    part: str = ""

    def __str__(self) -> str:
        places = [self.part, "" if self.layer is None else str(self.layer), self.name]
        return ".".join(filter(None, places))


@dataclass(frozen=True)
class Place:
    """Where a site is: a module path (below its layer, if it is in one) and what stands there.

    `linear`      a linear map (weight deltas act on it)
    `norm`        a LayerNorm or RMSNorm
    `sublayer`    dense, dropout, then LayerNorm(h + x): what post-norm adapters stand in
    `output`      a module whose output is the state (embeddings, the end of a layer)
    `attention`   a module that computes attention (prefixes act on its keys and values)
    `vocabulary`  the last linear map of a language-model head
    `tokens`      the token embeddings (virtual tokens go beside them)
    `positions`   what reads position ids (virtual tokens can move them)

    `width` and `width_in` are keys of config.json: the size of the output, of the input. Several
    maps in one module have the same path: `piece` (1, 3) is the second third of its outputs.
    `bias` says whether there is one, `there` whether a config has the place at all.
    """

    path: str
    kind: Kind
    width: str = "hidden_size"
    width_in: str = "hidden_size"
    piece: tuple[int, int] = (0, 1)
    bias: bool = True
    there: Callable[[Mapping[str, Any]], bool] | None = None


@dataclass(frozen=True)
class Layout:
    """One family: model types with the attribute that holds the base model, and its places.

    `vocabulary` are the paths at which language models keep their last linear map; `adapterhub`
    are the classes that AdapterHub's files name for the types.
    """

    types: Mapping[str, str]
    layers: str
    sites: Mapping[str, Place]
    embedding: str
    parameters: Callable[[Mapping[str, Any]], int]
    pooler: str | None = None
    vocabulary: tuple[str, ...] = ()
    adapterhub: Mapping[str, str] = field(default_factory=dict)

    def path(self, site: Site) -> str:
        place = self.sites[site.name]
        if site.layer is None:
            return place.path
        return ".".join(filter(None, [self.layers, str(site.layer), place.path]))

    def prefix(self, model_type: str) -> str:
        """The attribute under which task models hold the base model: `bert` in BertForMaskedLM."""
        return self.types[model_type]


@dataclass(frozen=True)
class Facts:
    """What config.json alone tells about a backbone."""

    type: str
    layout: Layout = field(repr=False, compare=False)
    config: Mapping[str, Any] = field(repr=False, compare=False)
    layers: int
    width: int
    embedding: int
    name: str | None = None

    @property
    def parameters(self) -> int:
        """Parameters of AutoModel(config), the pooler included."""
        return self.layout.parameters(self.config)

    @property
    def title(self) -> str:
        return self.name or f"a {self.type} of {self.layers} layers, width {self.width}"

    def sites(self, *names: str) -> tuple[Site, ...]:
        """The named sites of every layer, lowest layer first."""
        return tuple(Site(name, layer) for layer in range(self.layers) for name in names)

    def every_site(self) -> tuple[Site, ...]:
        """All sites in the order in which a state passes them."""
        inside = [name for name in self.layout.sites if name not in (*BELOW, *ABOVE)]
        first = [Site(name) for name in BELOW if self.has(name)]
        last = [Site(name) for name in ABOVE if self.has(name)]
        return (*first, *self.sites(*filter(self.has, inside)), *last)

    def has(self, name: str) -> bool:
        """Whether there is a place of this name in a backbone with this config."""
        place = self.layout.sites.get(name)
        return place is not None and (place.there is None or place.there(self.config))

    def of_kind(self, *kinds: Kind) -> tuple[Site, ...]:
        """All sites of some kinds, in the order in which a state passes them."""
        places = self.layout.sites
        return tuple(site for site in self.every_site() if places[site.name].kind in kinds)

    def sublayers(self) -> tuple[Site, ...]:
        """The sites of adapters after attention and feed-forward, lowest layer first."""
        names = [name for name, place in self.layout.sites.items() if place.kind == "sublayer"]
        return self.sites(*names)

    def size(self, site: Site) -> int:
        """Width of the state at a site (of its output, for a linear map)."""
        key = self.layout.sites[site.name].width
        return int(self.config.get(key) or self.width)

    def size_in(self, site: Site) -> int:
        """Width of what a linear map reads."""
        key = self.layout.sites[site.name].width_in
        return int(self.config.get(key) or self.width)


_LAYOUTS: dict[str, Layout] = {}


def add_layout(layout: Layout) -> Layout:
    for model_type in layout.types:
        _LAYOUTS[model_type] = layout
    return layout


def layouts() -> Mapping[str, Layout]:
    """The layouts by model type, those of installed packages among them."""
    for plugin in plugins("layouts"):
        if isinstance(plugin.loaded, Layout):
            add_layout(plugin.loaded)
    return _LAYOUTS


def layout_of(model_type: str) -> Layout:
    if model_type not in layouts():
        raise Failed(AC504.at(type=model_type, known=", ".join(sorted(layouts()))))
    return _LAYOUTS[model_type]


def read_facts(config: Mapping[str, Any], name: str | None = None) -> Facts:
    """Facts from the content of config.json; `name` is the backbone's name on the Hub, if known."""
    layout = layout_of(str(config.get("model_type")))
    return Facts(
        type=str(config["model_type"]),
        layout=layout,
        config=config,
        layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        embedding=int(config.get(layout.embedding) or config["hidden_size"]),
        name=canonical_id(name) if name else None,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder, or AC413."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Failed(
            AC413.at(file=path, why=str(error), help="a backbone needs config.json")
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise Failed(AC413.at(file=path, why="it names no model_type"))
    return config
