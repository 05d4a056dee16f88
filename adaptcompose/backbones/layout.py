"""Families of backbones as data: where their layers are, and which sites in them have a name.

>>> facts = read_facts({"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12,
...     "intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512,
...     "type_vocab_size": 2, "num_attention_heads": 12})
>>> facts.parameters
109482240
>>> facts.layout.path(Site("ffn.in", 5))
'encoder.layer.5.intermediate.dense'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from adaptcompose.diagnostics.codes import AC413, AC504
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.plugins import load_plugins
from adaptcompose.syntax.references import canonical_id

SiteKind = Literal[
    "linear",
    "lookup",
    "norm",
    "sublayer",
    "output",
    "input",
    "attention",
    "vocabulary",
    "tokens",
    "positions",
]
Size = str | Callable[[Mapping[str, Any]], int]
"""A key of config.json, with `{part}` for the part of an encoder-decoder; or a function of it."""


TOKEN_EMBEDDINGS = "embed.tokens"
SITES_BELOW_LAYERS = (
    TOKEN_EMBEDDINGS,
    "tokens",
    "positions",
    "embed.norm",
    "embed.out",
    "embed.project",
)
SITES_ABOVE_LAYERS = ("final.norm", "pooler", "vocabulary", "head.in")
"""The sites outside the layers, in the order in which a state passes them."""
ENCODER_READING_MAPS = ("cross.k", "cross.v")
"""The maps of a decoder that read the output of the encoder."""


@dataclass(frozen=True, order=True)
class Site:
    """A named place in a backbone, such as `embed.out`, or `ffn.out` of layer 5.

    `part` is `encoder` or `decoder` in encoder-decoders, and empty in other backbones.
    """

    name: str
    layer: int | None = None
    part: str = ""

    def __str__(self) -> str:
        places = [self.part, "" if self.layer is None else str(self.layer), self.name]
        return ".".join(filter(None, places))


@dataclass(frozen=True)
class SitePath:
    """Where a site is: the path of a module, below its layer if it is in one, and its `kind`.

    `linear`      a linear map, which weight updates act on
    `lookup`      the token embeddings, as a linear map of one-hot tokens
    `norm`        a LayerNorm or RMSNorm
    `sublayer`    a module whose output h is added to the input x of its sub-layer, possibly after
                  dropout; `norm` is the path of the norm that reads the sum, if there is one
    `output`      a module whose output is the state: the embeddings, or the end of a layer
    `input`       a module whose first argument is the state: the lowest layer
    `attention`   a module that computes attention; prefixes act on its keys and values
    `vocabulary`  the input of the last linear map of a language-model head
    `tokens`      the token embeddings, to which virtual tokens are added
    `positions`   the module that reads position ids, which virtual tokens can shift

    width, width_in  the sizes of the output and of the input
    piece            of several maps in one module: (1, 3) is the second third of its outputs
    bias             whether the map or norm has a bias
    exists_if        whether a config has this site; always, if it is None
    spans_module     whether it is all pieces of its module together
    parts            the parts of an encoder-decoder that have it; all, if it is empty
    adapterhub_path  the module in which AdapterHub's files have its adapters, if not `path`
    is_outside_base  whether it is in classes with a language-model head only
    """

    path: str
    kind: SiteKind
    width: Size = "hidden_size"
    width_in: Size = "hidden_size"
    piece: tuple[int, int] = (0, 1)
    bias: bool | Callable[[Mapping[str, Any]], bool] = True
    exists_if: Callable[[Mapping[str, Any]], bool] | None = None
    spans_module: bool = False
    parts: tuple[str, ...] = ()
    norm: str = ""
    adapterhub_path: str | None = None
    is_outside_base: bool = False


VOCABULARY = SitePath("", "linear", "vocab_size", "embedding_size", is_outside_base=True)
HEAD_IN = SitePath("", "vocabulary", "embedding_size", is_outside_base=True)
"""The last map of a language-model head, and its input."""


@dataclass(frozen=True)
class Layout:
    """One family of backbones.

    base_attributes         model types, and the attribute with the base model in task models
    layers                  the path of the list of layers, below the base model
    sites                   the sites by name
    embedding, width        the keys of config.json with the widths of embeddings and states
    depth                   the keys with the number of layers, one for each part
    heads                   the key with the number of attention heads
    attention_dropout       the key with the dropout of attention
    head_dropout            the keys with the dropout of heads; the first that is set counts
    parameters              the number of parameters, as a function of the config
    pooler                  the path of the pooler, if there is one
    vocabulary              the paths of the last linear map in language models
    attributes              further attributes with the base model, in some task models
    path_variables          for each part, values of the words in braces in paths
    unused_modules          modules that a class has and never calls
    transposed              whether linear maps of the base model store weights as [in, out]
    pooled_token            the token that a head classifies: the first, the last, or the last
                            end-of-sequence token
    starts                  the first token of decoding: one of the config, or the last token of
                            each row
    has_relative_positions  whether attention scores depend on the distance of two positions
    variant                 another layout of the same type, as a function of the config
    scale                   a factor of the states in front of all heads but those that classify

    adapterhub              the classes that AdapterHub's files name, by model type
    adapterhub_stem         where these files have invertible adapters
    adapterhub_lora_flags   their names for the maps of the feed-forward block
    adapterhub_prefix_keys  their names for the prefixes of each attention
    """

    base_attributes: Mapping[str, str]
    layers: str
    sites: Mapping[str, SitePath]
    embedding: str
    parameters: Callable[[Mapping[str, Any]], int]
    pooler: str | None = None
    vocabulary: tuple[str, ...] = ()
    adapterhub: Mapping[str, str] = field(default_factory=dict)
    adapterhub_stem: str = ""
    adapterhub_lora_flags: Mapping[str, str] = field(
        default_factory=lambda: {"intermediate_lora": "ffn.in", "output_lora": "ffn.mid"}
    )
    adapterhub_prefix_keys: Mapping[str, str] = field(
        default_factory=lambda: {
            "": "self_prefix",
            "encoder": "encoder_prefix",
            "decoder": "self_prefix",
            "cross": "cross_prefix",
        }
    )
    width: str = "hidden_size"
    depth: Mapping[str, str] = field(default_factory=lambda: {"": "num_hidden_layers"})
    heads: str = "num_attention_heads"
    attention_dropout: str = "attention_probs_dropout_prob"
    head_dropout: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    attributes: tuple[str, ...] = ()
    path_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unused_modules: tuple[str, ...] = ()
    transposed: bool = False
    pooled_token: Literal["first", "last", "end"] = "first"
    starts: Literal["mark", "last"] = "mark"
    has_relative_positions: bool = False
    variant: Callable[[Mapping[str, Any]], Layout] | None = None
    scale: Callable[[Mapping[str, Any]], float] | None = None

    def path(self, site: Site) -> str:
        """Where the module of a site is, below the base model."""
        return self._below(site, self.sites[site.name].path)

    def paths(self, site: Site) -> tuple[str, ...]:
        """Where it may be: of what is outside the base model, below the whole model."""
        return self.vocabulary if self.sites[site.name].is_outside_base else (self.path(site),)

    def norm(self, site: Site) -> str:
        """Where the norm behind a sub-layer's sum is; "" where there is none."""
        path = self.sites[site.name].norm
        return self._below(site, path) if path else ""

    def adapterhub_path(self, site: Site) -> str:
        """The module in which AdapterHub's files have the adapters of a site."""
        place = self.sites[site.name]
        return self._below(
            site, place.path if place.adapterhub_path is None else place.adapterhub_path
        )

    def _below(self, site: Site, path: str) -> str:
        if site.layer is not None:
            path = ".".join(filter(None, [self.layers, str(site.layer), path]))
        return path.format(**({"part": site.part} | dict(self.path_variables.get(site.part, {}))))

    def base_attribute(self, model_type: str) -> str:
        """The attribute under which task models hold the base model: `bert` in BertForMaskedLM."""
        return self.base_attributes[model_type]

    def key_prefixes(self, model_type: str) -> tuple[str, ...]:
        """What names of tensors begin with in files: of task models, or of the base model."""
        return (*(f"{name}." for name in (self.base_attribute(model_type), *self.attributes)), "")


@dataclass(frozen=True)
class Facts:
    """What config.json alone tells about a backbone."""

    model_type: str
    layout: Layout = field(repr=False, compare=False)
    config: Mapping[str, Any] = field(repr=False, compare=False)
    layers_by_part: Mapping[str, int] = field(repr=False)
    width: int
    embedding: int
    name: str | None = None

    @property
    def layers(self) -> int:
        """How many layers the backbone has; of an encoder-decoder the higher of its parts."""
        return max(self.layers_by_part.values())

    @property
    def parameters(self) -> int:
        """Parameters of AutoModel(config), the pooler included."""
        return self.layout.parameters(self.config)

    @property
    def dtype(self) -> str:
        """What its weights are stored in."""
        words = (self.config.get(name) for name in ("dtype", "torch_dtype"))  # new and older
        return str(next((word for word in words if word), "float32")).removeprefix("torch.")

    @property
    def title(self) -> str:
        return self.name or f"a {self.model_type} of {self.layers} layers, width {self.width}"

    def sites(self, *names: str) -> tuple[Site, ...]:
        """The named sites of every layer, lowest layer first."""
        return tuple(site for part in self.layers_by_part for site in self._inside(part, names))

    def _inside(self, part: str, names: Iterable[str]) -> Iterator[Site]:
        here = [name for name in names if self.has(name, part)]
        for layer in range(self.layers_by_part[part]):
            yield from (Site(name, layer, part) for name in here)

    def all_sites(self) -> tuple[Site, ...]:
        """All sites in the order in which a state passes them."""
        return self._sites

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        inside = [
            name
            for name in self.layout.sites
            if name not in (*SITES_BELOW_LAYERS, *SITES_ABOVE_LAYERS)
        ]
        parts = list(self.layers_by_part)
        found: list[Site] = []
        for part in parts:
            found += self._around(SITES_BELOW_LAYERS, part, shared=part == parts[0])
            found += self._inside(part, inside)
            found += self._around(SITES_ABOVE_LAYERS, part, shared=part == parts[-1])
        return tuple(found)

    def _around(self, names: Iterable[str], part: str, *, shared: bool) -> Iterator[Site]:
        """Sites of a part that are in none of its layers, and those that the parts share."""
        for name in filter(self.has, names):
            if "{part}" in self.layout.sites[name].path:
                yield Site(name, None, part)
            elif shared:
                yield Site(name)

    def has(self, name: str, part: str = "") -> bool:
        """Whether there is a place of this name in a backbone with this config."""
        place = self.layout.sites.get(name)
        if place is None or (place.exists_if is not None and not place.exists_if(self.config)):
            return False
        return not (part and place.parts) or part in place.parts

    def has_bias(self, name: str) -> bool:
        """Whether the map or norm at a place has a bias in a backbone with this config."""
        bias = self.layout.sites[name].bias
        return bias if isinstance(bias, bool) else bias(self.config)

    def is_transposed(self, site: Site) -> bool:
        """Whether the weight of a map is stored with a row for each input, as embeddings are."""
        place = self.layout.sites[site.name]
        inner = place.kind == "linear" and not place.is_outside_base
        return place.kind == "lookup" or (inner and self.layout.transposed)

    def layer_number(self, site: Site) -> int | None:
        """The number of a site's layer, a decoder's counted on from the encoder's."""
        if site.layer is None:
            return None
        below = list(self.layers_by_part)[: list(self.layers_by_part).index(site.part)]
        return site.layer + sum(self.layers_by_part[part] for part in below)

    @property
    def total_layers(self) -> int:
        """How many layers there are, those of all parts."""
        return sum(self.layers_by_part.values())

    def sites_of_kind(self, *kinds: SiteKind) -> tuple[Site, ...]:
        """All sites of some kinds, in the order in which a state passes them."""
        places = self.layout.sites
        return tuple(site for site in self.all_sites() if places[site.name].kind in kinds)

    def sublayer_sites(self) -> tuple[Site, ...]:
        """The sites of adapters after attention and feed-forward, lowest layer first."""
        return self.sites_of_kind("sublayer")

    def width_at(self, site: Site) -> int:
        """Width of the state at a site (of its output, for a linear map)."""
        return self._size(self.layout.sites[site.name].width, site.part)

    def input_width_at(self, site: Site) -> int:
        """Width of what a linear map reads."""
        return self._size(self.layout.sites[site.name].width_in, site.part)

    def _size(self, size: Size, part: str) -> int:
        if not isinstance(size, str):
            return int(size(self.config) or self.width)
        return int(self.config.get(size.format(part=part)) or self.width)

    def heads(self, part: str) -> int:
        """How many heads the attention of a part has; of the first, where none is named."""
        return int(
            self.config[self.layout.heads.format(part=part or next(iter(self.layers_by_part)))]
        )


_LAYOUTS: dict[str, Layout] = {}


def register_layout(layout: Layout) -> Layout:
    for model_type in layout.base_attributes:
        _LAYOUTS[model_type] = layout
    return layout


def registered_layouts() -> Mapping[str, Layout]:
    """The layouts by model type, those of installed packages among them."""
    for plugin in load_plugins("layouts"):
        if isinstance(plugin.target, Layout):
            register_layout(plugin.target)
    return _LAYOUTS


def layout_of(model_type: str) -> Layout:
    if model_type not in registered_layouts():
        raise Failed(AC504.at(type=model_type, known=", ".join(sorted(registered_layouts()))))
    return _LAYOUTS[model_type]


def read_facts(config: Mapping[str, Any], name: str | None = None) -> Facts:
    """Facts from the content of config.json; `name` is the backbone's name on the Hub, if known."""
    layout = layout_of(str(config.get("model_type")))
    try:
        facts = _facts(layout.variant(config) if layout.variant else layout, config, name)
        if facts.parameters <= 0:
            raise ValueError("a size is not above 0")
    except KeyError as error:
        raise Failed(AC413.at(file="config.json", why=f"it has no {error.args[0]}")) from None
    except (TypeError, ValueError, ArithmeticError) as error:
        why = f"it has invalid sizes: {str(error)[:80]}"
        raise Failed(AC413.at(file="config.json", why=why)) from None
    return facts


def _facts(layout: Layout, config: Mapping[str, Any], name: str | None) -> Facts:
    width = _number(config[layout.width], _WIDEST)
    first = next(iter(layout.depth.values()))
    return Facts(
        model_type=str(config["model_type"]),
        layout=layout,
        config=config,
        # a decoder of unknown depth is as deep as its encoder
        layers_by_part={
            part: _number(config.get(key) or config[first], _DEEPEST)
            for part, key in layout.depth.items()
        },
        width=width,
        embedding=_number(config.get(layout.embedding) or width, _WIDEST),
        name=canonical_id(name) if name else None,
    )


_WIDEST, _DEEPEST = 1_000_000, 1_000


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"{str(value)[:40]} is not between 1 and {most}")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder, or AC413."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Failed(
            AC413.at(
                file=path,
                why=str(error),
                help="name a folder or repository with a checkpoint of transformers",
            )
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise Failed(AC413.at(file=path, why="it has no model_type"))
    return config
