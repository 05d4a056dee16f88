"""Tree to graph: names, arguments and structure, every problem reported with its place.

>>> from adaptcompose.hub.cards import Catalogue
>>> check("stack(./sw) | drop(bottm=5)", Context(Catalogue.open())).diagnostics[0].message
'`drop` has no argument `bottm`'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from adaptcompose.backbones.layout import Facts
from adaptcompose.hub.cards import Catalogue, Variant
from adaptcompose.hub.refs import Ref, is_glob, local_ref, parse_ref
from adaptcompose.language import codes, syntax
from adaptcompose.language.diagnostics import Diagnostic, Failed, Source, Span, errors, suggest
from adaptcompose.language.graph import Adapter, Block, Empty, Slot, adapters, transform, walk
from adaptcompose.language.operators import (
    Fuse,
    Modifier,
    Operator,
    Stack,
    Swap,
    flatten,
    operators,
)
from adaptcompose.language.signature import Binding, parameters
from adaptcompose.methods import calls


@dataclass(frozen=True)
class Context:
    """What an expression is read against.

    `aliases` are the expressions of a spec's `adapters:`. Without `backbone` nothing is said about
    variants and layers.
    """

    catalogue: Catalogue
    backbone: Facts | None = None
    aliases: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """The graph, or None where errors left none, and everything there is to say."""

    tree: syntax.Tree | None
    graph: Block | None
    diagnostics: tuple[Diagnostic, ...]
    globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
    checker = Checker(context)
    graph = checker.tree(tree)
    found = checker.problems
    if graph is not None and not errors(found):
        graph = name_new_parts(graph)
        found += verify(graph, context.backbone)
    ordered = tuple(sorted(found, key=Diagnostic.position))
    return Checked(tree, None if errors(found) else graph, ordered, checker.globs)


def verify(graph: Block, facts: Facts | None) -> list[Diagnostic]:
    """What the blocks themselves find wrong, by what is known of the adapters so far."""
    found = [problem for block in walk(graph) for problem in block.problems(facts)]
    return list(dict.fromkeys(found))


def name_new_parts(graph: Block) -> Block:
    """Give fusions and new adapters without a name theirs: fuse, fuse2, bottleneck, …"""
    taken = {leaf.name for leaf in adapters(graph).values()}
    taken |= {block.name for block in walk(graph) if isinstance(block, Fuse)}

    def name(block: Block) -> Block:
        if isinstance(block, Fuse) and not block.name:
            return replace(block, name=_fresh(block.word, taken))
        if isinstance(block, Adapter) and not block.name:
            assert block.method is not None
            return replace(block, name=_fresh(block.method.word, taken))
        return block

    return transform(graph, name)


def _fresh(word: str, taken: set[str]) -> str:
    number = 1
    while (name := word if number == 1 else f"{word}{number}") in taken:
        number += 1
    taken.add(name)
    return name


class Checker:
    """One walk over a tree; what is wrong is collected, not raised."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.problems: list[Diagnostic] = []
        self.globs: dict[str, tuple[str, ...]] = {}
        self._bound: dict[str, Block | None] = {}
        self._used: set[str] = set()
        self._resolving: list[str] = []

    def tree(self, tree: syntax.Tree) -> Block | None:
        for binding in tree.bindings:
            if binding.name in self._bound or binding.name == "none":
                self.problems.append(codes.AC102.at(binding.name_span, name=binding.name))
                continue
            self._bound[binding.name] = self.block(binding.value, hint=binding.name)
        body = self.block(tree.body)
        for binding in tree.bindings:
            if binding.name not in self._used:
                self.problems.append(codes.AC104.at(binding.name_span, name=binding.name))
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
            return self._adapter(local_ref(node.value), node.span)
        self.problems.append(codes.AC205.at(node.span, got=f"`{node}`"))
        return None

    def _pipe(self, pipe: syntax.Pipe) -> Block | None:
        done: list[Block | None] = []
        for stage in pipe.stages:
            modifier = operators().get(stage.name) if isinstance(stage, syntax.Call) else None
            if modifier is not None and issubclass(modifier, Modifier):
                assert isinstance(stage, syntax.Call)
                body = _stacked(done, pipe.span) if None not in done else None
                done = [self._modify(modifier, stage, body, bool(done))]
            else:
                done.append(self.block(stage))
        return None if None in done else _stacked(done, pipe.span)

    def _modify(
        self, modifier: type[Modifier], call: syntax.Call, body: Block | None, preceded: bool
    ) -> Block | None:
        if not preceded:
            self.problems.append(codes.AC301.at(call.name_span, operator=modifier.word))
        if issubclass(modifier, Swap):
            members = self._members(modifier, call, [])
            if members is None or body is None:
                return None
            swap = Swap(body, tuple(members), span=call.span)
            self.problems += swap.problems(self.context.backbone)
            return swap.applied()
        values = self._options(modifier, call.arguments)
        if values is None or body is None:
            return None
        return modifier(body=body, span=call.span, **values)

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
        values = binding.bind(list(call.arguments))
        if len(self.problems) > before:
            return None
        return Adapter(hint, replace(default, **values), span=call.span)

    def _operator(self, operator: type[Operator], call: syntax.Call, hint: str) -> Block | None:
        if issubclass(operator, Modifier):
            self.problems.append(codes.AC301.at(call.name_span, operator=operator.word))
            return None
        options = {parameter.name for parameter in parameters(operator)}
        named = [argument for argument in call.arguments if argument.name in options]
        others = [argument for argument in call.arguments if argument.name not in options]
        values = self._options(operator, named)
        members = self._members(operator, call, others)
        if values is None or members is None or not self._enough(operator, call, members):
            return None
        if issubclass(operator, Stack):
            flat = flatten(members)
            lone = len(flat) == 1 and flat[0].name is None
            return flat[0].block if lone else Stack(flat, span=call.span)
        assert issubclass(operator, Fuse)
        ref = self._parse(values["load"], call.span) if values.get("load") else None
        return Fuse(tuple(members), span=call.span, name=hint, ref=ref, **values)

    def _options(
        self,
        operator: type[Operator],
        arguments: list[syntax.Argument] | tuple[syntax.Argument, ...],
    ) -> dict[str, object] | None:
        before = len(self.problems)
        values = Binding(operator.word, parameters(operator), self.problems).bind(list(arguments))
        return values if len(self.problems) == before else None

    def _members(
        self, operator: type[Operator], call: syntax.Call, arguments: list[syntax.Argument]
    ) -> list[Slot] | None:
        """The blocks among the arguments, globs spelt out, exclusions taken away."""
        before = len(self.problems)
        members: list[Slot] = []
        globbed = False
        for argument in arguments or call.arguments:
            if isinstance(argument, syntax.Exclude):
                self._exclude(operator, argument, members, globbed)
                continue
            self._refuse(operator, argument)
            node = argument.value
            if isinstance(node, syntax.Reference) and is_glob(node.text):
                globbed = True
                members += [Slot(None, leaf) for leaf in self._glob(node)]
                continue
            block = self.block(node, hint=argument.name or "", slot=argument.name)
            if block is not None:
                members.append(Slot(argument.name, block))
        return members if len(self.problems) == before else None

    def _refuse(self, operator: type[Operator], argument: syntax.Argument) -> None:
        """Weights and names where they mean nothing, modifiers where blocks belong."""
        if argument.weight is not None:
            self.problems.append(codes.AC206.at(argument.weight_span, operator=operator.word))
        if argument.name is not None and operator.takes == "adapters":
            known = parameters(operator)
            self.problems.append(Binding(operator.word, known, []).unknown(argument))
        if argument.name is None and issubclass(operator, Swap):
            self.problems.append(
                codes.AC203.at(argument.span, operator=operator.word, example="lang")
            )
        node = argument.value
        inner = operators().get(node.name) if isinstance(node, syntax.Call) else None
        if inner is not None and issubclass(inner, Modifier):
            found = codes.AC302.at(node.span, modifier=inner.word, operator=operator.word)
            self.problems.append(found)

    def _exclude(
        self, operator: type[Operator], node: syntax.Exclude, members: list[Slot], globbed: bool
    ) -> None:
        if not globbed:
            self.problems.append(codes.AC210.at(node.span, operator=operator.word))
            return
        names = {leaf.name for leaf in self._glob(node.reference, silent=True)}
        members[:] = [s for s in members if getattr(s.block, "name", None) not in names]

    def _enough(self, operator: type[Operator], call: syntax.Call, members: list[Slot]) -> bool:
        count = len(members)
        if count >= operator.least:
            return True
        globs = [a.value for a in call.arguments if isinstance(a, syntax.Argument)]
        patterns = [g for g in globs if isinstance(g, syntax.Reference) and is_glob(g.text)]
        if patterns:
            pattern = patterns[0]
            found = codes.AC304.at(
                pattern.span,
                pattern=pattern,
                count=count,
                operator=operator.word,
                least=operator.least,
            )
        else:
            found = codes.AC303.at(
                call.span, operator=operator.word, least=operator.least, count=count
            )
        self.problems.append(found)
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
        if is_glob(node.text):
            self.problems.append(codes.AC205.at(node.span, got=f"the glob `{node}`"))
            return None
        ref = self._parse(node.text, node.span)
        if ref is None:
            return None
        if ref.kind == "bare":
            if slot is None:
                self._unknown(node.text, None, node.span)
                return None
            ref = ref.inside(slot)
        return self._adapter(ref, node.span)

    def _alias(self, node: syntax.Reference) -> Block | None:
        name = node.text
        if name in self._resolving:
            cycle = " → ".join([*self._resolving, name])
            self.problems.append(codes.AC108.at(node.span, name=name, cycle=cycle))
            return None
        if name not in self._bound:
            self._resolving.append(name)
            try:
                tree = syntax.parse_tree(self.context.aliases[name])
                inner = Checker(self.context)
                inner._bound, inner._resolving = self._alias_scope(), self._resolving
                block = inner.block(tree.body, hint=name)
                self.problems += inner.problems
                self.globs |= inner.globs
                self._bound[name] = block
            except Failed as failed:
                self.problems += failed.diagnostics
                self._bound[name] = None
            finally:
                self._resolving.pop()
            self._used.add(name)
        return self._bound[name]

    def _alias_scope(self) -> dict[str, Block | None]:
        """An alias sees other aliases, never the lets of the expression that uses it."""
        return {key: value for key, value in self._bound.items() if key in self.context.aliases}

    def _parse(self, text: str, span: Span) -> Ref | None:
        try:
            return parse_ref(text, self.context.catalogue.spaces(), span)
        except Failed as failed:
            self.problems += failed.diagnostics
            return None

    def _adapter(self, ref: Ref, span: Span) -> Block | None:
        variant = None
        if ref.kind == "catalogue":
            assert ref.space is not None and ref.name is not None
            if not self._listed(ref, span):
                return None
            try:
                variant = self._variant(ref, span)
            except Failed as failed:
                self.problems += failed.diagnostics
                return None
        return Adapter(str(ref), ref=ref, variant=variant, span=span)

    def _listed(self, ref: Ref, span: Span) -> bool:
        assert ref.space is not None and ref.name is not None
        spaces = self.context.catalogue.spaces()
        if ref.space not in spaces:
            remedy = suggest(ref.space, spaces)
            known = ", ".join(spaces) or "none"
            self.problems.append(codes.AC106.at(span, space=ref.space, known=known, help=remedy))
            return False
        if ref.name not in self.context.catalogue.names(ref.space):
            self._unknown(str(ref), ref.space, span)
            return False
        return True

    def _variant(self, ref: Ref, span: Span) -> Variant | None:
        backbone = self.context.backbone
        if backbone is None:
            return None
        assert ref.space is not None and ref.name is not None
        card = self.context.catalogue.card(ref.space, ref.name)
        if backbone.name is None:
            bases = sorted({variant.backbone for variant in card.variants})
            raise Failed(codes.AC107.at(span, name=ref, known=", ".join(bases), example=bases[0]))
        key = ref.variant or "default"
        found = [v for v in card.variants if v.backbone == backbone.name and v.key == key]
        if found:
            return found[0]
        here = [v.key for v in card.variants if v.backbone == backbone.name]
        if here:
            wanted = Ref("catalogue", space=ref.space, name=ref.name, variant=here[0])
            raise Failed(codes.AC103.at(span, name=ref, help=f"for this backbone: {wanted}"))
        bases = sorted({variant.backbone for variant in card.variants})
        fitting = [
            name for name, _ in self.context.catalogue.match(f"{ref.space}/*", backbone.name)
        ]
        remedy = (
            f"`{ref.space}/` has {'for it: ' + ', '.join(fitting) if fitting else 'nothing for it'}"
        )
        raise Failed(
            codes.AC403.at(
                span,
                name=ref,
                base=" and ".join(bases),
                backbone=backbone.name,
                help=f"{remedy}; set backbone, or train one",
            )
        )

    def _unknown(self, text: str, space: str | None, span: Span) -> None:
        catalogue = self.context.catalogue
        spaces = [space] if space else catalogue.spaces()
        known = [f"{name}/{entry}" for name in spaces for entry in catalogue.names(name)]
        near = suggest(text, [*known, *self._bound, *self.context.aliases])
        exact = [entry for entry in known if entry.split("/")[1] == text]
        if exact:
            near = f"did you mean `{exact[0]}`?"
        self.problems.append(codes.AC103.at(span, name=text, help=near))

    def _glob(self, node: syntax.Reference, *, silent: bool = False) -> Iterator[Adapter]:
        """The adapters that a glob means, by name; AC105 and AC106 where it means none."""
        ref = self._parse(node.text, node.span)
        if ref is None:
            return
        if ref.kind != "catalogue":
            if silent or ref.kind == "bare":
                yield from self._plain_exclusion(ref)
                return
            self.problems.append(
                codes.AC604.at(node.span, name=str(ref), known="globs over the catalogue")
            )
            return
        if not ref.glob:
            yield Adapter(str(ref), ref=ref)
            return
        yield from self._matches(ref, node, silent=silent)

    def _plain_exclusion(self, ref: Ref) -> Iterator[Adapter]:
        yield Adapter(str(ref), ref=ref)

    def _matches(self, ref: Ref, node: syntax.Reference, *, silent: bool) -> Iterator[Adapter]:
        catalogue, backbone = self.context.catalogue, self.context.backbone
        assert ref.space is not None
        spaces = catalogue.spaces()
        if ref.space not in spaces:
            remedy = suggest(ref.space, spaces)
            known = ", ".join(spaces) or "none"
            found = codes.AC106.at(node.span, space=ref.space, known=known, help=remedy)
            self.problems.append(found)
            return
        name = backbone.name if backbone else None
        matched = catalogue.match(str(ref), name)
        if not silent:
            self.globs[node.text] = tuple(f"{ref.space}/{entry}" for entry, _ in matched)
        if not matched and not silent:
            names = [entry for entry, _ in catalogue.match(f"{ref.space}/*", name)]
            known = ", ".join(names) or (f"nothing for {name}" if name else "nothing")
            self.problems.append(
                codes.AC105.at(node.span, pattern=ref, space=ref.space, known=known)
            )
        for entry, variant in matched:
            found_ref = Ref("catalogue", space=ref.space, name=entry, variant=ref.variant)
            yield Adapter(str(found_ref), ref=found_ref, variant=variant, span=node.span)


def _stacked(blocks: list[Block | None], span: Span) -> Block:
    present = [Slot(None, block) for block in blocks if block is not None]
    flat = flatten(present)
    if len(present) == 1:
        return present[0].block
    return Stack(flat, span=span)
