"""ASHA, the pruner: at a few epochs, only the best share of all that came so far goes on."""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search import records
from hpo.search.history import history_of
from hpo.space import SCHEDULE

__all__ = ["AshaPruner"]


class AshaPruner(BasePruner):
    """Asynchronous successive halving, the stopping variant (Li et al. 2020, section 3).

    Rungs are at `min_epochs * reduction ** k` epochs, as long as a run is at least `reduction`
    times as long: what is nearly done is let finish. A trial that arrives at a rung goes on if
    its best value up to there is among the best `1 / reduction` of all trials that have reached
    the rung, itself included; at least one goes on.

    A sampler that learns makes the trials that come late better than most that came early, and
    by that alone every other one would go on (measured: 39 and 35 % of those at the two rungs of
    a search, not 25). So a rung has room for one in `reduction` of those that reached it; once
    it is taken, by those who went on and by better ones that stand at the rung with it, only a
    trial among the best `1 / reduction**2` goes on: one that would pass another such rung.

    The first to arrive are compared with few. So whoever went on is judged again for what it had
    at the rung, each time that it has trained as long as up to there, until half of its run is
    over: it stops where it is no longer among the better half of those that have reached the
    rung, and gives its room to those who come.

    Where the schedule of the learning rate is a choice, trials of one schedule are compared with
    each other: a rate that stays high is ahead early, and one that falls is ahead at the end, so
    at a rung most of these would go (measured: 13 of 18 trials that trained to their end in two
    searches were constant).

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
        if epoch is None or not self.judges(epoch):
            return False
        rung, upper = self._rungs_around(epoch)
        of = (rung, upper, study.direction == StudyDirection.MAXIMIZE, trial.params.get(SCHEDULE))
        history = history_of(study)
        ended = history.index(_Rung, *of)
        running = _Rung(*of)
        for rival in history.unfinished:
            running.add(rival)
        own = running.cost(trial)
        arrived = len(ended.costs) + len(running.costs)
        better = ended.better(own) + running.better(own)
        if epoch > rung:
            return better >= max(1, arrived // 2)
        room = max(1, arrived // self._reduction)
        taken = ended.passed + running.passed + bisect_left(running.undecided, own)
        outstanding = better < max(1, arrived // self._reduction**2)
        return better >= room or (taken >= room and not outstanding)

    def judges(self, epoch: int) -> bool:
        """Whether anybody is judged after so many epochs, for the first time or again."""
        rung, _ = self._rungs_around(epoch)
        if epoch == rung:
            return True
        return rung > 0 and epoch % rung == 0 and 2 * epoch <= self._epochs

    def _rungs_around(self, epoch: int) -> tuple[int, float]:
        """The last rung up to there, 0 before the first, and the next, infinite after the last."""
        found, rung = 0, self._min_epochs
        while rung * self._reduction <= self._epochs:
            if rung > epoch:
                return found, rung
            found, rung = rung, rung * self._reduction
        return found, math.inf


class _Rung:
    """The trials with one schedule that have reached an epoch, by training of their own.

    Attributes:
        costs: what each had come to there, best first.
        passed: how many have gone on from there, without those that were stopped, or failed,
            before the next rung.
        undecided: what those have that stand there now, best first.
    """

    def __init__(self, epoch: int, upper: float, maximize: bool, schedule: str | None) -> None:
        self.costs: list[float] = []
        self.passed = 0
        self.undecided: list[float] = []
        self._epoch = epoch
        self._upper = upper
        self._sign = -1.0 if maximize else 1.0
        self._schedule = schedule

    def add(self, trial: FrozenTrial) -> None:
        if self._epoch not in trial.intermediate_values:
            return
        if trial.params.get(SCHEDULE) != self._schedule or records.is_twin(trial):
            return
        cost = self.cost(trial)
        insort(self.costs, cost)
        last = trial.last_step
        assert last is not None
        stopped = trial.state in (TrialState.PRUNED, TrialState.FAIL) and last < self._upper
        if trial.state == TrialState.COMPLETE or (last > self._epoch and not stopped):
            self.passed += 1
        elif last == self._epoch and not trial.state.is_finished():
            insort(self.undecided, cost)

    def better(self, cost: float) -> int:
        """How many had come to something better."""
        return bisect_left(self.costs, cost)

    def cost(self, trial: FrozenTrial) -> float:
        """A trial's best value up to the rung, negated where more is better."""
        reports = trial.intermediate_values.items()
        values = (value for step, value in reports if step <= self._epoch)
        costs = (self._sign * value for value in values if not math.isnan(value))
        return min(costs, default=math.inf)
