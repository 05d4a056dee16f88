"""What the shell offers at the tab key: files, and words inside a quoted expression."""

from __future__ import annotations

from pathlib import Path

ENDINGS = (".yaml", ".yml", ".compose")


def complete_target(incomplete: str) -> list[str]:
    """Files that hold a composition, or how an expression goes on."""
    files = _files(incomplete, ENDINGS)
    if files and not set(incomplete) & set("(|=,"):
        return files
    from adaptcompose.hub.cards import Catalogue
    from adaptcompose.language.completion import continued
    from adaptcompose.resources import resource

    cards = Catalogue.open(resource("hub_cards"), Path("hub_cards"))
    return continued(incomplete, cards)


def complete_backbone(incomplete: str) -> list[str]:
    """Folders with a config.json."""
    folders = _folders(incomplete)
    return [f"{folder}" for folder in folders if (Path(folder) / "config.json").is_file()] or [
        f"{folder}/" for folder in folders
    ]


def complete_spec(incomplete: str) -> list[str]:
    """Specs."""
    return _files(incomplete, ENDINGS[:2])


def complete_key(incomplete: str) -> list[str]:
    """Keys of spec.yaml, with their choices behind `=`."""
    from adaptcompose.work.spec import keys

    known = {key.path: key for key in keys() if "*" not in key.path}
    path, mark, _ = incomplete.partition("=")
    if mark and path in known:
        options = known[path].kind.removeprefix("one of ").split(", ")
        offered = options if known[path].kind.startswith("one of ") else []
        return [f"{path}={one}" for one in offered if f"{path}={one}".startswith(incomplete)]
    return [f"{one.replace('[]', '[0]')}=" for one in known if one.startswith(incomplete)]


def complete_word(incomplete: str) -> list[str]:
    """Codes of diagnostics, operators and methods: what `explain` explains."""
    from adaptcompose.language.codes import CODES
    from adaptcompose.language.reference import pages

    known = [*CODES, *(page.word for page in pages())]
    return [word for word in known if word.startswith(incomplete)]


def _files(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Files with these endings, and folders to look into, that begin so."""
    start = Path(incomplete if incomplete.endswith("/") else f"{incomplete}x").parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    if not start.is_dir():
        return []
    found = []
    for path in sorted(start.iterdir()):
        name = f"{prefix}{path.name}"
        if not name.startswith(incomplete) or path.name.startswith("."):
            continue
        if path.suffix in endings:
            found.append(name)
        elif path.is_dir() and incomplete and any(path.glob("*.yaml")):
            found.append(f"{name}/")
    return found


def _folders(incomplete: str) -> list[str]:
    start = Path(incomplete if incomplete.endswith("/") else f"{incomplete}x").parent
    prefix = incomplete[: incomplete.rfind("/") + 1]
    if not start.is_dir():
        return []
    names = (f"{prefix}{path.name}" for path in sorted(start.iterdir()) if path.is_dir())
    return [name for name in names if name.startswith(incomplete)]
