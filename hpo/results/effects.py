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
        `parameter`, `level`, `trials` (complete ones that had it), `incomplete` (those that were
        pruned or failed), `mean` and `best` of the values of complete ones, and `effect`: their
        mean less that of all complete trials with the parameter. None where there is no value.
    """
    ended = [trial for trial in trials if trial.state in ("complete", "pruned", "failed")]
    better = max if DIRECTIONS[definition.search.metric] == "maximize" else min
    rows = []
    for parameter, leaf in space.describe(definition).items():
        if not _is_finite(leaf):
            continue
        having: dict[Any, list[TrialRecord]] = {}
        for trial in ended:
            if parameter in trial.params:
                having.setdefault(trial.params[parameter], []).append(trial)
        values = {level: _values(some) for level, some in having.items()}
        everything = [value for some in values.values() for value in some]
        for level in _in_order(leaf, list(having)):
            found = values[level]
            rows.append(
                {
                    "parameter": parameter,
                    "level": level,
                    "trials": len(found),
                    "incomplete": len(having[level]) - len(found),
                    "mean": fmean(found) if found else None,
                    "best": better(found) if found else None,
                    "effect": fmean(found) - fmean(everything) if found else None,
                }
            )
    return rows


def _values(trials: Sequence[TrialRecord]) -> list[float]:
    return [
        trial.value for trial in trials if trial.state == "complete" and trial.value is not None
    ]


def _is_finite(leaf: Range) -> bool:
    return not isinstance(leaf, FloatRange) or leaf.step is not None or leaf.low == leaf.high


def _in_order(leaf: Range, levels: list[Any]) -> list[Any]:
    """The levels as the range has them."""
    if isinstance(leaf, Choice):
        return [choice for choice in leaf.choices if choice in levels]
    assert isinstance(leaf, IntRange | FloatRange)
    return sorted(levels)
