"""The trials of a study so far, read again and again and looked through once.

A finished trial never changes, so whoever asks about the past (the sampler, the pruner, the
search for a slot's trial) need only look at what has finished since it last asked. That keeps
the cost of a trial nearly flat as a study grows.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

__all__ = ["History", "Index", "history_of", "last_history_of"]

_known: WeakKeyDictionary[BaseStorage, dict[int, History]] = WeakKeyDictionary()


class Index(Protocol):
    """Whatever is known of finished trials, gathered one by one in any order."""

    def add(self, trial: FrozenTrial) -> None:
        """Take note of a finished trial."""


AnyIndex = TypeVar("AnyIndex", bound=Index)


def history_of(study: optuna.Study) -> History:
    """The history of a study, read from the database now.

    There is one for all copies of a study in this process; it is for one thread.
    """
    trials = study.get_trials(deepcopy=False)
    histories = _known.setdefault(study._storage, {})
    history = histories.get(study._study_id)
    if history is None or not history.goes_on_in(trials):
        history = histories[study._study_id] = History()
    history.update(trials)
    return history


def last_history_of(study: optuna.Study) -> History:
    """The history of a study as this process read it last; read now if it never was."""
    return _known.get(study._storage, {}).get(study._study_id) or history_of(study)


class History:
    """The trials of a study, and indexes of those that have finished.

    Attributes:
        trials: all, in every state, by number.
        unfinished: those of them that run or wait.
    """

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self.unfinished: list[FrozenTrial] = []
        self._finished: list[FrozenTrial] = []  # in the order in which that became known
        self._indexes: dict[Hashable, tuple[Any, int]] = {}

    def index(self, kind: type[AnyIndex], *arguments: Hashable) -> AnyIndex:
        """The index `kind(*arguments)` with every finished trial in it, each added once."""
        key = (kind, *arguments)
        index, seen = self._indexes.get(key) or (kind(*arguments), 0)
        for trial in self._finished[seen:]:
            index.add(trial)
        self._indexes[key] = (index, len(self._finished))
        return index

    def goes_on_in(self, trials: list[FrozenTrial]) -> bool:
        """Whether these are the same trials later; SQLite gives a deleted study's id again."""
        if len(trials) < len(self.trials):
            return False
        return not self._finished or _same(self._finished[-1], trials[self._finished[-1].number])

    def update(self, trials: list[FrozenTrial]) -> None:
        """Take over what the database holds now.

        Args:
            trials: all of the study, by number.
        """
        if trials and trials[-1].number != len(trials) - 1:
            # One is in the cache and another, created a moment before it, was not read yet.
            trials = [trial for place, trial in enumerate(trials) if trial.number == place]
        open_before = [trials[trial.number] for trial in self.unfinished]
        self.unfinished = []
        for trial in (*open_before, *trials[len(self.trials) :]):
            (self._finished if trial.state.is_finished() else self.unfinished).append(trial)
        self.trials = trials


def _same(one: FrozenTrial, other: FrozenTrial) -> bool:
    return (one._trial_id, one.datetime_start) == (other._trial_id, other.datetime_start)
