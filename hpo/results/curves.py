"""Learning curves: which trials have one, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpo.errors import HpoError, UsageError
from hpo.results.overfitting import judge
from hpo.results.page import Plot, Section, Series, page
from hpo.search.records import TrialRecord

__all__ = ["choose", "draw"]

_LOSSES = {"train_loss": "training loss", "loss": "validation loss"}
_NO_METRIC = {*_LOSSES, "epoch", "seconds"}


def choose(
    study: str,
    trials: Sequence[TrialRecord],
    numbers: Sequence[int],
    best: int,
    *,
    maximize: bool,
) -> list[TrialRecord]:
    """The trials whose curves are wanted.

    Args:
        numbers: of the trials, in this order; without any, the `best` best complete ones, best
            first.

    Raises:
        UsageError: there is no such trial.
        HpoError: a trial that is asked for has no curve, or none has.
    """
    if numbers:
        known = {trial.number: trial for trial in trials}
        return [_with_curve(study, number, known.get(number)) for number in dict.fromkeys(numbers)]
    sign = -1.0 if maximize else 1.0
    complete = [trial for trial in trials if trial.state == "complete" and trial.curve]
    complete.sort(key=lambda trial: (sign * (trial.value or 0.0), trial.number))
    if not complete:
        raise HpoError(
            f"study `{study}` has no complete trial with a learning curve yet; "
            f"hpo status --study {study} shows how far it is"
        )
    return complete[:best]


def draw(study: str, metric: str, trials: Sequence[TrialRecord]) -> str:
    """The page with the losses of each trial, and whatever else was measured, over its epochs.

    Args:
        metric: of the study, which a trial's value is.
    """
    return page(f"{study}: learning curves", [_section(trial, metric) for trial in trials])


def _with_curve(study: str, number: int, trial: TrialRecord | None) -> TrialRecord:
    if trial is None:
        raise UsageError(
            f"--trial: study `{study}` has no trial {number}; "
            f"hpo trials --study {study} lists them"
        )
    if not trial.curve:
        ended = trial.outcome.get("reason")
        reason = f"it is {trial.state}" + (f" ({ended})" if ended else "")
        raise HpoError(
            f"trial {number} of study `{study}` has no learning curve: {reason}; "
            f"hpo trials --study {study} lists the others"
        )
    return trial


def _section(trial: TrialRecord, metric: str) -> Section:
    curve = trial.curve
    epochs = [int(epoch["epoch"]) for epoch in curve]
    losses = [
        Series(name, epochs, [epoch[key] for epoch in curve]) for key, name in _LOSSES.items()
    ]
    metrics = [key for key, value in curve[0].items() if _is_metric(key, value)]
    verdict = judge(curve)
    heading = f"Trial {trial.number}" + ("" if trial.state == "complete" else f", {trial.state}")
    marks = {}
    if verdict and verdict.overfitting_since:
        marks[verdict.overfitting_since] = "overfitting since"
    best = trial.outcome.get("best_epoch")
    if best is not None and trial.value is not None:
        heading += f": {metric} {trial.value:.4g} in epoch {best}"
        marks[best] = f"{marks[best]}, best {metric}" if best in marks else f"best {metric}"
    drawn = ", ".join(f"{name} = {_shown(value)}" for name, value in trial.params.items())
    notes = [verdict.learning if verdict else "", drawn]
    return Section(
        heading,
        [
            Plot("loss", losses),
            *(Plot(key, [Series(key, epochs, [one[key] for one in curve])]) for key in metrics),
        ],
        notes=[note for note in notes if note],
        marks=marks,
    )


def _is_metric(key: str, value: Any) -> bool:
    return key not in _NO_METRIC and isinstance(value, int | float)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
