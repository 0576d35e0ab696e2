"""What networks predict over the one number that they predict from, on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.results.page import Plot, Section, Series, page

__all__ = ["PAGE", "Prediction", "draw"]

PAGE = "prediction.html"
"""What the page is called in an artifact."""

_Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The test rows of a dataset with one input and one target, in units of their own.

    Attributes:
        inputs: `[rows]`.
        targets: `[rows]`.
        predictions: `[seeds, rows]`, of each network.
    """

    inputs: _Numbers
    targets: _Numbers
    predictions: _Numbers


def draw(study: str, found: Prediction, notes: Sequence[str] = ()) -> str:
    """The page: test rows as points, the networks' prediction as a line.

    Several networks give the mean over them, and lines one standard deviation above and below.

    Args:
        notes: a paragraph each.
    """
    order = np.argsort(found.inputs, kind="stable")
    inputs, targets = found.inputs[order].tolist(), found.targets[order].tolist()
    predictions = found.predictions[:, order]
    seeds, mean = len(predictions), predictions.mean(0)
    series = [Series("test rows", inputs, targets, mode="markers")]
    if seeds == 1:
        series.append(Series("prediction", inputs, mean.tolist(), mode="lines"))
    else:
        std = predictions.std(0, ddof=1)
        lines = {
            f"mean prediction of {seeds} seeds": mean,
            "mean + standard deviation": mean + std,
            "mean - standard deviation": mean - std,
        }
        series += [
            Series(name, inputs, line.tolist(), mode="lines") for name, line in lines.items()
        ]
    section = Section("Test rows", [Plot("target", series)], notes=notes, axis="input")
    return page(f"{study}: prediction", [section])
