"""Every method has a golden on every family, or stands in `gaps.py` with the reason.

A method is its word in the language, as the golden's own configuration spells it; a family is a
model type of a layout that AdapterHub has a class for.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptcompose.backbones.layout import Facts, read_config, read_facts, registered_layouts
from adaptcompose.formats import adapterhub
from adaptcompose.formats.adapter_folder import open_adapter_folder
from adaptcompose.formats.adapterhub import ADAPTER, FUSION
from adaptcompose.formats.peft_settings import READERS
from adaptcompose.methods import Method, registered_methods
from adaptcompose.methods.targeted import NATIVE_ARCHITECTURE
from tests.parity.gaps import GAPS, PEFT_GAPS, Gap

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FAMILIES = sorted(
    name for name, layout in registered_layouts().items() if name in layout.adapterhub
)
PARTS = {"glow", "dvora", "fusion"}
"""What is a setting, or no method, and has a form of its own in files."""
SIZES = {"language": "seq_bn_inv"}
"""Words that differ from another one in a size."""
OURS = {"bitfit", "deep_prompt", "layernorm", "prompt", "ptuning"}
OURS |= {"loreft", "noreft", "direft"}  # AdapterHub's files of them are not read
"""Words for which AdapterHub has no method, or whose files have another form there."""

Pairs = dict[tuple[str, str], set[str]]
"""The cases of the goldens that there are, by method and family."""


@functools.cache
def facts_of(family: str) -> Facts:
    return read_facts(read_config(HERE / "goldens" / family / "backbone"), f"tiny/{family}")


def word(method: Method) -> str:
    """What it is called; what has a form of its own in files has a name of its own."""
    if getattr(method, "invertible", None) == "glow":
        return "glow"
    dvora = method.word == "vera" and getattr(method, "dora", False)
    name = "dvora" if dvora else str(method).partition("(")[0]
    return SIZES.get(name, name)


@functools.cache
def pairs() -> Pairs:
    found: Pairs = {}
    for path in sorted(HERE.glob(f"goldens/*/*/*/{ADAPTER}")):
        case, family = path.parents[1].name, path.parents[2].name
        method = adapterhub.read_method(
            open_adapter_folder(path.parent, case).adapter, facts_of(family)
        )
        found.setdefault((word(method), family), set()).add(case)
    for path in HERE.glob(f"goldens/*/*/*/{FUSION}"):
        found.setdefault(("fusion", path.parents[2].name), set()).add(path.parents[1].name)
    return found


@functools.cache
def peft_pairs() -> Pairs:
    found: Pairs = {}
    for path in sorted(HERE.glob(f"goldens_peft/*/*/*/{ADAPTER}")):
        config = json.loads(path.read_text())
        kind = config["peft_type"] + ("+DORA" if config.get("use_dora") else "")
        found.setdefault((kind, path.parents[2].name), set()).add(path.parents[1].name)
    return found


def lacking(methods: set[str], found: Pairs, gaps: tuple[Gap, ...]) -> Iterator[str]:
    told = {(gap.method, family) for gap in gaps if not gap.partial for family in gap.families}
    for method in sorted(methods):
        for family in FAMILIES:
            if (method, family) not in found and (method, family) not in told:
                yield f"{method} on {family} has no golden, and `gaps.py` does not say why"


def test_every_method_has_a_golden_on_every_family_or_a_reason() -> None:
    words = {word(settings) for settings in registered_methods().values()}
    assert words > OURS
    assert not list(lacking((words - OURS) | PARTS, pairs(), GAPS))


def test_peft_has_a_golden_of_every_kind_on_every_family_or_a_reason() -> None:
    assert not list(lacking({*READERS, "LORA+DORA"}, peft_pairs(), PEFT_GAPS))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_ours_alone_has_no_form_in_adapterhub(family: str) -> None:
    facts = facts_of(family)
    for settings in registered_methods().values():
        if word(settings) in OURS and not list(settings.problems(facts)):
            assert settings.adapterhub_config(facts)["architecture"] == NATIVE_ARCHITECTURE


@pytest.mark.parametrize("gap", [*GAPS, *PEFT_GAPS], ids=lambda gap: f"{gap.method}: {gap.why}")
def test_a_gap_is_one(gap: Gap) -> None:
    """No golden with an output contradicts it, and the test that it names is there."""
    assert (gap.error is None) != (gap.defect is None)
    found = peft_pairs() if gap in PEFT_GAPS else pairs()
    for family in gap.families:
        assert family in FAMILIES
        cases = found.get((gap.method, family), set())
        folder = HERE / ("goldens_peft" if gap in PEFT_GAPS else "goldens") / family
        run = [case for case in cases if (folder / case / "case.json").is_file()]
        assert bool(run) == gap.partial, (family, run)
    path, _, name = gap.held.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
