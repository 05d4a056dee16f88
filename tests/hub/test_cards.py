from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from adaptcompose.catalogue.cards import Card, Catalogue, Variant
from adaptcompose.diagnostics.diagnostic import Failed

if TYPE_CHECKING:
    from pathlib import Path

XLMR = "FacebookAI/xlm-roberta-base"
BERT = "google-bert/bert-base-uncased"


def card(space: str, name: str, *variants: Variant, text: str = "A paragraph.") -> Card:
    return Card(
        space, name, f"{name}: a title", variants, ("sw", "no"), text, "fill-mask", ("wikipedia",)
    )


SW = card(
    "lang",
    "sw",
    Variant("default", XLMR, "a/sw", "madx", "sub/dir", "language(reduction=2)", "apache-2.0"),
    Variant("houlsby", XLMR, "a/sw-houlsby"),
    Variant("default", BERT, "a/sw-bert", "1"),
)


def write(root: Path, *cards: Card) -> Path:
    for one in cards:
        page = root / one.space / f"{one.name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(str(one))
    return root


def failure(function: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(Failed) as failed:
        function(*arguments)
    (found,) = failed.value.diagnostics
    return found.code, f"{found.message} {found.help}"


def test_printing_is_the_inverse_of_reading(tmp_path: Path) -> None:
    assert Catalogue.open(write(tmp_path, SW)).card("lang", "sw") == SW


def test_look_up(tmp_path: Path) -> None:
    catalogue = Catalogue.open(
        write(tmp_path, SW, card("glue", "rte", Variant("default", BERT, "a/r")))
    )
    assert catalogue.spaces() == ["glue", "lang"]
    assert catalogue.names("lang") == ["sw"]
    assert catalogue.names("../lang") == []
    assert catalogue.resolve_variant("lang", "sw", XLMR) == SW.variants[0]
    assert catalogue.resolve_variant("lang", "sw", "xlm-roberta-base", "houlsby") == SW.variants[1]
    assert catalogue.resolve_variant("lang", "sw", "bert-base-uncased") == SW.variants[2]


def test_globs_give_what_this_backbone_has(tmp_path: Path) -> None:
    names = ("rte", "mnli", "qnli")
    cards = [card("glue", name, Variant("default", BERT, f"a/{name}")) for name in names]
    other = card("glue", "sst2", Variant("default", XLMR, "a/s"), Variant("old", BERT, "a/o"))
    catalogue = Catalogue.open(write(tmp_path, *cards, other))

    def found(pattern: str, backbone: str = BERT, key: str = "default") -> list[str]:
        return [name for name, _ in catalogue.match(pattern, backbone, key)]

    assert found("glue/*") == ["mnli", "qnli", "rte"]
    assert found("glue/{m,q}nl?") == ["mnli", "qnli"]
    assert found("glue/*", XLMR) == ["sst2"]
    assert found("glue/*", key="old") == ["sst2"]
    assert found("glue/x*") == []
    assert failure(catalogue.match, "nowhere/*", BERT)[0] == "AC106"


def test_what_is_missing(tmp_path: Path) -> None:
    catalogue = Catalogue.open(write(tmp_path, SW))
    assert failure(catalogue.card, "lng", "sw") == (
        "AC106", "the catalogue has no space `lng` use one of lang"
    )  # fmt: skip
    code, message = failure(catalogue.card, "lang", "swh")
    assert code == "AC103"
    assert "did you mean `sw`?" in message
    assert failure(catalogue.card, "lang", "../lang/sw")[0] == "AC103"
    assert failure(catalogue.resolve_variant, "lang", "sw", None)[0] == "AC107"
    code, message = failure(catalogue.resolve_variant, "lang", "sw", "gpt2")
    assert code == "AC403"
    assert f"trained on {XLMR} and {BERT}" in message
    code, message = failure(catalogue.resolve_variant, "lang", "sw", XLMR, "houlsbi")
    assert code == "AC103"
    assert "houlsby" in message


def test_the_nearer_card_wins(tmp_path: Path) -> None:
    near = card("lang", "sw", Variant("default", BERT, "b/near"))
    roots = (write(tmp_path / "far", SW), write(tmp_path / "near", near), tmp_path / "missing")
    catalogue = Catalogue.open(*roots)
    found = catalogue.card("lang", "sw")
    assert found.title == near.title
    assert found.find_variant(BERT) == near.variants[0]
    assert found.variant_keys(XLMR) == ["default", "houlsby"], (
        "the nearer says nothing of this backbone"
    )
    assert catalogue.names("lang") == ["sw"]


HEAD = f"title: x\nvariants:\n  {BERT}:\n    default: {{repo: a/b}}\n"


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("", "between `---` lines"),
        (f"---\n{HEAD}", "between `---` lines"),
        ("---\n[1]\n---\n", "must be a mapping"),
        (f"---\n{HEAD}license: x\n---\n", "no key `license`"),
        ("---\ntitle: x\n---\n", "`variants` must be a mapping"),
        (f"---\n{HEAD.replace('title: x', 'title: 5')}---\n", "`title` must be a text"),
        (f"---\n{HEAD.replace('a/b', '../b')}---\n", "not a valid repo"),
        (f"---\n{HEAD.replace('repo: a/b', 'revision: x')}---\n", "no `repo`"),
        (f"---\n{HEAD.replace('a/b', 'a/b, revision: ../x')}---\n", "not a valid revision"),
        (f"---\n{HEAD.replace('a/b', 'a/b, subfolder: /x')}---\n", "not a valid subfolder"),
        (f"---\n{HEAD.replace('a/b', 'a/b, branch: x')}---\n", "no key `branch`"),
        (f"---\n{HEAD.replace('default', '../x')}---\n", "not a valid name for a variant"),
        (f"---\n{HEAD.replace(BERT, '../x')}---\n", "not the name of a model"),
        (f"---\n{HEAD}languages: sw\n---\n", "must be a list"),
        (f"---\n{HEAD}datasets: {{}}\n---\n", "must be a list"),
        (f"---\n{HEAD}task: [x]\n---\n", "`task` must be a text"),
        (f"---\n{HEAD}---\n{'x' * 1_000_000}", "larger than 1 MB"),
    ],
)
def test_broken_cards(tmp_path: Path, page: str, why: str) -> None:
    write(tmp_path, SW)
    (tmp_path / "lang" / "sw.md").write_text(page)
    code, message = failure(Catalogue.open(tmp_path).card, "lang", "sw")
    assert code == "AC421"
    assert "lang/sw" in message
    assert why in message


def test_a_card_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, SW)
    (tmp_path / "lang" / "sw.md").write_bytes(b"---\n\xff\n---\n")
    assert failure(Catalogue.open(tmp_path).card, "lang", "sw")[0] == "AC421"


def test_norway_is_a_language(tmp_path: Path) -> None:
    page = str(SW).replace("'no'", "no").replace('"no"', "no")
    write(tmp_path, SW)
    (tmp_path / "lang" / "sw.md").write_text(page)
    assert Catalogue.open(tmp_path).card("lang", "sw").languages == ("sw", "no")


def test_names_are_read_without_cards(tmp_path: Path) -> None:
    write(tmp_path, SW)
    for name in ("README.md", "Upper.md", ".hidden.md", "notes.txt", "a b.md"):
        (tmp_path / "lang" / name).write_text("no card")
    (tmp_path / "_card.md.jinja").write_text("")
    (tmp_path / "lang" / "broken.md").write_text("no card")
    assert Catalogue.open(tmp_path).names("lang") == ["broken", "sw"]
    assert Catalogue.open(tmp_path).spaces() == ["lang"]


def test_the_catalogue_needs_no_hub_and_no_torch() -> None:
    program = (
        "import sys\nfrom adaptcompose.catalogue import cards\n"
        "from adaptcompose.hub import store, folder\n"
        "guests = {'torch', 'transformers', 'huggingface_hub', 'rich', 'safetensors'}\n"
        "assert not guests & set(sys.modules), guests & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
