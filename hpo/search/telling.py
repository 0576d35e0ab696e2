"""How a trial ends: its result goes to the disk, then to the database, once; its slot is done."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Collection
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from hpo.definition import StudyDefinition
from hpo.errors import TrainingError
from hpo.search import records
from hpo.search.entry import Entry
from hpo.search.final_score import FinalScore
from hpo.search.halt import halt, judged
from hpo.search.ledger import Ledger, LostLease, Slot
from hpo.search.spool import Result, Spool
from hpo.training.checkpoint_writer import CheckpointWriter
from hpo.training.fit import Ending
from hpo.training.history import History
from hpo.training.mishaps import attempt

__all__ = ["Teller", "Watcher", "tell"]

_log = logging.getLogger(__name__)

_STATES = {
    Ending.FINISHED: TrialState.COMPLETE,
    Ending.STALLED: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.DIVERGED: TrialState.FAIL,
}
_FEW = 10  # so many trials have to finish before their failed share says anything


class Watcher(Protocol):
    """Whoever shows how a search goes."""

    def epoch(self, running: int, value: float) -> None:
        """An epoch of some trial was reported; so many are in training."""

    def finished(self, number: int, state: str, value: float | None) -> None:
        """A trial was told; `state` is `complete`, `pruned` or `failed`."""

    def waiting(self) -> None:
        """Nothing is left to train here, and others have yet to finish."""


def tell(study: optuna.Study, result: Result, reported: Collection[int]) -> bool:
    """Give the database a result; returns False, and changes nothing, if it has one already.

    Args:
        reported: the epochs whose values the database has.
    """
    storage, trial_id = study._storage, result.trial_id
    values = None if result.value is None else [result.value]
    if result.state == "PRUNED" and result.reports:
        values = [result.reports[max(result.reports)]]  # as Optuna has it: the last report
    try:
        for epoch in sorted(result.reports.keys() - set(reported)):
            storage.set_trial_intermediate_value(trial_id, epoch, result.reports[epoch])
        records.write_outcome(storage, trial_id, result.outcome, result.curve)
        storage.set_trial_state_values(trial_id, TrialState[result.state], values)
    except UpdateFinishedTrialError:
        return False
    return True


class Teller:
    """Ends the trials of one worker.

    Args:
        spool: where results lie until the database has them.
        checkpoints: of the trials, which go when a trial is told.
        watcher: hears of every trial that counts.
        final: scores each trial that trained to its end; None in a search.
    """

    def __init__(
        self,
        study: optuna.Study,
        definition: StudyDefinition,
        ledger: Ledger,
        spool: Spool,
        checkpoints: CheckpointWriter,
        watcher: Watcher,
        final: FinalScore | None = None,
    ) -> None:
        self._study = study
        self._definition = definition
        self._ledger = ledger
        self._spool = spool
        self._checkpoints = checkpoints
        self._watcher = watcher
        self._final = final
        self._spooled: dict[int, Result] = {}
        self._unscored: dict[int, str] = {}

    def put_by(self, entry: Entry, ending: Ending, *, last: bool = False) -> None:
        """Write down how a trial ends, before anything else is said of its last epoch.

        Args:
            last: False where a network that cannot be scored on the test rows gets another try:
                then nothing is written, and the trial `waits_for_score`.
        """
        history = entry.member.history
        state = _STATES[ending]
        reason = ending.value
        if ending is Ending.DIVERGED:
            trouble = entry.member.trouble or "a loss or a score is not finite"
            reason = f"diverged in epoch {len(history.records)}: {trouble}"
        value = None
        if history.best is not None and state == TrialState.COMPLETE:
            value = history.value(history.best)
        curve = [] if ending is Ending.DIVERGED else history.curve()
        outcome = _outcome(entry, history, reason)
        if self._final is not None and state == TrialState.COMPLETE:
            scores, problem = _scores(entry, self._final)
            if problem is not None and not last:
                _log.warning(
                    "trial %d cannot be scored on the test rows yet: %s",
                    *(entry.trial.number, problem),
                )
                self._unscored[entry.trial_id] = problem
                return
            if problem is not None:
                problem = self._unscored.get(entry.trial_id, problem)
                outcome["reason"] = f"{reason}; not scored on the test rows: {problem}"
            outcome |= scores
        self._put(entry, state, value, outcome, curve)

    def waits_for_score(self, entry: Entry) -> bool:
        """Whether a trial should be ended when more memory is free, to be scored then."""
        return entry.trial_id in self._unscored

    def end(self, entry: Entry, ending: Ending) -> None:
        """Tell a trial with all that is known of it, and mark its slot as done."""
        if entry.lost:
            self.drop(entry)
            return
        if entry.trial_id not in self._spooled:
            self.put_by(entry, ending, last=True)
        self._tell(entry)

    def fail(self, entry: Entry, reason: str) -> None:
        """End a trial that is given up."""
        outcome = _outcome(entry, entry.member.history, reason)
        self._put(entry, TrialState.FAIL, None, outcome, entry.member.history.curve())
        self._tell(entry)

    def copy(self, entry: Entry, twin: optuna.trial.FrozenTrial) -> None:
        """Give a trial the outcome of one with the same parameters, which was trained already."""
        records.write_origin(entry.trial, entry.member.config, entry.origin)
        outcome = {
            **_outcome(
                entry,
                entry.member.history,
                f"same parameters as trial {twin.number}; not trained again",
            ),
            "twin": twin.number,
            "best_epoch": records.read(twin, maximize=True).outcome.get("best_epoch"),
        }
        value = twin.value if twin.state == TrialState.COMPLETE else None
        self._put(entry, twin.state, value, outcome, [], dict(twin.intermediate_values))
        self._tell(entry)

    def drop(self, entry: Entry) -> None:
        """Let go of a trial that another worker has; what it makes of it counts."""
        self._forget(entry.trial_id)
        self._ledger.release(entry.slot.holder, [entry.slot])

    def settle(self, slot: Slot) -> None:
        """Mark the slot of a trial that was told as done."""
        # Whoever took a lost slot over finds its trial told, and marks the slot.
        with contextlib.suppress(LostLease):
            self._ledger.finish(slot)

    def close(self) -> None:
        """Leave what could not be told to whoever comes next."""
        self._spool.close()

    def _put(
        self,
        entry: Entry,
        state: TrialState,
        value: float | None,
        outcome: dict[str, Any],
        curve: list[dict[str, Any]],
        reports: dict[int, float] | None = None,
    ) -> None:
        history = entry.member.history
        if reports is None:
            reports = {
                record.epoch: history.value(record)
                for record in history.records
                if not record.diverged
            }
        result = Result(
            study=self._study.study_name,
            number=entry.trial.number,
            trial_id=entry.trial_id,
            slot_id=entry.slot.id,
            holder=entry.slot.holder,
            state=state.name,
            value=value,
            reports=reports,
            outcome=outcome,
            curve=curve,
        )
        self._spool.put(result)
        self._spooled[entry.trial_id] = result

    def _tell(self, entry: Entry) -> None:
        result = self._spooled[entry.trial_id]
        if not tell(self._study, result, entry.reported):
            # This worker was silent for longer than its lease; what the other told counts.
            self._checkpoints.remove(entry.trial_id)
            self.drop(entry)
            return
        self.settle(entry.slot)
        self._forget(entry.trial_id)
        self._checkpoints.remove(entry.trial_id)
        state = TrialState[result.state]
        self._watcher.finished(result.number, records.STATE_NAMES[state], result.value)
        if state == TrialState.FAIL:
            self._stop_if_too_many_fail()

    def _forget(self, trial_id: int) -> None:
        self._unscored.pop(trial_id, None)
        self._spooled.pop(trial_id, None)
        self._spool.drop(trial_id)

    def _stop_if_too_many_fail(self) -> None:
        trials = judged(self._study)
        failed = [trial for trial in trials if trial.state == TrialState.FAIL]
        share = self._definition.search.max_failed
        if len(trials) < _FEW or len(failed) <= share * len(trials):
            return
        reasons = Counter(
            records.read(trial, maximize=True).outcome.get("reason", "no reason is known")
            for trial in failed
        )
        ((reason, times),) = reasons.most_common(1)
        message = (
            f"{self._study.study_name}: {len(failed)} of {len(trials)} trials failed, more than "
            f"search.max_failed allows ({share:g}); {times} of them: {reason}; mend that, then "
            "run the same command again"
        )
        halt(self._study, message)
        raise TrainingError(message)


def _outcome(entry: Entry, history: History, reason: str) -> dict[str, Any]:
    return {
        "epochs": len(history.records),
        "best_epoch": history.best.epoch if history.best else None,
        "train_seconds": round(history.train_seconds, 4),
        "total_seconds": round(max(time.monotonic() - entry.started, history.train_seconds), 4),
        "reason": reason,
    }


def _scores(entry: Entry, final: FinalScore) -> tuple[dict[str, float], str | None]:
    """What a network comes to on the test rows, or why nobody knows.

    Its population need not be there for the next try.
    """
    scores: dict[str, float] = {}

    def score() -> None:
        state = {name: tensor.cpu() for name, tensor in entry.network().items()}
        entry.network = lambda: state
        scores.update(final(entry.member.config, state))

    mishap = attempt(score)
    return scores, None if mishap is None else mishap.reason
