"""Draws how cost grows: a panel a batch size, a line a width, members to the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plotly import graph_objects
from plotly.subplots import make_subplots

from benchmarks import plots

if TYPE_CHECKING:
    from benchmarks.growth import Point

__all__ = ["save"]

_COLUMNS = 3
_PANEL = 330


def save(points: Sequence[Point], device: str, folder: Path, name: str) -> list[Path]:
    """Write the plot; returns the files that were written."""
    batches = list(dict.fromkeys(point.batch for point in points))
    widths = list(dict.fromkeys(point.width for point in points))
    members = sorted({point.members for point in points})
    rows = -(-len(batches) // _COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=min(_COLUMNS, len(batches)),
        subplot_titles=[f"batch {batch}" for batch in batches],
        shared_yaxes=True,
        x_title="members side by side",
        y_title="seconds an epoch and model",
    )
    for panel, batch in enumerate(batches):
        for place, width in enumerate(widths):
            line = [point for point in points if (point.width, point.batch) == (width, batch)]
            figure.add_trace(
                graph_objects.Scatter(
                    x=[point.members for point in line],
                    y=[point.seconds for point in line],
                    name=f"width {width}",
                    legendgroup=str(width),
                    showlegend=panel == 0,
                    mode="lines+markers",
                    line={"color": plots.COLOURS[place % len(plots.COLOURS)]},
                ),
                row=panel // _COLUMNS + 1,
                col=panel % _COLUMNS + 1,
            )
    figure.update_xaxes(type="log", tickvals=members, ticktext=list(map(str, members)))
    known = [point.seconds for point in points if point.seconds is not None]
    ticks = plots.ticks(min(known), max(known)) if known else []
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_layout(
        title=f"784-width-width-10, batch norm, dropout, Adam, 50,000 rows; {device}",
        template="plotly_white",
        width=_PANEL * max(2, min(_COLUMNS, len(batches))) + 160,
        height=_PANEL * rows + 140,
    )
    return plots.save(figure, folder, name)
