"""What each value of each parameter did on average, over the trials that trained to their end.

A main effect as in a factorial design (Box, Hunter and Hunter 2005, chapter 5): the mean of a
level less the mean of all trials that have the parameter. In a whole grid every level meets the
same company, so the means can be compared; a search that learns visits good company more often,
and then they say less.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from hpo import space
from hpo.definition import Choice, FloatRange, IntRange, Range, StudyDefinition
from hpo.definition.metrics import DIRECTIONS
from hpo.search.records import TrialRecord

__all__ = ["mean_effects"]


def mean_effects(
    definition: StudyDefinition, trials: Sequence[TrialRecord]
) -> list[dict[str, Any]]:
    """One row for each value of each parameter whose range is finite, in the order of drawing.

    Returns:
        `parameter`, `level`, `trials` (complete ones that had it), `mean` and `best` of their
        values, and `effect`: their mean less that of all complete trials with the parameter.
    """
    done = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    better = max if DIRECTIONS[definition.search.metric] == "maximize" else min
    rows = []
    for parameter, leaf in space.describe(definition).items():
        if not _is_finite(leaf):
            continue
        values: dict[Any, list[float]] = {}
        for trial in done:
            if parameter in trial.params:
                values.setdefault(trial.params[parameter], []).append(trial.value or 0.0)
        overall = fmean(value for level in values.values() for value in level) if values else 0.0
        rows += [
            {
                "parameter": parameter,
                "level": level,
                "trials": len(values[level]),
                "mean": fmean(values[level]),
                "best": better(values[level]),
                "effect": fmean(values[level]) - overall,
            }
            for level in _in_order(leaf, list(values))
        ]
    return rows


def _is_finite(leaf: Range) -> bool:
    return not isinstance(leaf, FloatRange) or leaf.step is not None or leaf.low == leaf.high


def _in_order(leaf: Range, levels: list[Any]) -> list[Any]:
    """The levels as the range has them."""
    if isinstance(leaf, Choice):
        return [choice for choice in leaf.choices if choice in levels]
    assert isinstance(leaf, IntRange | FloatRange)
    return sorted(levels)
