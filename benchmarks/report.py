"""The figures as Markdown tables, peers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cases import CONTESTANTS
from criteria import Criterion
from results import Result, Results

TITLES = {
    "base": "One adapter, and a stack with an invertible adapter",
    "fuse": "AdapterFusion",
    "drop": "AdapterDrop: no adapters below layer n",
    "parallel": "One input, several outputs",
    "route": "Another adapter for every row",
    "attach": "From files to a first answer, on a loaded backbone",
}
NAMES = {
    "ours": "ours",
    "literal": "ours, literal",
    "adapters": "`adapters`",
    "peft": "PEFT (LoRA)",
}
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


def tables(results: Results) -> Iterator[str]:
    """Every family and device: ratios, then seconds and memory."""
    for device in dict.fromkeys(result.device for result in results):
        for family in dict.fromkeys(result.case.family for result in results):
            mine = [r for r in results if (r.device, r.case.family) == (device, family)]
            if mine:
                yield f"### {TITLES[family]}{'' if device == 'cpu' else f' ({device})'}"
                yield ""
                yield from family_table(results, mine)
                yield ""
                yield from reasons(mine)


def family_table(results: Results, mine: Sequence[Result]) -> Iterator[str]:
    who = [name for name in CONTESTANTS if any(r.contestant == name for r in mine)]
    yield f"| composition | mode | rows×tokens | {' | '.join(NAMES[name] for name in who)} |"
    yield f"|---|---|---|{'---|' * len(who)}"
    for key in dict.fromkeys(result.case.key for result in mine):
        row = {result.contestant: result for result in mine if result.case.key == key}
        some = next(iter(row.values()))
        cells = [cell(results, row.get(name)) for name in who]
        shape = "×".join(map(str, some.tokens))
        yield f"| {some.case.name} | {some.case.step} | {shape} | {' | '.join(cells)} |"


def cell(results: Results, result: Result | None) -> str:
    """Ratio of the minima (median), seconds, and the growth of memory."""
    if result is None or not result.seconds:
        return "—"
    ratio, middle = results.ratio(result), results.median_ratio(result)
    text = f"{result.minimum:.3g} s ({result.median:.3g})"
    if ratio is not None and middle is not None and result.case.kind != "plain":
        text = f"**{ratio:.3f}** ({middle:.3f}), {result.minimum:.3g} s"
    return text if result.peak is None else f"{text}, {megabytes(result.peak)}"


def megabytes(number: int) -> str:
    return f"{max(0, number) / 1e6:.0f} MB"


def reasons(mine: Sequence[Result]) -> Iterator[str]:
    """Why there is a dash."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for result in mine:
        if result.unable is not None:
            name = f"{result.case.name} ({result.case.step})"
            names = grouped.setdefault((result.contestant, result.unable), [])
            names += [name] if name not in names else []
    for (contestant, reason), names in grouped.items():
        yield f"— {NAMES[contestant]}: {reason}. *{', '.join(names)}*"
        yield ""


def criteria_table(found: Sequence[Criterion]) -> Iterator[str]:
    yield "| promise | limit | measured | met |"
    yield "|---|---|---|---|"
    words = {True: "yes", False: "**no**", None: "not measured"}
    for one in found:
        limit = f"≤ {one.limit:g}" if one.least is None else f"{one.least:g} to {one.limit:g}"
        value = "—" if one.value is None else f"{one.value:.3g}"
        yield f"| {one.text} | {limit} | {value} | {words[one.met]} |"


def heading(document: dict[str, Any]) -> Iterator[str]:
    """On what, when, and with which versions."""
    machine = document["machine"]
    yield (
        f"{document['shape']} with random weights, {document['rounds']} rounds, "
        f"{machine['threads']} threads, {machine['processor']}."
    )
    moments = document["measured"]
    for moment in sorted(set(moments.values())):
        names = ", ".join(name for name, other in moments.items() if other == moment)
        yield f"- measured until {moment[:16]} UTC: {names}"
    for name, versions in document["environments"].items():
        yield f"- {name}: {', '.join(f'{key} {value}' for key, value in versions.items())}"


def page(
    document: dict[str, Any], results: Results, found: Sequence[Criterion], plot: Path | None
) -> str:
    """What stands between the marks of docs/benchmarks.md."""
    lines = [*heading(document), ""]
    if plot is not None:
        lines += [f"![Ratio to the untouched model, in six sweeps]({plot.name})", ""]
    lines += ["### What is promised", "", *criteria_table(found), "", *tables(results)]
    return "\n".join(lines) + "\n"


def write_page(path: Path, text: str) -> None:
    """Between the marks, if the page has them."""
    if path.is_file():
        old = path.read_text(encoding="utf-8")
        before, _, rest = old.partition(BEGIN)
        _, mark, after = rest.partition(END)
        if mark:
            path.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")
            return
    path.write_text(text, encoding="utf-8")
