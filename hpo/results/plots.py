"""Diagnostics of a study's trials against the epoch, on one page."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.errors import HpoError
from hpo.results.page import Plot, Section, Series, page
from hpo.search.records import TrialRecord
from hpo.training.diagnostics import GRADIENT_NORMS

__all__ = ["gradient_norms"]

_OUTPUT = -1


def gradient_norms(study: str, trials: Sequence[TrialRecord]) -> str:
    """A page with the gradient norms of every trial that has some: a plot a layer, a line a trial.

    Raises:
        HpoError: no trial has any.
    """
    shown = [trial for trial in trials if any(epoch.get(GRADIENT_NORMS) for epoch in trial.curve)]
    if not shown:
        raise HpoError(
            f"study `{study}` has no finished trial with gradient norms; "
            "ask for them with `training.diagnostics: [gradient_norms]`, then run hpo optimize"
        )
    hidden = max(_layers(trial) for trial in shown) - 1
    layers = {**{f"hidden layer {depth + 1}": depth for depth in range(hidden)}, "output": _OUTPUT}
    title = "squared sum of the gradient"
    sections = [
        Section(name, [Plot(title, [_line(t, layer) for t in shown if _has(t, layer)], log=True)])
        for name, layer in layers.items()
    ]
    return page(f"{study}: gradient norms", sections)


def _layers(trial: TrialRecord) -> int:
    """How many linear layers it has."""
    return max(len(epoch.get(GRADIENT_NORMS, ())) for epoch in trial.curve)


def _has(trial: TrialRecord, layer: int) -> bool:
    return layer < _layers(trial) - 1


def _line(trial: TrialRecord, layer: int) -> Series:
    noted = [epoch for epoch in trial.curve if epoch.get(GRADIENT_NORMS)]
    words = trial.origin.get("variation")
    return Series(
        f"trial {trial.number}" if words is None else f"{trial.number}: {words}",
        [int(epoch["epoch"]) for epoch in noted],
        [epoch[GRADIENT_NORMS][layer] for epoch in noted],
    )
