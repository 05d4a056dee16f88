"""Plans: what a run would create, load, download and train, without loading any weight.

Parameters are counted for the backbone as AutoModel(config) builds it, with the pooler; for every
part at the sites at which the composition uses it; and for the head. Nothing here imports torch.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.passes import run_passes
from adaptcompose.compiler.trunk import TrunkPlan
from adaptcompose.hub.lock import Pin
from adaptcompose.ir.program import Program
from adaptcompose.methods.method import SHARED_SITE

WIDTH = 100
_LABEL = 28
_MANY = 4
_NARROW = 6


@dataclass(frozen=True)
class PlanRow:
    """One line of a plan: an adapter, a fusion, or the head.

    sites                 the sites at which the composition uses the part
    owned                 the number of sites of each name that a loaded part has in all
    parameters            the number of parameters at `sites`
    frozen_parameters     those of them that training does not change
    effective_parameters  the values that its primitives read, without the networks that make them
    bias_parameters       those of the parameters that are biases
    call                  a new part as the language writes it
    pin                   the repository and revision, or the folder, of a loaded part
    download_bytes        the bytes of its files that are not on this machine yet
    """

    name: str
    kind: Literal["adapter", "fusion", "head"]
    new: bool
    trained: bool
    parameters: int
    slots: tuple[str, ...] = ()
    call: str = ""
    reference: str | None = None
    pin: Pin | None = None
    base: str | None = None
    sites: tuple[Site, ...] = ()
    owned: Mapping[str, int] | None = None
    download_bytes: int = 0
    frozen_parameters: int = 0
    effective_parameters: int = 0
    bias_parameters: int = 0

    @property
    def mark(self) -> str:
        return "+" if self.new else "="

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers in which the part is used."""
        return tuple(sorted({site.layer for site in self.sites if site.layer is not None}))

    def layers_of(self, part: str) -> frozenset[int]:
        """The layers in which it is used, in one part of the backbone, such as the encoder."""
        here = [site for site in self.sites if site.part == part]
        return frozenset(site.layer for site in here if site.layer is not None)

    @property
    def is_at_embeddings(self) -> bool:
        """Whether it is used outside the layers."""
        return any(site.layer is None for site in backbone_sites(self.sites))

    @property
    def counts(self) -> dict[str, int]:
        """The number of sites of each name at which it is used, those in layers first."""
        ordered = sorted(backbone_sites(self.sites), key=lambda site: site.layer is None)
        return dict(Counter(site.name for site in ordered))

    def as_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {"name": self.name, "kind": self.kind, "mark": self.mark}
        record |= {"slots": list(self.slots), "trained": self.trained}
        record |= {"parameters": self.parameters, "sites": self.counts, "layers": list(self.layers)}
        if self.kind == "adapter" and self.effective_parameters != self.parameters:
            record["lowered"] = self.effective_parameters
        if self.new:
            return record | {"method": self.call}
        record |= {"method": self.call, "reference": self.reference, "unused": self.unused()}
        return record | {"pin": _plain(self.pin), "base": self.base, "fetch": self.download_bytes}

    def unused(self) -> dict[str, int]:
        """The number of sites of each name that the part has and the composition does not use."""
        counts = self.counts
        unused = {name: owned - counts.get(name, 0) for name, owned in (self.owned or {}).items()}
        return {name: number for name, number in unused.items() if number}


@dataclass(frozen=True)
class Plan:
    """Everything that a run would do. `pin` is the backbone's.

    `other_downloads` are the bytes to download for the backbone, the tokenizer and the data.
    `trunk` are the layers that are computed once per example, if the training caches them.
    """

    expression: str
    facts: Facts
    rows: tuple[PlanRow, ...]
    program: Program
    head: str | None = None
    title: str = ""
    pin: Pin | None = None
    other_downloads: Mapping[str, int] = field(default_factory=dict)
    trunk: TrunkPlan | None = None

    @property
    def backbone_parameters(self) -> int:
        return self.facts.parameters

    @property
    def total_parameters(self) -> int:
        return self.backbone_parameters + sum(item.parameters for item in self.rows)

    @property
    def trained_parameters(self) -> int:
        return sum(item.parameters - item.frozen_parameters for item in self.rows if item.trained)

    @property
    def counting_note(self) -> str:
        """A line that says what the numbers count, because papers count differently."""
        biases = sum(item.bias_parameters for item in self.rows)
        more = f", with {biases:,} biases" if biases else ""
        return f"backbone as AutoModel builds it, with pooler; parts as used{more}; head"

    @property
    def new_count(self) -> int:
        return sum(item.new for item in self.rows)

    @property
    def loaded_count(self) -> int:
        """The number of adapters and fusions to load; a head comes with its adapter."""
        return sum(not item.new and item.kind != "head" for item in self.rows)

    @property
    def download_bytes(self) -> int:
        """The bytes that are not on this machine yet."""
        return sum(self.other_downloads.values()) + sum(item.download_bytes for item in self.rows)

    def declined_passes(self) -> dict[str, list[str]]:
        """For each pass that declines somewhere, the reasons."""
        return {
            name: found for name, _, log in run_passes(self.program) if (found := [*log.reasons()])
        }

    def unverified_parts(self) -> tuple[str, ...]:
        """Loaded parts whose backbone cannot be compared with this one by name."""
        loaded = [item for item in self.rows if item.pin is not None and item.kind != "head"]
        return tuple(i.name for i in loaded if i.base is None or self.facts.name is None)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        parts = {item.name: item.parameters for item in self.rows if item.kind != "head"}
        head = sum(item.parameters for item in self.rows if item.kind == "head")
        facts = self.facts
        backbone: dict[str, Any] = {
            "name": facts.name,
            "type": facts.model_type,
            "layers": facts.layers,
        }
        backbone |= {"width": facts.width, "pin": _plain(self.pin)}
        return {
            "title": self.title,
            "expression": self.expression,
            "backbone": backbone,
            "items": [item.as_dict() for item in self.rows],
            "head": self.head,
            "create": self.new_count,
            "load": self.loaded_count,
            "fetch": self.download_bytes,
            "declined": self.declined_passes(),
            "parameters": {
                "trained": self.trained_parameters,
                "total": self.total_parameters,
                "backbone": self.backbone_parameters,
                "parts": parts,
                "head": head,
                "counted": self.counting_note,
            },
        }

    def __str__(self) -> str:
        return format_plan(self)


def backbone_sites(sites: Iterable[Site]) -> Iterator[Site]:
    """The sites that are places of the backbone: all but the key of shared tensors."""
    return (site for site in sites if site.name != SHARED_SITE.name)


def _plain(pin: Pin | None) -> dict[str, Any] | None:
    if pin is None:
        return None
    if pin.path is not None:
        return {"path": pin.path}
    plain = {"repo": pin.repo, "revision": pin.revision}
    return plain | ({"subfolder": pin.subfolder} if pin.subfolder else {})


def format_plan(plan: Plan) -> str:
    """The text of a plan: header, parts, sources, layers, notes, and the sum."""
    blocks = [_header(plan), _parts(plan), _pins(plan), _layers(plan), _notes(plan)]
    blocks.append([*_fetch(plan), _sum(plan), f"Counted: {plan.counting_note}."])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def format_count(number: int) -> str:
    """A number of parameters in four signs or so.

    >>> [format_count(n) for n in (7, 5383, 894528, 278043648)]
    ['7', '5.4 k', '0.9 M', '278.0 M']
    """
    if number >= 100_000:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1000 else str(number)


def format_bytes(number: int) -> str:
    """A number of bytes.

    >>> format_bytes(812), format_bytes(3_600_000), format_bytes(1_120_000_000)
    ('812 B', '3.6 MB', '1.1 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} B"


def percent(part: int, whole: int) -> str:
    """A share with two decimals, or with two digits if it is very small.

    >>> percent(899911, 286343463), percent(5383, 278049031), percent(0, 5)
    ('0.31 %', '0.0019 %', '0 %')
    """
    share = 100 * part / whole if whole else 0.0
    if not share:
        return "0 %"
    return f"{share:.2f} %" if share >= 0.01 else f"{share:.2g} %"


def elide_middle(words: str, width: int) -> str:
    """A long name with its middle replaced by `…`.

    >>> elide_middle("AdapterHub/bert-base-uncased-pf-mnli", 20)
    'AdapterHub…d-pf-mnli'
    """
    if len(words) <= width:
        return words
    end = (width - 1) // 2
    return words[: width - 1 - end] + "…" + words[len(words) - end :]


def shorten_list(listed: str, width: int) -> str:
    """A long list with its end replaced by the number of entries that are left out.

    >>> shorten_list("attn.q ×12, attn.v ×12, ffn.in ×12", 20)
    'attn.q ×12 … (+2)'
    """
    words = listed.split(", ")
    for omitted in range(1, len(words)):
        shortened = f"{', '.join(words[:-omitted])} … (+{omitted})"
        if len(listed) > width >= len(shortened):
            return shortened
    return listed if len(listed) <= width else elide_middle(f"{len(words)} sites", width)


def _header(plan: Plan) -> list[str]:
    facts = plan.facts
    depth = " + ".join(map(str, facts.layers_by_part.values()))
    base = (
        f"on {_backbone(plan)} ({depth} layers, {format_count(plan.backbone_parameters)}, frozen)"
    )
    title = [plan.title] if plan.title else []
    expression = " ".join(plan.expression.split())
    line = "   ".join([*title, expression, base])
    if len(line) <= WIDTH:
        return [line]
    wrapped = textwrap.wrap(expression, WIDTH - 4, break_on_hyphens=False)
    first = "   ".join([*title, expression])
    if len(first) <= WIDTH:
        return [first, f"  {base}"]
    first, *others = [*title, *wrapped]
    return [first, *(f"  {row}" for row in others), f"  {base}"]


def _backbone(plan: Plan) -> str:
    """`FacebookAI/xlm-roberta-base@e73636d`, or a folder and its name on the Hub."""
    pin, name = plan.pin, plan.facts.name
    if pin is not None and pin.path is not None:
        return f"{pin.path} as {name}" if name else pin.path
    if pin is not None:
        return str(pin)
    return name or f"a {plan.facts.model_type}"


def _parts(plan: Plan) -> list[str]:
    """A row for each part, with its source if that fits."""
    if not plan.rows and plan.head is None:
        return ["  no adapters, only the backbone"]
    rows = _rows(plan, pinned=True)
    if _excess(rows) > 0:
        rows = _rows(plan, pinned=False)
    return _table(_fit_columns(rows))


def _fit_columns(rows: list[list[str]]) -> list[list[str]]:
    """The rows with the widest column cut again and again, until the table fits."""
    cuts = (elide_middle, elide_middle, elide_middle, shorten_list)
    widths = [max(len(row[column]) for row in rows) for column in range(len(cuts))]
    fitted = rows
    while _excess(fitted) > 0 and max(widths) > _NARROW:
        widths[widths.index(max(widths))] -= 1
        fitted = [
            [cut(cell, width) for cut, cell, width in zip(cuts, row, widths, strict=False)]
            + row[len(cuts) :]
            for row in rows
        ]
    return fitted


def _excess(rows: list[list[str]]) -> int:
    """The number of characters by which a table is too wide."""
    return max((len(line) for line in _table(rows)), default=0) - WIDTH


def _rows(plan: Plan, *, pinned: bool) -> list[list[str]]:
    rows = [_row(item, pinned=pinned) for item in plan.rows]
    own = ["= head", "", "the backbone's own, not counted", "", "", "frozen"]
    return [*rows, own] if plan.head == "backbone" else rows


def _row(item: PlanRow, *, pinned: bool) -> list[str]:
    """Mark and slot, name, source, sites, parameters, state."""
    if item.kind == "head":
        slot, name = "head", "" if item.new else item.name
        source, sites = item.call, ""
    else:
        slot = ", ".join(item.slots)
        name = "" if item.name == slot else item.name
        if _is_place(item):
            name = str(item.pin)
        pin = str(item.pin) if pinned and _informative(item) else ""
        source = f"new {item.call}" if item.new else pin
        sites = _sites(item)
    state = "trained" if item.trained else "frozen"
    return [f"{item.mark} {slot}", name, source, sites, format_count(item.parameters), state]


def _is_place(item: PlanRow) -> bool:
    """Whether the reference is a repository or a folder, so that its pin names it best."""
    pin = item.pin
    return pin is not None and (pin.path is not None or str(pin.repo) in str(item.reference))


def _informative(item: PlanRow) -> bool:
    """Whether the pin says more than the name does."""
    return item.pin is not None and not _is_place(item)


def _sites(item: PlanRow) -> str:
    """`ffn.out ×7 of 12, embeddings`."""
    words = []
    for name, count in item.counts.items():
        if name == "embed.out":
            words.append("embeddings")
            continue
        owned = (item.owned or {}).get(name, count)
        words.append(f"{name} ×{count}{f' of {owned}' if owned > count else ''}")
    return ", ".join(words) or "unused"


def _table(rows: list[list[str]], gap: int = 3) -> list[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(6)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        ]
        lines.append(("  " + (" " * gap).join(cells)).rstrip())
    tight = gap > 2 and max(map(len, lines), default=0) > WIDTH
    return _table(rows, gap - 1) if tight else lines


def _pins(plan: Plan) -> list[str]:
    """The sources in a block of their own, if the table has no room for them."""
    if _excess(_rows(plan, pinned=True)) <= 0:
        return []
    shortened = _excess(_rows(plan, pinned=False)) > 0
    loaded = [i for i in plan.rows if i.kind != "head" and i.pin is not None]
    rows = [(elide_middle(i.name, 36), str(i.pin)) for i in loaded if shortened or _informative(i)]
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name.ljust(width)}   {elide_middle(pin, WIDTH - width - 5)}" for name, pin in rows]


def _layers(plan: Plan) -> list[str]:
    """A strip of layers for each part, below their numbers; in pieces if there are many layers."""
    rows = list(_strips(plan))
    if not rows:
        return []
    names = {part: part or "layer" for part in plan.facts.layers_by_part}
    label = max(*map(len, names.values()), *(len(name) for name, _ in rows))
    embedded = any(item.is_at_embeddings for _, item in rows)
    lines: list[str] = []
    room = WIDTH - label - 18
    depths = plan.facts.layers_by_part.items()
    pieces = [(part, numbers) for part, depth in depths for numbers in _pieces(depth, room)]
    for part, numbers in pieces:
        head = ["emb"] if embedded and not lines else []
        lines += [""] if lines else []
        lines.append(_strip_line(names[part], label, [*head, *map(str, numbers)]))
        for name, item in rows:
            mark = "○" if item.new or item.trained else "●"
            first = [(mark if item.is_at_embeddings else "·").center(3)] if head else []
            here = item.layers_of(part)
            cells = [(mark if n in here else "·").rjust(len(str(n))) for n in numbers]
            state = "trained" if item.trained else "frozen"
            lines.append(_strip_line(name, label, [*first, *cells]) + f"   {state}")
    return lines


def _strip_line(name: str, width: int, cells: list[str]) -> str:
    return f"  {name.ljust(width)}  {' '.join(cells)}"


def _pieces(layers: int, room: int) -> Iterator[range]:
    """The numbers of the layers, in ranges that fit into `room` columns."""
    start, taken = 0, 0
    for number in range(layers):
        taken += len(str(number)) + 1
        if taken > room:
            yield range(start, number)
            start, taken = number, len(str(number)) + 1
    yield range(start, layers)


def _strips(plan: Plan) -> Iterator[tuple[str, PlanRow]]:
    """A row for each part; many neighbours that look the same share one row."""
    run: list[PlanRow] = []
    for item in [*(i for i in plan.rows if i.kind != "head"), None]:
        if run and (item is None or _strip_key(item) != _strip_key(run[0])):
            yield from _run(run)
            run = []
        if item is not None:
            run.append(item)


def _strip_key(item: PlanRow) -> tuple[object, ...]:
    layers = frozenset((site.part, site.layer) for site in item.sites)
    return item.new, item.trained, item.is_at_embeddings, layers, item.kind, bool(item.slots)


def _run(run: list[PlanRow]) -> Iterator[tuple[str, PlanRow]]:
    if len(run) < _MANY:
        yield from ((elide_middle(item.name, _LABEL), item) for item in run)
        return
    first, last = (elide_middle(item.name, _LABEL // 2) for item in (run[0], run[-1]))
    yield f"{first} … {last} ({len(run)})", run[0]


def _notes(plan: Plan) -> list[str]:
    """Notes on the cached trunk, on passes and counts, and on backbones that are not recorded."""
    trunk = [] if plan.trunk is None else [f"  trunk     cached: {plan.trunk}"]
    declined = [
        f"{name} not applied: {reason}"
        for name, why in plan.declined_passes().items()
        for reason in why
    ]
    notes = [("passes", text) for text in declined]
    notes += [("lowered", text) for text in _lowered(plan)]
    return [*trunk, *(row for note in notes for row in _wrap_note(*note)), *_bases(plan)]


def _lowered(plan: Plan) -> Iterator[str]:
    """The counts without the networks that compute weights, which papers often give."""
    for item in plan.rows:
        if item.kind == "adapter" and item.effective_parameters != item.parameters:
            network = "with the network that computes its weights"
            counts = f"{item.parameters:,} {network}, {item.effective_parameters:,} without"
            yield f"{elide_middle(item.name, _LABEL)}: {counts}"


def _bases(plan: Plan) -> list[str]:
    names = plan.unverified_parts()
    if not names:
        return []
    whose = "this backbone has no name on the Hub" if plan.facts.name is None else None
    listed = ", ".join(elide_middle(name, 40) for name in names[:3]) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )
    said = whose or f"the base model is not recorded for {listed}"
    return _wrap_note("base", f"{said}; only type, width and layers were compared")


def _wrap_note(word: str, text: str) -> list[str]:
    """The lines of a note, indented after its first word."""
    note, indent = f"{word:<10}{text}", " " * 10
    rows = textwrap.wrap(note, WIDTH - 4, subsequent_indent=indent, break_on_hyphens=False)
    return [f"  {row}" for row in rows]


def _fetch(plan: Plan) -> list[str]:
    fetched = [item for item in plan.rows if item.download_bytes]
    if not plan.download_bytes:
        return []
    parts = ["1 part" if len(fetched) == 1 else f"{len(fetched)} parts"] if fetched else []
    others = [name for name, size in plan.other_downloads.items() if size]
    names = ", ".join([*others, *parts])
    return [f"  fetch     {format_bytes(plan.download_bytes)} ({names})", ""]


def _sum(plan: Plan) -> str:
    share = percent(plan.trained_parameters, plan.total_parameters)
    parts = f"{plan.new_count} to create, {plan.loaded_count} to load"
    trained = f"{plan.trained_parameters:,} of {plan.total_parameters:,} parameters trained"
    return f"Plan: {parts}. {trained} ({share})."
