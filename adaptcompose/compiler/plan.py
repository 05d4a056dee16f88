"""What a run would create, load, fetch and train: known before a weight moves.

Counting: the backbone as AutoModel(config) builds it, pooler included; every part at the sites
where the composition uses it; the head. Nothing here imports torch.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adaptcompose.backbones.layout import Facts, Site
from adaptcompose.compiler.passes import stages
from adaptcompose.compiler.trunk import Trunk
from adaptcompose.hub.lock import Locked
from adaptcompose.ir.program import Program
from adaptcompose.methods.method import SHARED

WIDTH = 100
_LABEL = 28
_MANY = 4
_NARROW = 6


@dataclass(frozen=True)
class Item:
    """One line of a plan: an adapter, a fusion, or the head.

    `sites` are those that the composition uses, `owned` how many of a name the part has in all;
    `parameters` are counted at `sites`. `call` is how a new part is written, `pin` where a loaded
    one lies, and `size` the bytes of its files that are not on this machine yet. `fixed` of the
    parameters stay as they are, in training too. `lowered` are left where the networks that make
    prefixes and prompts have run; `biases` of the parameters are biases.
    """

    name: str
    kind: Literal["adapter", "fusion", "head"]
    new: bool
    trained: bool
    parameters: int
    slots: tuple[str, ...] = ()
    call: str = ""
    reference: str | None = None
    pin: Locked | None = None
    base: str | None = None
    sites: tuple[Site, ...] = ()
    owned: Mapping[str, int] | None = None
    size: int = 0
    fixed: int = 0
    lowered: int = 0
    biases: int = 0

    @property
    def mark(self) -> str:
        return "+" if self.new else "="

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers in which it stands."""
        return tuple(sorted({site.layer for site in self.sites if site.layer is not None}))

    def layers_of(self, part: str) -> frozenset[int]:
        """The layers of a part of the backbone in which it stands."""
        here = [site for site in self.sites if site.part == part]
        return frozenset(site.layer for site in here if site.layer is not None)

    @property
    def embedded(self) -> bool:
        """Whether it has a part at the embeddings."""
        return any(site.layer is None for site in places(self.sites))

    @property
    def counts(self) -> dict[str, int]:
        """How many sites of each name it uses, those in layers first."""
        ordered = sorted(places(self.sites), key=lambda site: site.layer is None)
        return dict(Counter(site.name for site in ordered))

    def as_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {"name": self.name, "kind": self.kind, "mark": self.mark}
        record |= {"slots": list(self.slots), "trained": self.trained}
        record |= {"parameters": self.parameters, "sites": self.counts, "layers": list(self.layers)}
        if self.kind == "adapter" and self.lowered != self.parameters:
            record["lowered"] = self.lowered
        if self.new:
            return record | {"method": self.call}
        record |= {"method": self.call, "reference": self.reference, "unused": self.unused()}
        return record | {"pin": _plain(self.pin), "base": self.base, "fetch": self.size}

    def unused(self) -> dict[str, int]:
        """Sites of the part that the composition leaves out, by name."""
        counts = self.counts
        left = {name: owned - counts.get(name, 0) for name, owned in (self.owned or {}).items()}
        return {name: number for name, number in left.items() if number}


@dataclass(frozen=True)
class Plan:
    """Everything that a run would do. `pin` is the backbone's.

    `besides` are the bytes to fetch of what is no part: backbone, tokenizer, data. `trunk` are the
    layers that are computed once per example, where the training asks for that.
    """

    expression: str
    facts: Facts
    items: tuple[Item, ...]
    program: Program
    head: str | None = None
    title: str = ""
    pin: Locked | None = None
    besides: Mapping[str, int] = field(default_factory=dict)
    trunk: Trunk | None = None

    @property
    def backbone(self) -> int:
        return self.facts.parameters

    @property
    def total(self) -> int:
        return self.backbone + sum(item.parameters for item in self.items)

    @property
    def trained(self) -> int:
        return sum(item.parameters - item.fixed for item in self.items if item.trained)

    @property
    def convention(self) -> str:
        """What is counted; papers differ in it."""
        biases = sum(item.biases for item in self.items)
        more = f", with {biases:,} biases" if biases else ""
        return f"backbone as AutoModel builds it, with pooler; parts as used{more}; head"

    @property
    def create(self) -> int:
        return sum(item.new for item in self.items)

    @property
    def load(self) -> int:
        """How many adapters and fusions are read; a head comes with its adapter."""
        return sum(not item.new and item.kind != "head" for item in self.items)

    @property
    def fetch(self) -> int:
        """Bytes that are not on this machine yet."""
        return sum(self.besides.values()) + sum(item.size for item in self.items)

    def declined(self) -> dict[str, list[str]]:
        """Per pass what it leaves alone in the program, and why."""
        return {name: found for name, _, log in stages(self.program) if (found := [*log.reasons()])}

    def unrecorded(self) -> tuple[str, ...]:
        """Loaded parts of which nobody says by name on which backbone they were trained."""
        loaded = [item for item in self.items if item.pin is not None and item.kind != "head"]
        return tuple(i.name for i in loaded if i.base is None or self.facts.name is None)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        parts = {item.name: item.parameters for item in self.items if item.kind != "head"}
        head = sum(item.parameters for item in self.items if item.kind == "head")
        facts = self.facts
        backbone: dict[str, Any] = {"name": facts.name, "type": facts.type, "layers": facts.layers}
        backbone |= {"width": facts.width, "pin": _plain(self.pin)}
        return {
            "title": self.title,
            "expression": self.expression,
            "backbone": backbone,
            "items": [item.as_dict() for item in self.items],
            "head": self.head,
            "create": self.create,
            "load": self.load,
            "fetch": self.fetch,
            "declined": self.declined(),
            "parameters": {
                "trained": self.trained,
                "total": self.total,
                "backbone": self.backbone,
                "parts": parts,
                "head": head,
                "counted": self.convention,
            },
        }

    def __str__(self) -> str:
        return text(self)


def places(sites: Iterable[Site]) -> Iterator[Site]:
    """The sites that are places of the backbone; shared tensors have none."""
    return (site for site in sites if site.name != SHARED.name)


def _plain(pin: Locked | None) -> dict[str, Any] | None:
    if pin is None:
        return None
    if pin.path is not None:
        return {"path": pin.path}
    plain = {"repo": pin.repo, "revision": pin.revision}
    return plain | ({"subfolder": pin.subfolder} if pin.subfolder else {})


def text(plan: Plan) -> str:
    """Header, parts, layers, files, sum."""
    blocks = [_header(plan), _parts(plan), _pins(plan), _layers(plan), _notes(plan)]
    blocks.append([*_fetch(plan), _sum(plan), f"Counted: {plan.convention}."])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def amount(number: int) -> str:
    """A number of parameters in four signs or so.

    >>> [amount(n) for n in (7, 5383, 894528, 278043648)]
    ['7', '5.4 k', '0.9 M', '278.0 M']
    """
    if number >= 100_000:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1000 else str(number)


def size(number: int) -> str:
    """A number of bytes.

    >>> size(812), size(3_600_000), size(1_120_000_000)
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


def shorten(words: str, width: int) -> str:
    """The middle of a long name gives way to `…`.

    >>> shorten("AdapterHub/bert-base-uncased-pf-mnli", 20)
    'AdapterHub…d-pf-mnli'
    """
    if len(words) <= width:
        return words
    behind = (width - 1) // 2
    return words[: width - 1 - behind] + "…" + words[len(words) - behind :]


def abridge(listed: str, width: int) -> str:
    """The end of a long list gives way to how many there are.

    >>> abridge("attn.q ×12, attn.v ×12, ffn.in ×12", 20)
    'attn.q ×12 … (+2)'
    """
    words = listed.split(", ")
    for left in range(1, len(words)):
        kept = f"{', '.join(words[:-left])} … (+{left})"
        if len(listed) > width >= len(kept):
            return kept
    return listed if len(listed) <= width else shorten(f"{len(words)} sites", width)


def _header(plan: Plan) -> list[str]:
    facts = plan.facts
    depth = " + ".join(map(str, facts.stacks.values()))
    base = f"on {_backbone(plan)} ({depth} layers, {amount(plan.backbone)}, frozen)"
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
    """`FacebookAI/xlm-roberta-base@e73636d`, or a folder with the name that it is known under."""
    pin, name = plan.pin, plan.facts.name
    if pin is not None and pin.path is not None:
        return f"{pin.path} as {name}" if name else pin.path
    if pin is not None:
        return str(pin)
    return name or f"a {plan.facts.type}"


def _parts(plan: Plan) -> list[str]:
    """One row a part; where sources do not fit beside it, they get a block of their own."""
    if not plan.items and plan.head is None:
        return ["  no adapters: the backbone alone"]
    rows = _rows(plan, pinned=True)
    if _excess(rows) > 0:
        rows = _rows(plan, pinned=False)
    return _table(_fitted(rows))


def _fitted(rows: list[list[str]]) -> list[list[str]]:
    """The widest column gives way until the table fits, or until all are narrow."""
    cuts = (shorten, shorten, shorten, abridge)
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
    """By how much a table is too wide."""
    return max((len(line) for line in _table(rows)), default=0) - WIDTH


def _rows(plan: Plan, *, pinned: bool) -> list[list[str]]:
    rows = [_row(item, pinned=pinned) for item in plan.items]
    own = ["= head", "", "the backbone's own, not counted", "", "", "frozen"]
    return [*rows, own] if plan.head == "backbone" else rows


def _row(item: Item, *, pinned: bool) -> list[str]:
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
    return [f"{item.mark} {slot}", name, source, sites, amount(item.parameters), state]


def _is_place(item: Item) -> bool:
    """Whether the reference is a repository or a folder, so that its pin names it best."""
    pin = item.pin
    return pin is not None and (pin.path is not None or str(pin.repo) in str(item.reference))


def _informative(item: Item) -> bool:
    """Whether the pin says more than the name does."""
    return item.pin is not None and not _is_place(item)


def _sites(item: Item) -> str:
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
    """The sources, if the table has no room for them."""
    if _excess(_rows(plan, pinned=True)) <= 0:
        return []
    shortened = _excess(_rows(plan, pinned=False)) > 0
    loaded = [i for i in plan.items if i.kind != "head" and i.pin is not None]
    found = [i for i in loaded if shortened or _informative(i)]
    width = max((len(shorten(item.name, 36)) for item in found), default=0)
    return [
        f"  {shorten(item.name, 36).ljust(width)}   {shorten(str(item.pin), WIDTH - width - 5)}"
        for item in found
    ]


def _layers(plan: Plan) -> list[str]:
    """Per part a strip under the numbers of the layers, in pieces if there are very many."""
    rows = list(_strips(plan))
    if not rows:
        return []
    names = {part: part or "layer" for part in plan.facts.stacks}
    label = max(*map(len, names.values()), *(len(name) for name, _ in rows))
    embedded = any(item.embedded for _, item in rows)
    lines: list[str] = []
    room = WIDTH - label - 18
    depths = plan.facts.stacks.items()
    pieces = [(part, numbers) for part, depth in depths for numbers in _pieces(depth, room)]
    for part, numbers in pieces:
        head = ["emb"] if embedded and not lines else []
        lines += [""] if lines else []
        lines.append(_strip_line(names[part], label, [*head, *map(str, numbers)]))
        for name, item in rows:
            mark = "○" if item.new or item.trained else "●"
            first = [(mark if item.embedded else "·").center(3)] if head else []
            here = item.layers_of(part)
            cells = [(mark if n in here else "·").rjust(len(str(n))) for n in numbers]
            state = "trained" if item.trained else "frozen"
            lines.append(_strip_line(name, label, [*first, *cells]) + f"   {state}")
    return lines


def _strip_line(name: str, width: int, cells: list[str]) -> str:
    return f"  {name.ljust(width)}  {' '.join(cells)}"


def _pieces(layers: int, room: int) -> Iterator[range]:
    """The numbers of the layers, as many at a time as fit into so many columns."""
    start, taken = 0, 0
    for number in range(layers):
        taken += len(str(number)) + 1
        if taken > room:
            yield range(start, number)
            start, taken = number, len(str(number)) + 1
    yield range(start, layers)


def _strips(plan: Plan) -> Iterator[tuple[str, Item]]:
    """One row a part; neighbours that look the same share a row if there are many."""
    run: list[Item] = []
    for item in [*(i for i in plan.items if i.kind != "head"), None]:
        if run and (item is None or _look(item) != _look(run[0])):
            yield from _run(run)
            run = []
        if item is not None:
            run.append(item)


def _look(item: Item) -> tuple[object, ...]:
    layers = frozenset((site.part, site.layer) for site in item.sites)
    return item.new, item.trained, item.embedded, layers, item.kind, bool(item.slots)


def _run(run: list[Item]) -> Iterator[tuple[str, Item]]:
    if len(run) < _MANY:
        yield from ((shorten(item.name, _LABEL), item) for item in run)
        return
    first, last = (shorten(item.name, _LABEL // 2) for item in (run[0], run[-1]))
    yield f"{first} … {last} ({len(run)})", run[0]


def _notes(plan: Plan) -> list[str]:
    """What is computed once, and what was compared only in part."""
    trunk = [] if plan.trunk is None else [f"  trunk     cached: {plan.trunk}"]
    left = [f"{name} leaves {reason}" for name, why in plan.declined().items() for reason in why]
    told = [("passes", one) for one in left] + [("lowered", one) for one in _lowered(plan)]
    return [*trunk, *(row for one in told for row in _wrapped(*one)), *_bases(plan)]


def _lowered(plan: Plan) -> Iterator[str]:
    """Counts of papers are often those of what a network makes, without the network."""
    for item in plan.items:
        if item.kind == "adapter" and item.lowered != item.parameters:
            told = f"{item.lowered:,} numbers once its network has run, {item.parameters:,} with it"
            yield f"{shorten(item.name, _LABEL)}: {told}"


def _bases(plan: Plan) -> list[str]:
    names = plan.unrecorded()
    if not names:
        return []
    whose = "this backbone has no name of the Hub" if plan.facts.name is None else None
    listed = ", ".join(shorten(name, 40) for name in names[:3]) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )
    said = whose or f"not recorded for {listed}"
    return _wrapped("base", f"{said}: type, width and layers were compared, no names")


def _wrapped(word: str, told: str) -> list[str]:
    """A note under its word."""
    note, behind = f"{word:<10}{told}", " " * 10
    rows = textwrap.wrap(note, WIDTH - 4, subsequent_indent=behind, break_on_hyphens=False)
    return [f"  {row}" for row in rows]


def _fetch(plan: Plan) -> list[str]:
    fetched = [item for item in plan.items if item.size]
    if not plan.fetch:
        return []
    parts = ["1 part" if len(fetched) == 1 else f"{len(fetched)} parts"] if fetched else []
    besides = [what for what, number in plan.besides.items() if number]
    what = ", ".join([*besides, *parts])
    return [f"  fetch     {size(plan.fetch)} ({what})", ""]


def _sum(plan: Plan) -> str:
    share = percent(plan.trained, plan.total)
    done = f"{plan.create} to create, {plan.load} to load."
    return f"Plan: {done} {plan.trained:,} of {plan.total:,} parameters trained ({share})."
