"""The sweeps as one figure, drawn from the JSON: python benchmarks/plot.py docs/benchmarks.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STYLE = {
    "ours": ("ours", "#0b6e4f", "o-"),
    "literal": ("ours, literal", "#8fbfa8", "s--"),
    "adapters": ("adapters 1.3.0", "#b3412e", "^-"),
    "peft": ("PEFT (LoRA)", "#5a5a8a", "d:"),
}
PANELS = (
    ("fuse", "inference", "sweep", "fuse of n: inference", 2),
    ("fuse", "training", "sweep", "fuse of n: training step", 2),
    ("drop", "training", "sweep", "drop(bottom=n): training step", None),
    ("drop", "inference", "sweep", "drop(bottom=n): inference", None),
    ("parallel", "inference", "sweep", "parallel of n (thin: drop 5)", 2),
    ("route", "inference", "short", "route over n", 2),
)


def points(
    results: list[dict[str, Any]], place: tuple[str, str, str], contestant: str
) -> dict[bool, list[tuple[int, float]]]:
    """n and ratio, with and without a `drop` beside it."""
    found: dict[bool, list[tuple[int, float]]] = {False: [], True: []}
    for one in results:
        same = (one["family"], one["step"], one["batch"]) == place and one["device"] == "cpu"
        if not same or one["contestant"] != contestant or one["ratio"] is None:
            continue
        if one["kind"] != "plain" and (number := one["name"].split(",")[0].split()[-1]).isdigit():
            found["," in one["name"]].append((int(number), one["ratio"]))
    return found


def draw(document: dict[str, Any], path: Path) -> None:
    """Ratio to the untouched model against n, a panel a sweep."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
    for axis, (family, step, batch, title, base) in zip(axes.flat, PANELS, strict=True):
        for contestant, (label, colour, style) in STYLE.items():
            for thin, line in points(
                document["results"], (family, step, batch), contestant
            ).items():
                if line:
                    axis.plot(
                        *zip(*sorted(line), strict=True), style, color=colour,
                        label=None if thin else label, linewidth=0.8 if thin else 1.6, markersize=4,
                    )  # fmt: skip
        axis.set_title(title)
        axis.set_ylim(0, 1.08 * axis.get_ylim()[1])
        axis.grid(alpha=0.25)
        if base is not None and axis.lines:
            axis.set_xscale("log", base=base)
            axis.xaxis.set_major_formatter("{x:g}")
        if axis.lines:
            axis.legend(frameon=False)
    figure.supylabel("× the untouched model's forward pass")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    draw(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".svg"))
