"""Run the Python of a page as one session: `python -m tests.page_session docs/tour.md`.

A `python` block that starts with a comment is a file and is executed; a `pycon` block is a doctest
that reads the names of the blocks before it. In a process of its own, since a page may register
words of the language.
"""

from __future__ import annotations

import doctest
import re
import sys
import types
from pathlib import Path

BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```$", re.M | re.S)


def run_page(path: Path) -> int:
    """How many examples of a page failed; what differs is printed."""
    text = path.read_text("utf-8")
    page = types.ModuleType("page")
    sys.modules["page"] = page  # dataclasses look up their module
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(2))
        if block[1] == "pycon":
            session = doctest.DocTestParser().get_doctest(
                block[2], page.__dict__, path.name, str(path), line
            )
            session.globs = page.__dict__  # the parser copies the names, the next block needs them
            runner.run(session, clear_globs=False)
        elif block[2].startswith("# "):
            exec(compile("\n" * line + block[2], path, "exec"), page.__dict__)
    assert runner.tries, f"{path} has no examples"
    return runner.failures


if __name__ == "__main__":
    sys.exit(run_page(Path(sys.argv[1])) > 0)
