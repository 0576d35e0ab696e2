"""ASHA, the pruner: at a few epochs, only the best share of all that came so far goes on."""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from hpo.search.history import history_of

__all__ = ["AshaPruner"]


class AshaPruner(BasePruner):
    """Asynchronous successive halving, the stopping variant (Li et al. 2020, section 3).

    Rungs are at `min_epochs * reduction ** k` epochs, as long as a run is at least `reduction`
    times as long: what is nearly done is let finish. A trial that arrives at a rung goes on if
    its best value up to there is among the best `1 / reduction` of all trials that have reached
    the rung, itself included; at least one goes on.

    Optuna's own pruner keeps what a trial had at a rung in attributes that are written while it
    is asked, so of a population that arrives together the first ones asked are judged against
    nobody. Here the reports themselves are compared: all of a population report, then each is
    judged against all, and nothing is written.

    Args:
        min_epochs: the first rung.
        reduction: one in so many goes on.
        epochs: the most that a trial trains.
    """

    def __init__(self, min_epochs: int, reduction: int, epochs: int) -> None:
        self._min_epochs = min_epochs
        self._reduction = reduction
        self._epochs = epochs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, having reported its newest epoch, should stop."""
        epoch = trial.last_step
        if epoch is None or not self.is_rung(epoch):
            return False
        maximize = study.direction == StudyDirection.MAXIMIZE
        history = history_of(study)
        ended = history.index(_Rung, epoch, maximize).costs
        running = [
            _cost(rival, epoch, maximize)
            for rival in history.unfinished
            if epoch in rival.intermediate_values
        ]
        own = _cost(trial, epoch, maximize)
        better = bisect_left(ended, own) + sum(cost < own for cost in running)
        return better >= max(1, (len(ended) + len(running)) // self._reduction)

    def is_rung(self, epoch: int) -> bool:
        """Whether anybody is judged after so many epochs."""
        if epoch * self._reduction > self._epochs:
            return False
        rung = self._min_epochs
        while rung < epoch:
            rung *= self._reduction
        return rung == epoch


class _Rung:
    """What ended trials had when they reached an epoch, best first."""

    def __init__(self, epoch: int, maximize: bool) -> None:
        self.costs: list[float] = []
        self._epoch = epoch
        self._maximize = maximize

    def add(self, trial: FrozenTrial) -> None:
        if self._epoch in trial.intermediate_values:
            insort(self.costs, _cost(trial, self._epoch, self._maximize))


def _cost(trial: FrozenTrial, epoch: int, maximize: bool) -> float:
    """A trial's best value up to an epoch, negated where more is better."""
    sign = -1.0 if maximize else 1.0
    reports = trial.intermediate_values.items()
    costs = (sign * value for step, value in reports if step <= epoch and not math.isnan(value))
    return min(costs, default=math.inf)
