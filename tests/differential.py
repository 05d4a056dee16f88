"""Random compositions, each pass alone and all of them against the literal program.

    python -m tests.differential --count 5000 --seed 7      what `make soak` runs

A composition is a text made at random from all operators and methods; what the checker refuses is
drawn anew. Bounds, relative to the largest value: 1e-9 in float64; in float32 1e-5 where the scores
of fusions are at most 30 and more in proportion where they are larger, or 4 times the error that
the literal program has there itself.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.compiler.lower import lower
from adaptcompose.compiler.passes import PASSES, Pass, optimise
from adaptcompose.compiler.passes.pass_log import PassLog
from adaptcompose.composition.checker import CheckContext, check_source
from adaptcompose.composition.graph import Block, transform
from adaptcompose.composition.heads import HeadChoice
from adaptcompose.composition.operators.fuse import fusions_of
from adaptcompose.composition.operators.prune import Prune
from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.ir.program import Program
from adaptcompose.resolution.sources import Sources
from adaptcompose.resources import resource_folder
from adaptcompose.runtime.branched import Outputs
from adaptcompose.runtime.build import build, facts_of_model
from adaptcompose.runtime.model import ComposedModel
from adaptcompose.runtime.ops.fusion import MixtureModule
from tests.dropout import with_dropout
from tests.tiny import LAYERS, OTHERS, SPECIAL, backbone, batch, distance, make_backbone, randomise

EXACT, CLOSE, WORSE = 1e-9, 1e-5, 4.0
SCORE = 30.0
FIRES, DECLINES = 300, 100
ROWS = 4

FAMILIES = sorted({**SPECIAL, **OTHERS})
PLACES = ["", "original_ln_before=false", "residual_before_ln=false", "parallel=true"]
METHODS = [
    "lora(rank=2)",
    "lora(rank=2, rslora=true)",
    "lora(rank=3, targets=[attn.q, ffn.in], alpha=4)",
    "lora(rank=2, bias=all)",
    "lora(rank=2, targets=[attn.v, embed.tokens, vocabulary])",
    "lora(rank=2, whole=[embed.tokens, ffn.in, ffn.norm])",
    "dora(rank=2)",
    "dora(rank=2, targets=[embed.tokens, vocabulary])",
    "vera(rank=4)",
    "ia3()",
    "bitfit()",
    "layernorm()",
    "loreft(rank=2)",
    "loreft(rank=2, prefix_positions=1, suffix_positions=2)",
    "prefix(length=2)",
    "prefix(length=3, flat=true)",
    "deep_prompt(length=2)",
    "prompt(length=2)",
    "ptuning(length=2)",
    "mam(length=2, reduction=4)",
    "unipelt(length=2, reduction=4, rank=2)",
]
HEADS = {
    "bert": "AutoModelForMaskedLM",
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "roberta": "AutoModelForMaskedLM",
}
"""Classes whose vocabulary matrix has the inverse of an invertible adapter in front of it."""
INVERTIBLE = ["language(reduction=4)", "bottleneck(reduction=4, invertible=glow)"]


@dataclass
class Draw:
    """One random composition: its text, and how it came about."""

    rng: random.Random
    lets: list[str] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def named(self, call: str) -> str:
        """A part under a name, so that it may stand in several places; half have dropouts."""
        if self.lets and self.rng.random() < 0.08:
            return self.rng.choice(self.lets).partition(" ")[0]
        if not call.startswith("fuse(") and self.rng.random() < 0.5:
            call = with_dropout(call)
        name = f"p{len(self.lets)}"
        self.lets.append(f"{name} = {call}")
        return name

    def text(self) -> str:
        depth = self.rng.choice([3, 3, 4, 4, 5])
        body = self.whole(depth)
        used: list[str] = []
        for one in reversed(self.lets):  # a part is written behind those that it holds
            name = one.partition(" ")[0]
            if any(re.search(rf"\b{name}\b", later) for later in (body, *used)):
                used.insert(0, one)
        return " ".join([*(f"let {one};" for one in used), body])

    def whole(self, depth: int) -> str:
        kind = self.rng.choices(["one", "fuse", "route", "parallel"], [5, 3, 2, 2])[0]
        if kind in ("one", "fuse"):
            body = self.block(depth)
            if kind == "fuse":
                self.words["fuse"] += 1
                body = f"stack({body}, {self._fuse(depth - 1, None)})"
            return self.marked(self.cut(body, 0.35))
        self.words[kind] += 1
        count = self.rng.randint(2, 4)
        names = [f"b{number}" for number in range(count)]
        same = self.rng.random() < 0.5
        place, members = self.rng.choice(PLACES), []
        for name in names:
            member = self.bottleneck(place, plain=True) if same else self.block(depth - 2)
            members.append(f"{name}={member}")
        if self.rng.random() < 0.3:
            members.append(f"b{count}=none")
        return self.marked(self.cut(f"{kind}({', '.join(members)})", 0.5))

    def marked(self, body: str) -> str:
        """What changes which parts learn, or which members of a fusion are left."""
        if "prune" not in self.words and self.words["fuse"] and self.rng.random() < 0.25:
            self.words["prune"] += 1
            body = f"{body} | prune(keep={self.rng.randint(1, 3)}, by=a/run)"
        if self.lets and self.rng.random() < 0.15:
            self.words["train"] += 1
            part = self.rng.choice(self.lets).partition(" ")[0]
            body = f"{body} | freeze() | train({part})"
        return body

    def cut(self, body: str, chance: float) -> str:
        if self.rng.random() >= chance:
            return body
        word = self.rng.choice(["drop", "drop", "keep"])
        self.words[word] += 1
        layers = sorted(self.rng.sample(range(LAYERS), self.rng.randint(1, LAYERS - 1)))
        return f"({body} | {word}(layers=[{', '.join(map(str, layers))}]))"

    def bottleneck(self, place: str, *, plain: bool = False) -> str:
        rng, options = self.rng, [place] if place else []
        if rng.random() < 0.12:
            self.words["compacter"] += 1
            options += ["original_ln_before=true"] * ("ln_before" not in place)
            return self.named(f"compacter({', '.join([*options, 'reduction=4', 'phm_dim=3'])})")
        options += [f"reduction={rng.choice([4, 6]) if plain else rng.choice([2, 3.5, 6])}"]
        if not plain:
            options += [f"activation={rng.choice(['relu', 'gelu', 'tanh', 'swish'])}"]
            sites = rng.choice(["", "attention=true", "attention=true, output=false"])
            options += [sites] if sites else []
            options += [f"scale={rng.choice(['0.5', '-2', '0', '0', 'learned', 'channel'])}"] * (
                rng.random() < 0.4
            )
            for flag, chance in (("gate", 0.15), ("ln_before", 0.2), ("ln_after", 0.3)):
                options += [f"{flag}=true"] * (rng.random() < chance)
        return self.named(f"bottleneck({', '.join(options)})")

    def leaf(self) -> str:
        kind = self.rng.choices(["bottleneck", "other", "invertible"], [10, 10, 3])[0]
        if kind == "bottleneck":
            return self.bottleneck(self.rng.choice(PLACES))
        call = self.rng.choice(METHODS if kind == "other" else INVERTIBLE)
        self.words[call.partition("(")[0]] += 1
        return self.named(call)

    def block(self, depth: int, place: str | None = None) -> str:
        """A block; of one place where a fusion holds it."""
        rng = self.rng
        if depth <= 1:
            return self.leaf() if place is None else self.bottleneck(place)
        kinds = ["stack", "pipe", "average", "merge", "split", "scale", "cut", "leaf", "swap"]
        chances = [4, 1, 3, 1, 1, 1, 2, 2, 1]
        if place is None:
            kinds, chances = [*kinds, "fuse", "freeze"], [*chances, 6, 1]
        kind = rng.choices(kinds, chances)[0]
        if kind not in ("cut", "leaf"):  # both say for themselves what they are
            self.words[kind] += 1
        made: str = getattr(self, f"_{kind}")(depth - 1, place)
        return made

    def _several(self, depth: int, place: str | None, least: int = 2, most: int = 3) -> list[str]:
        return [self.block(depth, place) for _ in range(self.rng.randint(least, most))]

    def _leaf(self, depth: int, place: str | None) -> str:
        return self.leaf() if place is None else self.bottleneck(place)

    def _stack(self, depth: int, place: str | None) -> str:
        return f"stack({', '.join(self._several(depth, place))})"

    def _pipe(self, depth: int, place: str | None) -> str:
        return f"({' | '.join(self._several(depth, place))})"

    def _average(self, depth: int, place: str | None) -> str:
        plain = self.rng.random() < 0.6
        placed = self.rng.choice(PLACES) if place is None and plain else place
        count = self.rng.randint(2, 3)
        members = [self.bottleneck(placed or "") if plain else self.block(depth, placed)
                   for _ in range(count)]  # fmt: skip
        if self.rng.random() < 0.5:
            weights = {2: ["0.25", "0.75"], 3: ["0.5", "0.5", "0"]}[count]
            members = [f"{one}:{weight}" for one, weight in zip(members, weights, strict=True)]
        return f"average({', '.join(members)})"

    def _merge(self, depth: int, place: str | None) -> str:
        call = f"bottleneck({', '.join(filter(None, [place or '', 'reduction=4']))})"
        if place is None and self.rng.random() < 0.4:
            call = self.rng.choice(["lora(rank=2)", "compacter(reduction=4, phm_dim=3)"])
        members = [self.named(call) for _ in range(2)]
        return f"merge({members[0]}:0.3, {members[1]}:0.7)"

    def _split(self, depth: int, place: str | None) -> str:
        one, two = self.block(depth, place), self.block(depth, place)
        return f"split({one}, {two}, at={self.rng.randint(1, 5)})"

    def _scale(self, depth: int, place: str | None) -> str:
        by = self.rng.choice(["0.5", "-1.5", "0", "1"])
        return f"({self.block(depth, place)} | scale(by={by}))"

    def _cut(self, depth: int, place: str | None) -> str:
        return self.cut(self.block(depth, place), 1.0)

    def _swap(self, depth: int, place: str | None) -> str:
        """One slot has another block, or none."""
        one, two, three = self._several(depth, place, 3, 3)
        new = self.rng.choice([three, three, "none"])
        return f"(stack(lower={one}, upper={two}) | swap(lower={new}))"

    def _freeze(self, depth: int, place: str | None) -> str:
        return f"({self.block(depth, place)} | freeze())"

    def _fuse(self, depth: int, place: str | None) -> str:
        placed, plain = self.rng.choice(PLACES), self.rng.random() < 0.6
        members = [
            self.bottleneck(placed) if plain else self.block(depth, placed)
            for _ in range(self.rng.randint(2, 4))
        ]
        options = [one for one in ("query=before", "value=false") if self.rng.random() < 0.25]
        options += ["dropout=0.3"] * (self.rng.random() < 0.5)
        return self.named(f"fuse({', '.join([*members, *options])})")


@dataclass
class Found:
    """What a number of compositions showed."""

    compositions: int = 0
    refused: int = 0
    deep: int = 0
    words: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    heads: int = 0
    failures: list[str] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        for name in ("compositions", "refused", "deep", "heads"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("words", "families", "fired", "left", "reasons"):
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures
        for name, value in other.worst.items():
            self.worst[name] = max(value, self.worst.get(name, 0.0))

    def problems(self, *, counts: bool) -> Iterator[str]:
        """What does not hold: differences, and, in a full run, passes that were hardly met."""
        yield from self.failures
        for one in PASSES if counts else ():
            name = one.__name__
            if self.fired[name] < FIRES or self.left[name] < DECLINES:
                yield f"{name} fired {self.fired[name]} times and was idle {self.left[name]} times"

    def __str__(self) -> str:
        lines = [
            f"{self.compositions} compositions, {self.deep} of them at least 3 deep; "
            f"{self.refused} others were refused by the checker",
            f"backbones: {told(self.families)}; {self.heads} with the head of a language model",
            f"operators and methods: {told(self.words)}",
            "pass             fired   idle   of some sites with a reason   largest difference",
        ]
        for one in PASSES:
            name = one.__name__
            worst = self.worst.get(name, 0.0)
            counts = f"{self.fired[name]:>8}{self.left[name]:>7}{self.reasons[name]:>30}"
            lines.append(f"{name:<14}{counts}{worst:>21.1e}")
        lines.append(f"all of them, float64: {self.worst.get('all', 0.0):.1e}")
        lines.append(f"all of them, float32: {self.worst.get('float32', 0.0):.1e}")
        return "\n".join(lines)


def told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def graph_of(text: str, facts: Facts) -> Block | None:
    """The graph, or None where the checker refuses it."""
    cards = Catalogue.open(resource_folder("hub_cards"))
    try:
        return check_source(text, CheckContext(cards, facts)).raise_errors()
    except Failed:
        return None


def depth_of(block: Block) -> int:
    return 1 + max((depth_of(child) for child in block.inner()), default=0)


def alone(one: Pass, log: PassLog) -> Any:
    return lambda program: one(program, log)


def measured(block: Block, facts: Facts, rng: random.Random) -> Block:
    """The graph whose prunes know how much attention every member got."""
    sites = [str(site) for site in lower(block, facts).sites]

    def measure(one: Block) -> Block:
        if not isinstance(one, Prune):
            return one
        means = {
            name: {site: tuple(rng.random() for _ in fusion.members) for site in sites}
            for name, fusion in fusions_of(one.body).items()
        }
        return one.with_activations(means, "the measurement")

    return transform(block, measure)


def outputs(model: ComposedModel, rows: Sequence[str | None] | None) -> list[Tensor]:
    """The hidden states, or the logits of a head, of every branch."""
    given: dict[str, Any] = {} if rows is None else {"rows": rows}
    with torch.no_grad():
        out = model(**batch(rows=ROWS), **given)
    branches = out.values() if isinstance(out, Outputs) else [out]
    return [one["logits" if "logits" in one else "last_hidden_state"] for one in branches]


@contextlib.contextmanager
def largest_score() -> Iterator[list[float]]:
    """The largest score of every fusion that is computed literally meanwhile."""
    found: list[float] = []
    plain = MixtureModule._attention

    def noted(self: MixtureModule, scores: Tensor) -> Tensor:
        found.append(float(scores.abs().max()))
        return plain(self, scores)

    with mock.patch.object(MixtureModule, "_attention", noted):
        yield found


def furthest(one: list[Tensor], other: list[Tensor]) -> float:
    return max(distance(a.double(), b.double()) for a, b in zip(one, other, strict=True))


def compare(text: str, family: str, rng: random.Random, found: Found) -> bool:
    """One composition in all its forms; False where the checker refuses it."""
    headed = family in HEADS and rng.random() < 0.3
    head: HeadChoice = "backbone" if headed else None
    kind = HEADS[family] if headed else "AutoModel"
    body = backbone(family, kind)
    facts = facts_of_model(body)
    graph = graph_of(text, facts)
    if graph is None:
        return False
    graph = measured(graph, facts, rng)
    sources = Sources("hf", resource_folder("hub_cards"))
    try:
        literal = build(graph, facts, body, sources, head=head, optimise=False)
    except Failed:  # branches with inverses of their own have no one head
        return False
    randomise(literal)
    literal.requires_grad_(requires_grad=False)
    names = literal.program.names
    rows = None
    if names and literal.program.branch_layer is None:
        rows = [rng.choice([*names, None]) for _ in range(ROWS)]
    with largest_score() as scores:
        expected = outputs(literal, rows)
    parts = dict(literal.parts.items())
    found.deep += depth_of(graph) >= 3
    found.heads += headed

    def differ(name: str, how: Any) -> float:
        model = build(graph, facts, body, sources, head=head, existing_parts=parts, optimise=how)
        value = furthest(outputs(model, rows), expected)
        found.worst[name] = max(value, found.worst.get(name, 0.0))
        if not value <= EXACT:
            found.failures.append(f"{name} is {value:.1e} off on {family}: {text}")
        return value

    program: Program = literal.program
    for one in PASSES:
        log = PassLog()
        differ(one.__name__, alone(one, log))
    differ("all", optimise)
    for one in PASSES:
        log = PassLog()
        program = one(program, log)
        (found.fired if log.applied_at else found.left)[one.__name__] += 1
        found.reasons[one.__name__] += bool(log.declined_at)
    single = [build(graph, facts, make_backbone(family, kind), sources, head=head, optimise=how)
              for how in (True, False)]  # fmt: skip
    errors = [furthest(outputs(randomise(model), rows), expected) for model in single]
    found.worst["float32"] = max(errors[0], found.worst.get("float32", 0.0))
    close = CLOSE * max(1.0, max(scores, default=0.0) / SCORE)
    if not errors[0] <= max(close, WORSE * errors[1]):
        found.failures.append(f"float32 is {errors[0]:.1e} off on {family}: {text}")
    return True


def explore(seed: int, count: int) -> Found:
    """So many compositions of one stream of random numbers."""
    torch.set_num_threads(1)
    rng, found = random.Random(seed), Found()
    while found.compositions < count:
        draw, family = Draw(rng), rng.choice(FAMILIES)
        text = draw.text()
        try:
            taken = compare(text, family, rng, found)
        except Exception as error:  # whatever it is, it is of this composition
            taken = True
            found.failures.append(f"{type(error).__name__}: {error} on {family}: {text}")
        if not taken:
            found.refused += 1
            continue
        found.compositions += 1
        found.families[family] += 1
        found.words.update(dict.fromkeys(draw.words, 1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    found, size = Found(), 50
    seeds = [f"{given.seed}/{number}" for number in range(-(-given.count // size))]
    with concurrent.futures.ProcessPoolExecutor(given.workers) as pool:
        for one in pool.map(explore, map(numbered, seeds), [size] * len(seeds)):
            found.add(one)
            print(json.dumps({"done": found.compositions}), file=sys.stderr, flush=True)
    print(f"seed {given.seed}\n{found}")
    problems = list(found.problems(counts=given.count >= 5000))
    print("\n".join(problems) or "no difference beyond the bounds")
    return bool(problems)


def numbered(text: str) -> int:
    """A seed of its own for every share of the work."""
    return random.Random(text).getrandbits(48)


if __name__ == "__main__":
    sys.exit(main())
