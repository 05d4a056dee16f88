"""Name lookup: references and globs to adapters of the catalogue, folders and repositories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from adaptcompose.backbones.layout import Facts
from adaptcompose.catalogue.cards import DEFAULT_VARIANT, NO_CARDS, Catalogue, Variant
from adaptcompose.composition.graph import Adapter, Block
from adaptcompose.diagnostics import codes
from adaptcompose.diagnostics.diagnostic import Failed, Span, default_span, suggest
from adaptcompose.syntax.references import Ref, matches_glob, parse_ref


@dataclass(frozen=True)
class NameLookup:
    """Looks up references in a catalogue; without a backbone it accepts every variant."""

    catalogue: Catalogue
    backbone: Facts | None = None
    locked_globs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Expansions of globs that a lock records, so that a new card never changes an old run."""
    list_repositories: Callable[[str], list[str]] | None = None
    """Lists the repositories on the Hugging Face Hub that match a glob; None if offline."""

    def parse(self, text: str, span: Span) -> Ref:
        return parse_ref(text, self.catalogue.spaces(), span)

    def look_up(self, ref: Ref, span: Span) -> Adapter:
        """The adapter that a reference means.

        Raises Failed with AC103, AC106, AC107 or AC403 if the catalogue has none for the backbone.
        """
        variant = self._find_variant(ref, span) if ref.kind == "catalogue" else None
        return Adapter(str(ref), ref=ref, variant=variant, span=span)

    def _find_variant(self, ref: Ref, span: Span) -> Variant | None:
        assert ref.space is not None and ref.name is not None
        self._require_name(ref, span)
        if self.backbone is None:
            self._require_variant_key(ref, span)
            return None
        name = self.backbone.name
        return self.catalogue.resolve_variant(
            ref.space, ref.name, name, ref.variant or DEFAULT_VARIANT, span=span
        )

    def _require_variant_key(self, ref: Ref, span: Span) -> None:
        """Raise AC103 if a reference names a variant that no backbone has."""
        if ref.variant is None or ref.is_glob:
            return
        card = self.catalogue.card(str(ref.space), str(ref.name), span)
        keys = sorted({variant.key for variant in card.variants})
        if ref.variant not in keys:
            label = f"{ref.space}/{ref.name}"
            listed = f"use one of {', '.join(f'{label}@{key}' for key in keys)}"
            near = suggest(ref.variant, keys) or listed
            raise Failed(codes.AC103.at(span, name=ref, help=near))

    def _require_name(self, ref: Ref, span: Span) -> None:
        """Raise AC106 or AC103 for an unknown space or name; this reads no card."""
        assert ref.space is not None
        self._require_space(ref.space, span)
        if ref.name not in self.catalogue.names(ref.space):
            raise self.unknown_name(str(ref), span, ref.space)

    def _require_space(self, space: str, span: Span) -> None:
        spaces = self.catalogue.spaces()
        if space not in spaces:
            known, near = ", ".join(spaces), suggest(space, spaces) if spaces else NO_CARDS
            raise Failed(codes.AC106.at(span, space=space, known=known, help=near))

    def unknown_name(self, text: str, span: Span, space: str | None, *others: str) -> Failed:
        """AC103 with a suggestion: the same name in another space, or a similar name."""
        spaces = [space] if space else self.catalogue.spaces()
        known = [f"{name}/{entry}" for name in spaces for entry in self.catalogue.names(name)]
        same = [entry for entry in known if entry.split("/")[1] == text]
        near = f"did you mean `{same[0]}`?" if same else suggest(text, [*known, *others])
        return Failed(codes.AC103.at(span, name=text, help=near))

    def placeholder(self, text: str, span: Span, slot: str | None) -> Adapter:
        """An adapter in place of a wrong reference, so that the rest can be checked."""
        try:
            ref = self.parse(text, span)
        except Failed:
            ref = Ref("hub", repo=text, has_hub_prefix=True)
        ref = ref.in_space(slot or "") if ref.kind == "bare" else ref
        return Adapter(str(ref), ref=ref, span=span)

    def exclusion_pattern(self, text: str, span: Span) -> str:
        """The pattern of an exclusion `!…`, which removes matching entries of a glob.

        Raises Failed for a pattern that cannot match anything, but not if nothing matches it.
        """
        ref = self.parse(text, span)
        if ref.kind == "bare":
            raise self.unknown_name(text, span, None)
        if ref.kind == "local":
            raise Failed(
                codes.AC109.at(
                    span,
                    name=text,
                    why="globs do not match folders, so there is nothing to exclude",
                )
            )
        if ref.kind == "catalogue" or not ref.has_hub_prefix:
            self._require_space(ref.space or str(ref.repo).partition("/")[0], span)
        return str(ref)

    def expand_glob(self, ref: Ref, span: Span) -> list[Adapter]:
        """The entries that match a glob and that exist for the backbone, sorted by name.

        Raises Failed with AC105 if there are none, AC106 if the catalogue does not have the space,
        and AC109 if the glob names no space.
        """
        if ref.kind == "bare":
            raise Failed(
                codes.AC109.at(span, name=ref, why="a glob needs a space before it, as in `glue/*`")
            )
        if ref.kind != "catalogue":
            return self._expand_repositories(ref, span)
        assert ref.space is not None and ref.name is not None
        self._require_space(ref.space, span)
        if str(ref) in self.locked_globs:
            return self._locked_adapters(ref, span)
        leaves = list(self._matching_adapters(ref, span))
        if not leaves:
            others = self._matching_adapters(_space_glob(ref.space), span)
            base = self.backbone.name if self.backbone else None
            nothing = f"nothing for {base}" if base else "nothing"
            known = ", ".join(leaf.name for leaf in others) or nothing
            raise Failed(codes.AC105.at(span, pattern=ref, space=ref.space, known=known))
        return leaves

    def _locked_adapters(self, ref: Ref, span: Span) -> list[Adapter]:
        texts = self.locked_globs[str(ref)]
        return [self.look_up(self.parse(text, span), span) for text in texts]

    def _expand_repositories(self, ref: Ref, span: Span) -> list[Adapter]:
        """The repositories that match a glob; the glob itself if no hub can be asked."""
        assert ref.repo is not None
        if str(ref) in self.locked_globs:
            return self._locked_adapters(ref, span)
        if self.list_repositories is None:
            return [Adapter(str(ref), ref=ref, span=span)]
        with default_span(span):
            refs = [replace(ref, repo=repo) for repo in self.list_repositories(ref.repo)]
        if not refs:
            author = ref.repo.partition("/")[0]
            help = f"run `adaptcompose search {author}` to see what there is"
            raise Failed(codes.AC105.at(span, pattern=ref, space=author, known="", help=help))
        return [self.look_up(match, span) for match in refs]

    def _matching_adapters(self, ref: Ref, span: Span) -> Iterator[Adapter]:
        assert ref.space is not None and ref.name is not None
        for name in self.catalogue.names(ref.space):
            if not matches_glob(ref.name, name):
                continue
            entry = Ref("catalogue", space=ref.space, name=name, variant=ref.variant)
            if self.backbone is None and ref.variant is None:
                yield Adapter(str(entry), ref=entry, span=span)
                continue
            card = self.catalogue.card(ref.space, name, span)
            if self.backbone is None:
                if ref.variant in {variant.key for variant in card.variants}:
                    yield Adapter(str(entry), ref=entry, span=span)
                continue
            if self.backbone.name is None:
                self.catalogue.resolve_variant(ref.space, name, None, span=span)  # raises AC107
            variant = card.find_variant(self.backbone.name or "", ref.variant or DEFAULT_VARIANT)
            if variant is not None:
                yield Adapter(str(entry), ref=entry, variant=variant, span=span)


def is_unexpanded_glob(block: Block) -> bool:
    """True if a block is a glob whose adapters are unknown because no hub was asked."""
    return isinstance(block, Adapter) and block.ref is not None and block.ref.is_glob


def _space_glob(space: str) -> Ref:
    return Ref("catalogue", space=space, name="*")
