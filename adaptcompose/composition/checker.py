"""From syntax tree to graph: check names, arguments and structure, and report every problem.

>>> from adaptcompose.catalogue.cards import Catalogue
>>> result = check_source("stack(./sw) | drop(bottm=5)", CheckContext(Catalogue.open()))
>>> result.diagnostics[0].message
'`drop` has no argument `bottm`'
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import Catalogue
from adaptcompose.composition.graph import Adapter, Block, Empty, Slot
from adaptcompose.composition.names import NameLookup, is_unexpanded_glob
from adaptcompose.composition.operator import (
    BlockOperator,
    CheckedCall,
    Modifier,
    Operator,
    registered_operators,
)
from adaptcompose.composition.operators import Stack, Swap, Trainability, flatten, slot_names
from adaptcompose.composition.operators.swap import (
    has_unresolved,
    is_outside_catalogue,
    slot_spans,
    unknown_name_problems,
)
from adaptcompose.composition.part_names import name_new_parts
from adaptcompose.composition.size_limits import DEPTH_LIMIT, PART_LIMIT, SizeBudget, sort_and_cap
from adaptcompose.composition.structure import structural_problems
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import (
    Diagnostic,
    Failed,
    Source,
    Span,
    counted,
    select_errors,
    suggest,
)
from adaptcompose.methods import registered_methods
from adaptcompose.syntax import nodes, parser
from adaptcompose.syntax.references import Ref, is_glob, local_ref, matches_glob
from adaptcompose.syntax.signature import ArgumentBinder, parameters

NamedBlocks = dict[str, Block | None]
"""Blocks by the name of their `let` or alias; None for one with errors."""


@dataclass(frozen=True)
class CheckContext:
    """Everything besides its text that gives an expression its meaning.

    `aliases` are the expressions of a spec's `adapters:`; `parts` are the new parts of a run, which
    its other compositions can name. `locked_globs` are the expansions of globs that a lock records.
    Without `backbone`, variants and layers are not checked. `may_be_published` is True for a
    reference that can mean a published composition: its slots and parts are checked only after it
    is resolved.
    """

    catalogue: Catalogue
    backbone: Facts | None = None
    aliases: Mapping[str, Source] = field(default_factory=dict)
    parts: Mapping[str, Block] = field(default_factory=dict)
    locked_globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    list_repositories: Callable[[str], list[str]] | None = None
    may_be_published: Callable[[Ref], bool] = is_outside_catalogue


@dataclass(frozen=True)
class CheckResult:
    """The diagnostics and the graph of an expression.

    After errors `graph` is None, and `partial_graph` is what could be built. `globs` are the
    expansions of the globs in the expression.
    """

    tree: nodes.Tree | None
    graph: Block | None
    diagnostics: tuple[Diagnostic, ...]
    globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    partial_graph: Block | None = None

    def raise_errors(self) -> Block:
        """The graph; raises Failed with all errors if there are any."""
        if errors := select_errors(self.diagnostics):
            raise Failed(errors)
        assert self.graph is not None
        return self.graph


def check_source(source: Source | str, context: CheckContext) -> CheckResult:
    """Parse and check an expression."""
    source = Source(source) if isinstance(source, str) else source
    try:
        tree = parser.parse_tree(source)
    except Failed as failed:
        return CheckResult(None, None, failed.diagnostics)
    return check_tree(tree, context)


def check_tree(
    tree: nodes.Tree, context: CheckContext, alias_blocks: NamedBlocks | None = None
) -> CheckResult:
    """Check a syntax tree. `alias_blocks` caches aliases between the expressions of a spec."""
    checker = Checker(context, alias_blocks)
    graph = checker.build_graph(tree)
    problems = checker.problems
    if graph is not None:
        graph = name_new_parts(graph)
        structural = structural_problems(graph, context.backbone)
        problems += [problem for problem in structural if problem not in problems]
    valid = None if select_errors(problems) else graph
    return CheckResult(tree, valid, sort_and_cap(problems), checker.globs, graph)


def check_aliases(context: CheckContext) -> Iterator[CheckResult]:
    """Check every alias of a spec as a composition, including unused ones."""
    alias_blocks: NamedBlocks = {}
    for name, source in context.aliases.items():
        tree = nodes.Tree((), nodes.Reference(name, span=source.span()))
        yield check_tree(tree, context, alias_blocks)


class Checker:
    """Builds the graph of a syntax tree in one walk, and collects problems on the way."""

    def __init__(self, context: CheckContext, alias_blocks: NamedBlocks | None = None) -> None:
        self.context = context
        self.names = NameLookup(
            context.catalogue, context.backbone, context.locked_globs, context.list_repositories
        )
        self.problems: list[Diagnostic] = []
        self.globs: dict[str, tuple[str, ...]] = {}
        self._bindings: NamedBlocks = dict(context.parts)
        self._used_names: set[str] = set()
        self._alias_blocks = {} if alias_blocks is None else alias_blocks
        self._alias_path: list[str] = []
        self._budget = SizeBudget()

    def build_graph(self, tree: nodes.Tree, hint: str = "") -> Block | None:
        """The graph of a tree with its `let` bindings; None after an error that leaves no graph."""
        for binding in tree.bindings:
            span, bound = binding.name_span, self._bindings.keys() - self.context.parts.keys()
            if binding.name == "none":
                self.problems.append(codes.AC013.at(span, expected="another name", got="`none`"))
            elif binding.name in bound:
                self.problems.append(codes.AC102.at(span, name=binding.name))
            else:
                self._bindings[binding.name] = self.build_block(binding.value, hint=binding.name)
        body = self.build_block(tree.body, hint)
        unused = (b for b in tree.bindings if b.name not in {"none", *self._used_names})
        self.problems += (codes.AC104.at(b.name_span, name=b.name) for b in unused)
        return body

    def build_block(
        self, node: nodes.Node, hint: str = "", slot: str | None = None
    ) -> Block | None:
        """The block that a node means, or None after an error.

        `hint` is the name for a new part; `slot` is the name of the slot that contains the node.
        """
        if isinstance(node, nodes.Pipe):
            return self._pipe(node)
        if isinstance(node, nodes.Call):
            return self._call(node, hint)
        if isinstance(node, nodes.Reference):
            return self._reference(node, slot)
        if isinstance(node, nodes.Text):
            return self._path(node)
        self.problems.append(codes.AC205.at(node.span, got=f"`{node}`"))
        return None

    def _path(self, node: nodes.Text) -> Block | None:
        if node.value.strip() and "\0" not in node.value:
            return self.names.look_up(local_ref(node.value), node.span)
        self.problems.append(codes.AC109.at(node.span, name=node, why="it is not a path"))
        return None

    def _pipe(self, pipe: nodes.Pipe) -> Block | None:
        blocks: list[Block | None] = []
        for stage in pipe.stages:
            modifier = (
                registered_operators().get(stage.name) if isinstance(stage, nodes.Call) else None
            )
            if modifier is not None and issubclass(modifier, Modifier):
                assert isinstance(stage, nodes.Call)
                body = self._stack_within_limits(blocks, pipe.span)
                changed = self._modify(modifier, stage, body, bool(blocks))
                blocks = [self._stack_within_limits([changed], stage.span)]
            else:
                blocks.append(self.build_block(stage))
        return self._stack_within_limits(blocks, pipe.span)

    def _stack_within_limits(self, blocks: Sequence[Block | None], span: Span) -> Block | None:
        """Stack blocks; None if a block is missing, or if the stack would be too large."""
        if None in blocks or not blocks:
            return None
        excess = list(self._budget.excess_problems(blocks, span))
        self.problems += excess
        if excess:
            return None
        present = [Slot(None, block) for block in blocks if block is not None]
        return Stack(flatten(present), span=span) if len(present) > 1 else blocks[0]

    def _modify(
        self, modifier: type[Modifier], call: nodes.Call, body: Block | None, has_body: bool
    ) -> Block | None:
        if not has_body:
            self.problems.append(codes.AC301.at(call.name_span, operator=modifier.word))
        if issubclass(modifier, Swap):
            return self._swap(call, body)
        if issubclass(modifier, Trainability):
            return None if body is None else self._training(modifier, call, body)
        values = self._options(modifier, call.arguments)
        if values is None or body is None:
            return body
        return modifier(body=body, span=call.span, **values)

    def _training(self, modifier: type[Trainability], call: nodes.Call, body: Block) -> Block:
        self._used_names.update(map(str, call.arguments))
        scope = self._alias_blocks | self._bindings
        is_deferred = has_unresolved(body, self.context.may_be_published)
        block = modifier.from_call(call, body, scope, is_deferred=is_deferred)
        self.problems += block.problems(None)
        return block

    def _swap(self, call: nodes.Call, body: Block | None) -> Block | None:
        spans, is_deferred = slot_spans(call), False
        if body is not None:
            is_deferred = has_unresolved(body, self.context.may_be_published)
            unknown = [] if is_deferred else [*unknown_name_problems(spans, slot_names(body))]
            self.problems += unknown
            if unknown:
                return body
        members = self._members(Swap, call, list(call.arguments))
        if members is None or body is None or not self._has_enough_members(Swap, call, members):
            return None
        swap = Swap(body, tuple(members), spans, span=call.span)
        return swap.apply_where_known() if is_deferred else swap.apply()

    def _call(self, call: nodes.Call, hint: str) -> Block | None:
        operator = registered_operators().get(call.name)
        if operator is not None:
            return self._operator(operator, call, hint)
        if call.name not in registered_methods():
            known = [*registered_operators(), *registered_methods()]
            remedy = suggest(call.name, known)
            self.problems.append(
                codes.AC101.at(call.name_span, name=call.name, known=", ".join(known), help=remedy)
            )
            return None
        default = registered_methods()[call.name]
        binding = ArgumentBinder(call.name, parameters(type(default)), self.problems)
        before = len(self.problems)
        values = binding.bind(call.arguments)
        if len(self.problems) > before:
            return None
        return Adapter(hint, replace(default, **values), span=call.span)

    def _operator(self, operator: type[Operator], call: nodes.Call, hint: str) -> Block | None:
        if issubclass(operator, Modifier):
            self.problems.append(codes.AC301.at(call.name_span, operator=operator.word))
            return None
        options = {parameter.name for parameter in parameters(operator)}
        named = [a for a in call.arguments if isinstance(a, nodes.Argument) and a.name in options]
        others = [argument for argument in call.arguments if argument not in named]
        values = self._options(operator, named)
        members = self._members(operator, call, others)
        if (
            values is None
            or members is None
            or not self._has_enough_members(operator, call, members)
        ):
            return None
        assert issubclass(operator, BlockOperator)

        def parse(text: str) -> Ref:
            return self.names.parse(text, call.span)

        try:
            return operator.from_call(CheckedCall(tuple(members), values, hint, call.span, parse))
        except Failed as failed:
            self.problems += failed.diagnostics
            return None

    def _options(
        self,
        operator: type[Operator],
        arguments: Sequence[nodes.Argument | nodes.Exclusion],
    ) -> dict[str, object] | None:
        before = len(self.problems)
        values = ArgumentBinder(operator.word, parameters(operator), self.problems).bind(arguments)
        return values if len(self.problems) == before else None

    def _members(
        self,
        operator: type[Operator],
        call: nodes.Call,
        arguments: list[nodes.Argument | nodes.Exclusion],
    ) -> list[Slot] | None:
        """The members among the arguments, with globs expanded; None after an error."""
        members: list[Slot] = []
        names: set[str] = set()
        has_glob, is_whole = False, True
        for argument in arguments:
            if isinstance(argument, nodes.Exclusion):
                self._exclude(operator, argument, members, has_glob)
                continue
            if self._reject_argument(operator, argument, names):
                is_whole = False
                continue
            names |= {argument.name} if argument.name else set()
            node = argument.value
            if isinstance(node, nodes.Reference) and is_glob(node.text):
                has_glob, blocks = True, self._expand_glob(node, argument.name)
            else:
                blocks = [self.build_block(node, hint=argument.name or "", slot=argument.name)]
            weight = None if argument.weight is None else float(argument.weight)
            members += [Slot(argument.name, b, weight) for b in blocks if b is not None]
            is_whole &= None not in blocks
            if len(members) > PART_LIMIT:
                break
        excess = list(self._budget.excess_problems([slot.block for slot in members], call.span))
        self.problems += excess
        return members if is_whole and not excess else None

    def _reject_argument(
        self, operator: type[Operator], argument: nodes.Argument, names: Collection[str]
    ) -> bool:
        """Report a weight, name or modifier that cannot be here; returns True if there is one."""
        problem: Diagnostic | None = None
        node = argument.value
        inner = registered_operators().get(node.name) if isinstance(node, nodes.Call) else None
        if argument.weight is not None and not operator.accepts_weights:
            problem = codes.AC206.at(argument.weight_span, operator=operator.word)
        elif operator.takes == "slots" and argument.name in names:
            problem = codes.AC202.at(argument.name_span, name=argument.name)
        elif argument.name is not None and operator.takes == "adapters":
            binder = ArgumentBinder(operator.word, parameters(operator), [])
            problem = binder.unexpected_name(argument)
        elif argument.name is None and issubclass(operator, Swap):
            problem = codes.AC203.at(argument.span, operator=operator.word, example="lang")
        elif inner is not None and issubclass(inner, Modifier):
            problem = codes.AC302.at(node.span, modifier=inner.word, operator=operator.word)
        self.problems += [problem] if problem else []
        return problem is not None

    def _exclude(
        self, operator: type[Operator], node: nodes.Exclusion, members: list[Slot], has_glob: bool
    ) -> None:
        if not has_glob:
            self.problems.append(codes.AC210.at(node.span, operator=operator.word))
            return
        try:
            pattern = self.names.exclusion_pattern(node.reference.text, node.reference.span)
        except Failed as failed:
            self.problems += failed.diagnostics
            return
        members[:] = [s for s in members if not matches_glob(pattern, getattr(s.block, "name", ""))]

    def _has_enough_members(
        self, operator: type[Operator], call: nodes.Call, members: list[Slot]
    ) -> bool:
        count = len(members)
        if count >= operator.min_members or any(is_unexpanded_glob(slot.block) for slot in members):
            return True
        globs = [a.value for a in call.arguments if isinstance(a, nodes.Argument)]
        patterns = [g for g in globs if isinstance(g, nodes.Reference) and is_glob(g.text)]
        word, least = operator.word, operator.min_members
        values: dict[str, Any] = {
            "operator": word,
            "least": counted(least, "adapter"),
            "count": count,
        }
        code, node = (codes.AC304, patterns[0]) if patterns else (codes.AC303, call)
        self.problems.append(code.at(node.span, pattern=node, **values))
        return False

    def _reference(self, node: nodes.Reference, slot: str | None) -> Block | None:
        """The block of a name: `none`, a `let`, an alias, or else a reference.

        A wrong reference gives a placeholder, so that the rest of the expression is checked.
        """
        if node.text == "none":
            return Empty(span=node.span)
        if node.text in self._bindings:
            self._used_names.add(node.text)
            return self._bindings[node.text]
        if node.text in self.context.aliases:
            return self._alias(node)
        try:
            return self._look_up_name(node, slot)
        except Failed as failed:
            self.problems += failed.diagnostics
            return self.names.placeholder(node.text, node.span, slot)

    def _look_up_name(self, node: nodes.Reference, slot: str | None) -> Block:
        if is_glob(node.text):
            raise Failed(codes.AC205.at(node.span, got=f"the glob `{node}`"))
        ref = self.names.parse(node.text, node.span)
        if ref.kind == "bare" and slot is None:
            others = [*self._bindings, *self.context.aliases]
            raise self.names.unknown_name(node.text, node.span, None, *others)
        if ref.kind == "bare":
            assert slot is not None
            ref = ref.in_space(slot)
        return self.names.look_up(ref, node.span)

    def _alias(self, node: nodes.Reference) -> Block | None:
        name = node.text
        if name in self._alias_path:
            cycle = " → ".join([*self._alias_path, name])
            self.problems.append(codes.AC108.at(node.span, name=name, cycle=cycle))
            return None
        if name not in self._alias_blocks:
            self._alias_path.append(name)
            self._alias_blocks[name] = self._evaluate_alias(name)
            self._alias_path.pop()
        return self._alias_blocks[name]

    def _evaluate_alias(self, name: str) -> Block | None:
        """The block of an alias, which can use other aliases but not the `let` of an expression."""
        inner = Checker(self.context, self._alias_blocks)
        inner._alias_path, aliases = self._alias_path, self.context.aliases
        inner._bindings = {k: v for k, v in self.context.parts.items() if k in aliases}
        depth = sum(1 + parser.bracket_depth(aliases[alias]) for alias in self._alias_path)
        try:
            if depth > DEPTH_LIMIT:
                what = f"nests brackets and aliases {depth} deep"
                raise Failed(codes.AC904.at(aliases[name].span(), what=what, limit=DEPTH_LIMIT))
            return inner.build_graph(parser.parse_tree(aliases[name]), hint=name)
        except Failed as failed:
            self.problems += failed.diagnostics
            return None
        finally:
            self.problems += inner.problems
            self.globs |= inner.globs

    def _expand_glob(self, node: nodes.Reference, slot: str | None) -> list[Block | None]:
        """The adapters that match a glob; a named slot can contain only one of them."""
        try:
            leaves = self.names.expand_glob(self.names.parse(node.text, node.span), node.span)
        except Failed as failed:
            self.problems += failed.diagnostics
            return [self.names.placeholder(node.text, node.span, slot)]
        self.globs[node.text] = tuple(leaf.name for leaf in leaves)
        if slot is not None and len(leaves) > 1:
            got = f"`{node}`, which matches {counted(len(leaves), 'adapter')}"
            help = f"combine them: `{slot}=fuse({node})`"
            self.problems.append(codes.AC205.at(node.span, got=got, help=help))
            return [None]
        return list(leaves)
