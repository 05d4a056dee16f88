"""Tree to graph: names, arguments and structure, every problem reported with its place.

>>> from adaptcompose.catalogue.cards import Catalogue
>>> check("stack(./sw) | drop(bottm=5)", Context(Catalogue.open())).diagnostics[0].message
'`drop` has no argument `bottm`'
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot
from adaptcompose.composition.names import Names, open_ended
from adaptcompose.composition.operator import Call, Members, Modifier, Operator, operators
from adaptcompose.composition.operators import Stack, Swap, Training, flatten, slots
from adaptcompose.composition.operators.swap import in_other_places, named, strangers, unread
from adaptcompose.composition.part_names import name_new_parts
from adaptcompose.composition.size_limits import DEPTH, PARTS, Extent, told
from adaptcompose.composition.structure import verify
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, Span, errors, suggest
from adaptcompose.methods import calls
from adaptcompose.syntax import parser as syntax
from adaptcompose.syntax.references import Ref, is_glob, local_ref, matches
from adaptcompose.syntax.signature import Binding, parameters

Read = dict[str, Block | None]  # aliases, each of which is read once


@dataclass(frozen=True)
class Context:
    """What an expression is read against.

    `aliases` are the expressions of a spec's `adapters:`, `parts` the new parts of a run, which
    its other compositions name. `globs` are expansions that a lock has fixed. Without `backbone`
    nothing is said about variants and layers. `composed` says which references may be published
    compositions; what is said of their slots and parts waits until they are looked up.
    """

    catalogue: Catalogue
    backbone: Facts | None = None
    aliases: Mapping[str, Source] = field(default_factory=dict)
    parts: Mapping[str, Block] = field(default_factory=dict)
    globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listing: Callable[[str], list[str]] | None = None
    composed: Callable[[Ref], bool] = in_other_places


@dataclass(frozen=True)
class Checked:
    """What there is to say, and the graph: None after errors, `read` as far as it went."""

    tree: syntax.Tree | None
    graph: Block | None
    diagnostics: tuple[Diagnostic, ...]
    globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read: Block | None = None

    def raise_errors(self) -> Block:
        """The graph, or Failed with all errors."""
        if found := errors(self.diagnostics):
            raise Failed(found)
        assert self.graph is not None
        return self.graph


def check(source: Source | str, context: Context) -> Checked:
    """Everything that text, catalogue and the facts of the backbone can tell."""
    source = Source(source) if isinstance(source, str) else source
    try:
        tree = syntax.parse_tree(source)
    except Failed as failed:
        return Checked(None, None, failed.diagnostics)
    return check_tree(tree, context)


def check_tree(tree: syntax.Tree, context: Context, aliased: Read | None = None) -> Checked:
    """Everything that a tree, the catalogue and the facts of the backbone can tell."""
    checker = Checker(context, aliased)
    graph = checker.tree(tree)
    found = checker.problems
    if graph is not None:
        graph = name_new_parts(graph)
        found += (one for one in verify(graph, context.backbone) if one not in found)
    return Checked(tree, None if errors(found) else graph, told(found), checker.globs, graph)


def check_aliases(context: Context) -> Iterator[Checked]:
    """Every alias of a spec as a composition, also those that nothing uses."""
    read: Read = {}
    for name, source in context.aliases.items():
        tree = syntax.Tree((), syntax.Reference(name, span=source.span()))
        yield check_tree(tree, context, read)


class Checker:
    """One walk over a tree; what is wrong is collected, not raised."""

    def __init__(self, context: Context, aliased: Read | None = None) -> None:
        self.context = context
        self.names = Names(context.catalogue, context.backbone, context.globs, context.listing)
        self.problems: list[Diagnostic] = []
        self.globs: dict[str, tuple[str, ...]] = {}
        self._bound: Read = dict(context.parts)
        self._used: set[str] = set()
        self._aliased = {} if aliased is None else aliased
        self._resolving: list[str] = []
        self._extent = Extent()

    def tree(self, tree: syntax.Tree, hint: str = "") -> Block | None:
        for binding in tree.bindings:
            place, bound = binding.name_span, self._bound.keys() - self.context.parts.keys()
            if binding.name == "none":
                self.problems.append(codes.AC013.at(place, expected="another name", got="`none`"))
            elif binding.name in bound:
                self.problems.append(codes.AC102.at(place, name=binding.name))
            else:
                self._bound[binding.name] = self.block(binding.value, hint=binding.name)
        body = self.block(tree.body, hint)
        idle = (one for one in tree.bindings if one.name not in {"none", *self._used})
        self.problems += (codes.AC104.at(one.name_span, name=one.name) for one in idle)
        return body

    def block(self, node: syntax.Node, hint: str = "", slot: str | None = None) -> Block | None:
        """The block that a node means; `hint` names what is new, `slot` is where it stands."""
        if isinstance(node, syntax.Pipe):
            return self._pipe(node)
        if isinstance(node, syntax.Call):
            return self._call(node, hint)
        if isinstance(node, syntax.Reference):
            return self._reference(node, slot)
        if isinstance(node, syntax.Text):
            return self._path(node)
        self.problems.append(codes.AC205.at(node.span, got=f"`{node}`"))
        return None

    def _path(self, node: syntax.Text) -> Block | None:
        if node.value.strip() and "\0" not in node.value:
            return self.names.adapter(local_ref(node.value), node.span)
        self.problems.append(codes.AC109.at(node.span, name=node, why="it is no path"))
        return None

    def _pipe(self, pipe: syntax.Pipe) -> Block | None:
        done: list[Block | None] = []
        for stage in pipe.stages:
            modifier = operators().get(stage.name) if isinstance(stage, syntax.Call) else None
            if modifier is not None and issubclass(modifier, Modifier):
                assert isinstance(stage, syntax.Call)
                body = self._bounded(done, pipe.span)
                changed = self._modify(modifier, stage, body, bool(done))
                done = [self._bounded([changed], stage.span)]
            else:
                done.append(self.block(stage))
        return self._bounded(done, pipe.span)

    def _bounded(self, blocks: Sequence[Block | None], span: Span) -> Block | None:
        """The blocks in one, unless one is missing or they are too many."""
        if None in blocks or not blocks:
            return None
        excess = list(self._extent.excess(blocks, span))
        self.problems += excess
        if excess:
            return None
        present = [Slot(None, block) for block in blocks if block is not None]
        return Stack(flatten(present), span=span) if len(present) > 1 else blocks[0]

    def _modify(
        self, modifier: type[Modifier], call: syntax.Call, body: Block | None, preceded: bool
    ) -> Block | None:
        if not preceded:
            self.problems.append(codes.AC301.at(call.name_span, operator=modifier.word))
        if issubclass(modifier, Swap):
            return self._swap(call, body)
        if issubclass(modifier, Training):
            return None if body is None else self._training(modifier, call, body)
        values = self._options(modifier, call.arguments)
        if values is None or body is None:
            return body
        return modifier(body=body, span=call.span, **values)

    def _training(self, modifier: type[Training], call: syntax.Call, body: Block) -> Block:
        self._used.update(map(str, call.arguments))
        known = self._aliased | self._bound
        found = modifier.bound(call, body, known, late=unread(body, self.context.composed))
        self.problems += found.problems(None)
        return found

    def _swap(self, call: syntax.Call, body: Block | None) -> Block | None:
        names, late = named(call), body is not None and unread(body, self.context.composed)
        if body is not None and not late and (wrong := [*strangers(names, slots(body))]):
            self.problems += wrong
            return body
        members = self._members(Swap, call, list(call.arguments))
        if members is None or body is None or not self._enough(Swap, call, members):
            return None
        found = Swap(body, tuple(members), names, span=call.span)
        return found.in_part() if late else found.applied()

    def _call(self, call: syntax.Call, hint: str) -> Block | None:
        operator = operators().get(call.name)
        if operator is not None:
            return self._operator(operator, call, hint)
        if call.name not in calls():
            known = [*operators(), *calls()]
            remedy = suggest(call.name, known)
            self.problems.append(
                codes.AC101.at(call.name_span, name=call.name, known=", ".join(known), help=remedy)
            )
            return None
        default = calls()[call.name]
        binding = Binding(call.name, parameters(type(default)), self.problems)
        before = len(self.problems)
        values = binding.bind(call.arguments)
        if len(self.problems) > before:
            return None
        return Adapter(hint, replace(default, **values), span=call.span)

    def _operator(self, operator: type[Operator], call: syntax.Call, hint: str) -> Block | None:
        if issubclass(operator, Modifier):
            self.problems.append(codes.AC301.at(call.name_span, operator=operator.word))
            return None
        options = {parameter.name for parameter in parameters(operator)}
        named = [a for a in call.arguments if isinstance(a, syntax.Argument) and a.name in options]
        others = [argument for argument in call.arguments if argument not in named]
        values = self._options(operator, named)
        members = self._members(operator, call, others)
        if values is None or members is None or not self._enough(operator, call, members):
            return None
        assert issubclass(operator, Members)

        def parse(text: str) -> Ref:
            return self.names.parse(text, call.span)

        try:
            return operator.of(Call(tuple(members), values, hint, call.span, parse))
        except Failed as failed:
            self.problems += failed.diagnostics
            return None

    def _options(
        self,
        operator: type[Operator],
        arguments: Sequence[syntax.Argument | syntax.Exclude],
    ) -> dict[str, object] | None:
        before = len(self.problems)
        values = Binding(operator.word, parameters(operator), self.problems).bind(arguments)
        return values if len(self.problems) == before else None

    def _members(
        self,
        operator: type[Operator],
        call: syntax.Call,
        arguments: list[syntax.Argument | syntax.Exclude],
    ) -> list[Slot] | None:
        """The blocks among the arguments, globs spelt out, exclusions taken away."""
        members: list[Slot] = []
        names: set[str] = set()
        globbed, whole = False, True
        for argument in arguments:
            if isinstance(argument, syntax.Exclude):
                self._exclude(operator, argument, members, globbed)
                continue
            if self._refused(operator, argument, names):
                whole = False
                continue
            names |= {argument.name} if argument.name else set()
            node = argument.value
            if isinstance(node, syntax.Reference) and is_glob(node.text):
                globbed, blocks = True, self._glob(node, argument.name)
            else:
                blocks = [self.block(node, hint=argument.name or "", slot=argument.name)]
            weight = None if argument.weight is None else float(argument.weight)
            members += [Slot(argument.name, one, weight) for one in blocks if one is not None]
            whole &= None not in blocks
            if len(members) > PARTS:
                break
        excess = list(self._extent.excess([slot.block for slot in members], call.span))
        self.problems += excess
        return members if whole and not excess else None

    def _refused(
        self, operator: type[Operator], argument: syntax.Argument, names: Collection[str]
    ) -> bool:
        """Weights and names where they mean nothing or are taken, modifiers for blocks."""
        found: Diagnostic | None = None
        node = argument.value
        inner = operators().get(node.name) if isinstance(node, syntax.Call) else None
        if argument.weight is not None and not operator.weighted:
            found = codes.AC206.at(argument.weight_span, operator=operator.word)
        elif operator.takes == "slots" and argument.name in names:
            found = codes.AC202.at(argument.name_span, name=argument.name)
        elif argument.name is not None and operator.takes == "adapters":
            found = Binding(operator.word, parameters(operator), []).member(argument)
        elif argument.name is None and issubclass(operator, Swap):
            found = codes.AC203.at(argument.span, operator=operator.word, example="lang")
        elif inner is not None and issubclass(inner, Modifier):
            found = codes.AC302.at(node.span, modifier=inner.word, operator=operator.word)
        self.problems += [found] if found else []
        return found is not None

    def _exclude(
        self, operator: type[Operator], node: syntax.Exclude, members: list[Slot], globbed: bool
    ) -> None:
        if not globbed:
            self.problems.append(codes.AC210.at(node.span, operator=operator.word))
            return
        try:
            pattern = self.names.exclusion(node.reference.text, node.reference.span)
        except Failed as failed:
            self.problems += failed.diagnostics
            return
        members[:] = [s for s in members if not matches(pattern, getattr(s.block, "name", ""))]

    def _enough(self, operator: type[Operator], call: syntax.Call, members: list[Slot]) -> bool:
        count = len(members)
        if count >= operator.least or any(open_ended(slot.block) for slot in members):
            return True
        globs = [a.value for a in call.arguments if isinstance(a, syntax.Argument)]
        patterns = [g for g in globs if isinstance(g, syntax.Reference) and is_glob(g.text)]
        word, least = operator.word, operator.least
        values: dict[str, Any] = {"operator": word, "least": least, "count": count}
        code, place = (codes.AC304, patterns[0]) if patterns else (codes.AC303, call)
        self.problems.append(code.at(place.span, pattern=place, **values))
        return False

    def _reference(self, node: syntax.Reference, slot: str | None) -> Block | None:
        """A name: `none`, a let, an alias, then the catalogue; or a path, or a repository."""
        if node.text == "none":
            return Empty(span=node.span)
        if node.text in self._bound:
            self._used.add(node.text)
            return self._bound[node.text]
        if node.text in self.context.aliases:
            return self._alias(node)
        try:
            return self._named(node, slot)
        except Failed as failed:
            self.problems += failed.diagnostics
            return self.names.unread(node.text, node.span, slot)

    def _named(self, node: syntax.Reference, slot: str | None) -> Block:
        if is_glob(node.text):
            raise Failed(codes.AC205.at(node.span, got=f"the glob `{node}`"))
        ref = self.names.parse(node.text, node.span)
        if ref.kind == "bare" and slot is None:
            others = [*self._bound, *self.context.aliases]
            raise self.names.unknown(node.text, node.span, None, *others)
        if ref.kind == "bare":
            assert slot is not None
            ref = ref.inside(slot)
        return self.names.adapter(ref, node.span)

    def _alias(self, node: syntax.Reference) -> Block | None:
        name = node.text
        if name in self._resolving:
            cycle = " → ".join([*self._resolving, name])
            self.problems.append(codes.AC108.at(node.span, name=name, cycle=cycle))
            return None
        if name not in self._aliased:
            self._resolving.append(name)
            self._aliased[name] = self._resolved(name)
            self._resolving.pop()
        return self._aliased[name]

    def _resolved(self, name: str) -> Block | None:
        """What an alias means. It sees other aliases, never the lets of who uses it."""
        inner = Checker(self.context, self._aliased)
        inner._resolving, aliases = self._resolving, self.context.aliases
        inner._bound = {k: v for k, v in self.context.parts.items() if k in aliases}
        depth = sum(1 + syntax.nesting(aliases[one]) for one in self._resolving)
        try:
            if depth > DEPTH:
                what = f"is {depth} brackets and aliases deep"
                raise Failed(codes.AC904.at(aliases[name].span(), what=what, limit=DEPTH))
            return inner.tree(syntax.parse_tree(aliases[name]), hint=name)
        except Failed as failed:
            self.problems += failed.diagnostics
            return None
        finally:
            self.problems += inner.problems
            self.globs |= inner.globs

    def _glob(self, node: syntax.Reference, slot: str | None) -> list[Block | None]:
        """What a glob stands for; a place with a name has room for one."""
        try:
            found = self.names.glob(self.names.parse(node.text, node.span), node.span)
        except Failed as failed:
            self.problems += failed.diagnostics
            return [self.names.unread(node.text, node.span, slot)]
        self.globs[node.text] = tuple(leaf.name for leaf in found)
        if slot is not None and len(found) > 1:
            got, help = f"{len(found)} of them: `{node}`", f"combine them: {slot}=fuse({node})"
            self.problems.append(codes.AC205.at(node.span, got=got, help=help))
            return [None]
        return list(found)
