"""`adaptcompose explain`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adaptcompose.cli.app import Form, app
from adaptcompose.cli.completion import complete_word
from adaptcompose.composition.explanations import Explanation, explanations, plain
from adaptcompose.composition.word_docs import Page, words
from adaptcompose.composition.word_docs import page as word_page
from adaptcompose.diagnostics.codes import CODES
from adaptcompose.diagnostics.diagnostic import printable, suggest


@app.command()
def explain(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="WORD", help="a code, an operator or a method", autocompletion=complete_word
        ),
    ] = None,
    form: Form = "text",
) -> None:
    """Print the page of a diagnostic, AC303, or of a word of the language, fuse.

    Without a word, list all diagnostics.
    """
    if code is None:
        _list(form)
        return
    page: Explanation | Page = word_page(code) or _page(code)
    print(json.dumps(page.as_dict(), indent=2, ensure_ascii=False) if form == "json" else page)


def _page(code: str) -> Explanation:
    name = code.strip().upper()
    page = explanations().get(name if name.startswith("AC") else f"AC{name}")
    if page is None:
        near = suggest(name, explanations()) or suggest(code, words())
        remedy = near or "adaptcompose explain lists all diagnostics"
        raise typer.BadParameter(f"no diagnostic and no word is called {printable(code)}; {remedy}")
    return page


def _list(form: str) -> None:
    known = sorted(CODES.values(), key=lambda one: one.id)
    if form == "json":
        pages = [page.as_dict() for page in explanations().values()]
        print(json.dumps(pages, indent=2, ensure_ascii=False))
        return
    for one in known:
        print(f"{one.id}  {plain(one.message)}")
