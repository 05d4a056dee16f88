"""Fill in the splits that references to data leave out, and check that the data exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from adaptcompose.diagnostics.codes import AC606, AC607, AC610
from adaptcompose.diagnostics.diagnostic import Diagnostic, Span, suggest
from adaptcompose.experiment.spec.sections import Spec, TrainSection
from adaptcompose.experiment.spec.value_types import DataRef


def resolve_splits(spec: Spec) -> tuple[Spec, list[Diagnostic]]:
    """The spec with all splits filled in, and the problems of its references."""
    resolver = _SplitResolver(spec)
    return resolver.resolve(), resolver.problems


@dataclass
class _SplitResolver:
    """Fills in splits and collects problems."""

    spec: Spec

    def __post_init__(self) -> None:
        self.problems: list[Diagnostic] = []

    def resolve(self) -> Spec:
        spec = self.spec
        evaluate = tuple(
            replace(
                item, data=self._resolve_ref(item.data, item.span_of("data"), "test", "validation")
            )
            for item in spec.evaluate
        )
        predict = tuple(
            replace(
                item, data=self._resolve_ref(item.data, item.span_of("data"), "test", "validation")
            )
            for item in spec.predict
        )
        train = self._train(spec.train) if spec.train else None
        self._check_declared()
        return replace(spec, train=train, evaluate=evaluate, predict=predict)

    def _train(self, train: TrainSection) -> TrainSection:
        data = self._resolve_ref(train.data, train.span_of("data"), "train")
        validation = train.validation
        if validation:
            validation = self._resolve_ref(validation, train.span_of("validation"), "validation")
        elif data and data.name in self.spec.data and data.split != "validation":
            section = self.spec.data[data.name]
            if section.is_unresolved:
                return replace(train, data=data)
            if "validation" in section.files_by_split(data.config):
                validation = replace(data, split="validation")
        keep = train.keep or ("best" if validation else "last")
        needing = {"keep": train.keep == "best", "every": train.every, "patience": train.patience}
        for name in [name for name, given in needing.items() if given and not validation]:
            help = f"add `validation:`, which `{name}` needs"
            span = train.span_of(name)
            self.problems.append(AC606.at(span, section="train", name="validation", help=help))
        return replace(train, data=data, validation=validation, keep=keep)

    def _resolve_ref(self, ref: Any, span: Span | None, *splits: str) -> Any:
        """The reference with its split: the first of `splits` that the data have.

        After a problem, the reference stays as it is.
        """
        if ref is None:
            return None
        data = self.spec.data
        if ref.name not in data:
            self._report_unknown(ref.name, data, span)
            return ref
        if data[ref.name].repo is not None:
            return self._resolve_in_data_set(ref, span, splits)
        files = data[ref.name].files or {}
        split = ref.split or next((one for one in splits if one in files), splits[0])
        if split not in files:
            if files:
                self._report_unknown(
                    f"{ref.name}/{split}", [f"{ref.name}/{one}" for one in files], span
                )
            return ref
        config = ref.config or data[ref.name].config
        templated = any("{config}" in path for path in files[split])
        why = None
        if templated and not config:
            why = f"write `{ref.name}[config]` or set `config:`, since its files contain {{config}}"
        if ref.config and not templated:
            why = f"write `{ref.name}`, since its files do not contain {{config}}"
        if why:
            self.problems.append(AC610.at(span, name=str(ref), help=why))
            return ref
        filled = replace(ref, split=split, config=config if templated else None)
        self._check_files(filled)
        return filled

    def _resolve_in_data_set(
        self, ref: DataRef, span: Span | None, splits: tuple[str, ...]
    ) -> DataRef:
        """The reference with its split; unchanged while the data set is unresolved."""
        section = self.spec.data[ref.name]
        if section.dataset is None:
            return ref
        layout, config = section.dataset.layout, ref.config or section.config
        if layout.choose_config(config) is None:
            name = f"{ref.name}[{config}]" if config else ref.name
            self._report_unknown(name, [f"{ref.name}[{one}]" for one in layout.configs], span)
            return ref
        files_by_split = section.files_by_split(config)
        split = ref.split or next((one for one in splits if one in files_by_split), splits[0])
        if split not in files_by_split and split not in section.splits:
            self._report_unknown(
                f"{ref.name}/{split}", [f"{ref.name}/{one}" for one in files_by_split], span
            )
        elif split not in files_by_split:
            known = list(section.dataset.splits(config))
            self._report_unknown(section.splits[split], known, section.span_of(f"splits.{split}"))
        return replace(ref, split=split, config=config)

    def _check_declared(self) -> None:
        """Check declared files and splits, even if no reference uses them."""
        for name, section in self.spec.data.items():
            if section.dataset is not None:
                every = section.dataset.layout.configs.values()
                known = list(dict.fromkeys(split for splits in every for split in splits))
                for split, theirs in section.splits.items():
                    if theirs not in known:
                        self._report_unknown(theirs, known, section.span_of(f"splits.{split}"))
            for split, paths in (section.files or {}).items():
                if section.config or not any("{config}" in path for path in paths):
                    self._check_files(DataRef(name, section.config, split))

    def _check_files(self, ref: DataRef) -> None:
        assert ref.split is not None
        section = self.spec.data[ref.name]
        for declared, path in zip(
            section.files[ref.split], self.spec.split_files(ref), strict=True
        ):
            if not path.is_file():
                span = section.span_of(f"files.{ref.split}")
                shown = declared.replace("{config}", ref.config or "")
                self.problems.append(AC607.at(span, path=shown, root="the folder of the spec"))

    def _report_unknown(self, name: str, known: Iterable[str], span: Span | None) -> None:
        known = list(known)
        near = suggest(name, known) if known else "add `data:` to the spec"
        listed = ", ".join(known)
        self.problems.append(AC610.at(span, name=name, known=listed, help=near))
