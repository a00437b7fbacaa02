"""The plots, as SVG: one point for each contestant. Never computes more than medians."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from benchmarks.figures import Suite
from benchmarks.roster import FLOOR, OURS

_PLOTS = (
    ("drain", "drain", "rate", "async no-op jobs drained per second, one worker process"),
    ("enqueue", "enqueue", "rate", "jobs enqueued per second, one by one"),
    ("latency", "latency", "p50_ms", "ms from enqueue to the processor's start, p50, idle worker"),
)
_OURS_COLOUR, _FLOOR_COLOUR, _PEER_COLOUR = "#c0392b", "#b8b8b8", "#34607f"


def draw_plots(suite: Suite, folder: Path) -> list[str]:
    """Write the plots to the folder and return their file names; those without data are left out."""
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # equal data, equal file
    mpl.rcParams["svg.fonttype"] = "none"
    written = []
    for name, measure, part, title in _PLOTS:
        found = [(c, value) for c in suite.contestants if (value := suite.middle(c, measure, part)) is not None]
        if found:
            points = sorted(found, key=lambda point: point[1], reverse=part != "rate")
            _draw(points, title).savefig(folder / f"{name}.svg", format="svg", metadata={"Date": None})
            written.append(f"{name}.svg")
    return written


def _draw(points: list[tuple[str, float]], title: str) -> Canvas:
    canvas = Canvas(figsize=(8, 0.6 + 0.3 * len(points)), layout="constrained")
    axes = canvas.add_subplot()
    names, values = [name for name, _ in points], [value for _, value in points]
    axes.scatter(values, names, color=[_colour(name) for name in names])
    for name, value in points:
        digits = 0 if value >= 100 else 2  # noqa: PLR2004 - figures of three digits need no fraction
        axes.annotate(f"{value:,.{digits}f}", (value, name), (8, -3), textcoords="offset points", fontsize=8)
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_title(f"{title} (log scale)", fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


def _colour(name: str) -> str:
    if name.startswith(OURS.name):
        return _OURS_COLOUR
    return _FLOOR_COLOUR if name in {contestant.name for contestant in FLOOR} else _PEER_COLOUR
