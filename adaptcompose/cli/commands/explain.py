"""`adaptcompose explain`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adaptcompose.cli.app import FormatOption, app
from adaptcompose.cli.completion import complete_word
from adaptcompose.composition.explanations import Explanation, load_explanations, show_placeholders
from adaptcompose.composition.word_docs import WordDoc, list_words
from adaptcompose.composition.word_docs import describe_word as word_page
from adaptcompose.diagnostics.codes import CODES
from adaptcompose.diagnostics.diagnostic import escape_unprintable, suggest


@app.command()
def explain(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="WORD",
            help="The code of a diagnostic, an operator or a method.",
            autocompletion=complete_word,
        ),
    ] = None,
    form: FormatOption = "text",
) -> None:
    """Explain a diagnostic (AC303), an operator (fuse) or a method (lora).

    Without a word, list all diagnostics.
    """
    if code is None:
        _list(form)
        return
    page: Explanation | WordDoc = word_page(code) or _page(code)
    print(json.dumps(page.as_dict(), indent=2, ensure_ascii=False) if form == "json" else page)


def _page(code: str) -> Explanation:
    name = code.strip().upper()
    page = load_explanations().get(name if name.startswith("AC") else f"AC{name}")
    if page is None:
        near = suggest(name, load_explanations()) or suggest(code, list_words())
        remedy = near or "run `adaptcompose explain` to list all diagnostics"
        raise typer.BadParameter(
            f"{escape_unprintable(code)} is not a diagnostic, an operator or a method; {remedy}"
        )
    return page


def _list(form: str) -> None:
    if form == "json":
        pages = [page.as_dict() for page in load_explanations().values()]
        print(json.dumps(pages, indent=2, ensure_ascii=False))
        return
    for name, code in sorted(CODES.items()):
        print(f"{name}  {show_placeholders(code.message)}")
