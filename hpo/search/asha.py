"""ASHA, the pruner: at a few epochs, only the best share of all that came so far goes on."""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.history import history_of

__all__ = ["AshaPruner"]


class AshaPruner(BasePruner):
    """Asynchronous successive halving, the stopping variant (Li et al. 2020, section 3).

    Rungs are at `min_epochs * reduction ** k` epochs, as long as a run is at least `reduction`
    times as long: what is nearly done is let finish. A trial that arrives at a rung goes on if
    its best value up to there is among the best `1 / reduction` of all trials that have reached
    the rung, itself included; at least one goes on.

    Two things are added, for what goes wrong in a search that learns.

    Late trials are better than most that came early, and by rank alone every other one would go
    on (measured: 39 and 35 % of those at the two rungs of a search, not 25). So a rung has room
    for one in `reduction` of those that reached it; once it is taken, by those who went on and by
    better ones that stand at the rung with it, only a trial among the best `1 / reduction**2`
    goes on: one that would pass another such rung.

    Early trials are judged against few, and the first against nobody. So the verdict of a rung is
    looked at again at twice, four times, ... its epochs, up to where the next one is due: a trial
    ends there if by now even twice the room would not have held it.

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
        rung = None if epoch is None else self._rung_judged_at(epoch)
        if rung is None:
            return False
        history = history_of(study)
        facts = (rung, rung * self._reduction, study.direction == StudyDirection.MAXIMIZE)
        ended = history.index(_Rung, *facts)
        running = _Rung(*facts)
        for rival in history.unfinished:
            running.add(rival)
        own = running.cost(trial)
        arrived = len(ended.costs) + len(running.costs)
        better = bisect_left(ended.costs, own) + bisect_left(running.costs, own)
        room = max(1, arrived // self._reduction)
        if epoch != rung:
            return better >= 2 * room
        taken = ended.passed + running.passed + bisect_left(running.undecided, own)
        outstanding = better < max(1, arrived // self._reduction**2)
        return better >= room or (taken >= room and not outstanding)

    def judges(self, epoch: int) -> bool:
        """Whether anybody may have to leave after so many epochs."""
        return self._rung_judged_at(epoch) is not None

    def _rung_judged_at(self, epoch: int) -> int | None:
        """The rung at this epoch, or the one that is looked at again here."""
        rung = self._min_epochs
        while rung * self._reduction <= self._epochs:
            again = rung
            while again < rung * self._reduction:
                if again == epoch:
                    return rung
                again *= 2
            rung *= self._reduction
        return None


class _Rung:
    """The trials that have reached a rung.

    Args:
        epoch: of the rung.
        due: the epoch of the next one.

    Attributes:
        costs: what each had come to there, best first.
        passed: how many have gone on from there, and were not ended before the next one.
        undecided: what those have that stand there now, best first.
    """

    def __init__(self, epoch: int, due: int, maximize: bool) -> None:
        self.costs: list[float] = []
        self.passed = 0
        self.undecided: list[float] = []
        self._epoch = epoch
        self._due = due
        self._sign = -1.0 if maximize else 1.0

    def add(self, trial: FrozenTrial) -> None:
        if self._epoch not in trial.intermediate_values:
            return
        cost, last = self.cost(trial), trial.last_step or 0
        insort(self.costs, cost)
        if trial.state.is_finished():
            self.passed += trial.state == TrialState.COMPLETE or last >= self._due
        elif last > self._epoch:
            self.passed += 1
        else:
            insort(self.undecided, cost)

    def cost(self, trial: FrozenTrial) -> float:
        """A trial's best value up to the rung, negated where more is better."""
        values = (
            self._sign * value
            for step, value in trial.intermediate_values.items()
            if step <= self._epoch and not math.isnan(value)
        )
        return min(values, default=math.inf)
