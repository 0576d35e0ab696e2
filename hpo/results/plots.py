"""Plots of what was noted with every epoch, as HTML pages that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpo.errors import HpoError
from hpo.search.records import TrialRecord
from hpo.training.diagnostics import GRADIENT_NORMS

__all__ = ["gradient_norms"]

# Okabe and Ito (2008): told apart also by those who see few colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_ROW = 320  # pixels
_FRAME = 140


def gradient_norms(study: str, trials: Sequence[TrialRecord]) -> str:
    """A page with the gradient norms of every trial that has some: a plot a layer, a line a trial.

    plotly.js is in the page, which weighs some 5 MB.

    Raises:
        HpoError: no trial has any.
    """
    from plotly.subplots import make_subplots  # a slow import that only a page needs

    shown = [trial for trial in trials if any(epoch.get(GRADIENT_NORMS) for epoch in trial.curve)]
    if not shown:
        raise HpoError(
            f"study `{study}` has no finished trial with gradient norms; "
            "ask for them with `training.diagnostics: [gradient_norms]`, then run hpo optimize"
        )
    hidden = max(_layers(trial) for trial in shown) - 1
    titles = [*(f"hidden layer {depth + 1}" for depth in range(hidden)), "output layer"]
    figure = make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, subplot_titles=titles, x_title="epoch"
    )
    for place, trial in enumerate(shown):
        for row, layer in enumerate([*range(hidden), -1], start=1):
            figure.add_trace(_line(trial, layer, _COLOURS[place % len(_COLOURS)]), row, 1)
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_layout(
        title=f"{study}: squared sum of the gradient with respect to each pre-activation",
        template="plotly_white",
        height=_ROW * len(titles) + _FRAME,
    )
    page: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    return page


def _layers(trial: TrialRecord) -> int:
    """How many linear layers it has."""
    return max(len(epoch.get(GRADIENT_NORMS, ())) for epoch in trial.curve)


def _line(trial: TrialRecord, layer: int, colour: str) -> Any:
    from plotly import graph_objects

    points = _points(trial, layer)
    return graph_objects.Scatter(
        x=[epoch for epoch, _ in points],
        y=[value for _, value in points],
        name=_name(trial),
        legendgroup=str(trial.number),
        showlegend=layer == -1,
        mode="lines+markers",
        line={"color": colour},
    )


def _points(trial: TrialRecord, layer: int) -> list[tuple[int, float]]:
    """Epoch and squared sum of a layer; none where the trial has no such layer."""
    if layer >= _layers(trial) - 1:
        return []
    return [
        (epoch["epoch"], epoch[GRADIENT_NORMS][layer])
        for epoch in trial.curve
        if epoch.get(GRADIENT_NORMS)
    ]


def _name(trial: TrialRecord) -> str:
    words: Any = trial.origin.get("variation")
    return f"trial {trial.number}" if words is None else f"{trial.number}: {words}"
