"""One HTML page with plots over epochs, for a browser without a network.

plotly.js is in the page, so it weighs some 5 MB and asks nobody for anything.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Plot", "Section", "Series", "figure", "page"]

_ROW = 300  # pixels
_FRAME = 110  # pixels for the legend above and the epochs below


@dataclass(frozen=True)
class Series:
    """A line: one value an epoch.

    Attributes:
        name: as the legend has it.
        values: None, or what is not a finite number, leaves a gap.
    """

    name: str
    epochs: Sequence[int]
    values: Sequence[float | None]


@dataclass(frozen=True)
class Plot:
    """Lines over one axis of values.

    Attributes:
        title: of that axis, with the unit.
        log: whether its scale is logarithmic.
    """

    title: str
    series: Sequence[Series]
    log: bool = False


@dataclass(frozen=True)
class Section:
    """Plots below each other, over the same epochs.

    Attributes:
        notes: a paragraph each, above the plots.
        marks: epochs with a line down all plots, and what stands at it.
    """

    heading: str
    plots: Sequence[Plot]
    notes: Sequence[str] = ()
    marks: Mapping[int, str] = field(default_factory=dict)


def page(title: str, sections: Sequence[Section]) -> str:
    """The page, from its doctype to its end."""
    from plotly.offline import get_plotlyjs  # a slow import that only a page needs

    figures = json.dumps([figure(section) for section in sections], allow_nan=False)
    return _PAGE.format(
        title=html.escape(title),
        sections="\n".join(_markup(number, section) for number, section in enumerate(sections)),
        plotly=get_plotlyjs(),
        # Nothing in a string may end the script.
        figures=figures.replace("<", "\\u003c"),
    )


def figure(section: Section) -> dict[str, Any]:
    """A section's plots as plotly.js takes them: `data` and `layout`."""
    axes = [f"y{number}" if number > 1 else "y" for number in range(1, len(section.plots) + 1)]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "marker": {"size": 4},
            "name": series.name,
            "x": list(series.epochs),
            "y": [_finite(value) for value in series.values],
            "yaxis": axis,
        }
        for axis, plot in zip(axes, section.plots, strict=True)
        for series in plot.series
    ]
    layout: dict[str, Any] = {
        "template": {"layout": {"colorway": _COLOURS}},
        "grid": {"rows": len(axes), "columns": 1, "subplots": [[f"x{axis}"] for axis in axes]},
        "height": _ROW * len(axes) + _FRAME,
        "margin": {"t": 60, "r": 20},
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom"},
        "hovermode": "x",
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        "shapes": [_line(epoch) for epoch in section.marks],
        "annotations": [_label(epoch, text) for epoch, text in section.marks.items()],
    }
    for axis, plot in zip(axes, section.plots, strict=True):
        layout[axis.replace("y", "yaxis")] = {
            "title": {"text": html.escape(plot.title)},
            "type": "log" if plot.log else "linear",
        }
    return {"data": data, "layout": layout}


def _markup(number: int, section: Section) -> str:
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in section.notes)
    return (
        f"<section>\n<h2>{html.escape(section.heading)}</h2>\n{notes}\n"
        f'<div id="plot-{number}"></div>\n</section>'
    )


def _line(epoch: int) -> dict[str, Any]:
    across = {"type": "line", "xref": "x", "x0": epoch, "x1": epoch}
    dots = {"color": "#777777", "dash": "dot", "width": 1}
    return {**across, "yref": "paper", "y0": 0, "y1": 1, "line": dots}


def _label(epoch: int, text: str) -> dict[str, Any]:
    place = {"xref": "x", "x": epoch, "yref": "paper", "y": 0, "yanchor": "bottom"}
    return {**place, "text": html.escape(text), "showarrow": False, "textangle": -90}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# Told apart by people who do not see every colour: those of Okabe and Ito (2008).
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }}
p {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
{sections}
<script>window.PlotlyConfig = {{MathJaxConfig: "local"}};</script>
<script>{plotly}</script>
<script id="figures" type="application/json">{figures}</script>
<script>
const figures = JSON.parse(document.getElementById("figures").textContent);
figures.forEach((figure, number) => Plotly.newPlot(
  `plot-${{number}}`, figure.data, figure.layout, {{responsive: true, displaylogo: false}}));
</script>
</body>
</html>
"""
