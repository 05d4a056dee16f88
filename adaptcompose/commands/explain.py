"""`adaptcompose explain`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adaptcompose.commands.app import Form, app
from adaptcompose.language.codes import CODES
from adaptcompose.language.diagnostics import suggest
from adaptcompose.language.explanations import Explanation, explanations, plain


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="a code, such as AC303")] = None,
    form: Form = "text",
) -> None:
    """Print the page of a diagnostic: what it means, how it comes about, and what to do.

    Without a code, list all of them.
    """
    if code is None:
        _list(form)
        return
    page = _page(code)
    print(json.dumps(page.as_dict(), indent=2, ensure_ascii=False) if form == "json" else page)


def _page(code: str) -> Explanation:
    name = code.strip().upper()
    page = explanations().get(name if name.startswith("AC") else f"AC{name}")
    if page is None:
        near = suggest(name, explanations())
        remedy = near or "adaptcompose explain lists all of them"
        raise typer.BadParameter(f"no diagnostic has the code {code}; {remedy}")
    return page


def _list(form: str) -> None:
    known = sorted(CODES.values(), key=lambda one: one.id)
    if form == "json":
        pages = [page.as_dict() for page in explanations().values()]
        print(json.dumps(pages, indent=2, ensure_ascii=False))
        return
    for one in known:
        print(f"{one.id}  {plain(one.message)}")
