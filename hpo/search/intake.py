"""How a trial begins: a slot is claimed, and its trial is drawn, or taken over where it stood."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from hpo import space
from hpo.definition import StudyDefinition
from hpo.errors import TrainingError
from hpo.grid import cells
from hpo.search import records
from hpo.search.entry import Entry, Place
from hpo.search.grid import CellSampler
from hpo.search.halt import halted
from hpo.search.ledger import Ledger, LostLease, Slot
from hpo.search.records import SURPLUS
from hpo.search.runs import Run
from hpo.search.study import (
    build_sampler,
    find_finished_twin,
    find_trial_of_slot,
    resume_trial,
    start_trial,
    startup_trials,
    trial_seed,
)
from hpo.search.telling import Teller
from hpo.search.troubles import TROUBLES, Troubles
from hpo.training.blocks import device_of
from hpo.training.checkpoint_writer import CheckpointWriter
from hpo.training.fit import ending_of
from hpo.training.population import Member
from hpo.training.streams import derive_seed
from hpo.training.task import Task

__all__ = ["Intake", "identity"]

_log = logging.getLogger(__name__)

_TRAINING = 3  # tells a trial's training seed from that of its draw


class Intake:
    """Claims slots for one worker, and makes their trials ready to train.

    Args:
        lease: seconds after which others may take over what is claimed here.
        stopping: asked before a trial begins.
    """

    def __init__(
        self,
        study: optuna.Study,
        definition: StudyDefinition,
        ledger: Ledger,
        holder: str,
        task: Task,
        lease: float,
        checkpoints: CheckpointWriter,
        teller: Teller,
        stopping: Callable[[], bool],
    ) -> None:
        self._study = study
        self._definition = definition
        self._ledger = ledger
        self._holder = holder
        self._task = task
        self._lease = lease
        self._checkpoints = checkpoints
        self._teller = teller
        self._stopping = stopping
        self._folds = definition.dataset.folds or 1
        self._cells = cells(definition) if definition.search.sampler.name == "grid" else None

    def next(self, batch_size: int | None) -> Entry | None:
        """The next trial to train, or None; those that need no training are told on the way.

        Args:
            batch_size: that of the stream which a fresh trial is to join; None leaves it free.
        """
        if (reason := halted(self._study)) is not None:
            raise TrainingError(reason)
        while not self._stopping() and (
            claimed := self._ledger.claim(self._study._study_id, self._holder, 1, self._lease)
        ):
            try:
                entry = self._begin(claimed[0], batch_size)
                if entry is not None and self._is_to_train(entry):
                    return entry
            except UpdateFinishedTrialError:
                # Told by a worker that was silent and is back; the next claim settles the slot.
                self._ledger.release(self._holder, claimed)
        return None

    def renew(self, entry: Entry) -> None:
        """Give a trial a member that stands where the last one was put by, or begins anew."""
        old, number = entry.member, entry.trial.number
        # Who reported a later epoch went on. What became of the last one, nobody may have said.
        entry.judged = max(entry.judged, max(entry.reported, default=0) - 1)
        entry.company = entry.company and not entry.troubles.suspect
        snapshot = self._checkpoints.load(entry.trial_id, identity(entry))
        if snapshot is None:
            entry.network = dict  # the last one's population would live on in it
            entry.member = Member(number, old.config, old.seed, old.metric, folds=old.folds)
            if "stream" in entry.origin:
                entry.place = Place(entry.origin["stream"], entry.origin["joined"])
            return
        entry.member = Member.restored(number, snapshot)
        entry.judged = max(entry.judged, len(entry.member.history.records))
        entry.network = snapshot.networks[0].model_state
        stream = snapshot.stream // entry.member.folds
        entry.place = Place(stream, snapshot.epoch, snapshot.batch)
        _log.info("trial %d goes on after epoch %d", number, len(entry.member.history.records))
        for record in entry.member.history.records:
            # Trained, but its worker ended before the database heard of it.
            if record.epoch not in entry.reported and not record.diverged:
                entry.trial.report(entry.member.history.value(record), record.epoch)
                entry.reported.add(record.epoch)

    def _begin(self, slot: Slot, batch_size: int | None) -> Entry | None:
        # Nobody has held a fresh slot, so there is no trial to look for.
        bound = None if slot.fresh else find_trial_of_slot(self._study, slot)
        if bound is not None and SURPLUS in bound.user_attrs:
            bound = None
        if bound is not None and bound.state.is_finished():
            # Told by a worker that died before it could mark the slot.
            self._teller.settle(slot)
            return None
        sampler = self._sampler(slot, batch_size)
        if bound is None:
            trial = start_trial(self._study, slot.id, sampler)
        else:
            trial = resume_trial(self._study, bound._trial_id, sampler)
        if slot.trial_id != trial._trial_id:
            try:
                slot = self._ledger.assign(slot, trial._trial_id)
            except LostLease:
                # This worker froze for longer than its lease. Whoever has the slot may have found
                # the trial and gone on with it; if not, `repair` retires it.
                return None
        began = time.monotonic()
        entry = self._entry(slot, trial, bound)
        if time.monotonic() - began > self._lease / 2:
            # It froze in the middle of the draw; what another has made of the trial stays.
            try:
                self._ledger.assign(slot, trial._trial_id)
            except LostLease:
                return None
        return entry

    def _entry(self, slot: Slot, trial: optuna.Trial, bound: FrozenTrial | None) -> Entry:
        search = self._definition.search
        config = space.draw(self._definition, trial)
        run = Run.of(self._definition, trial)
        seed = derive_seed(search.seed, run.seeded_by, _TRAINING)
        entry = Entry(
            slot=slot,
            trial=trial,
            member=Member(trial.number, config, seed, search.metric, folds=self._folds),
            origin={
                "seed": seed,
                "worker": self._holder,
                "device": device_of(config, self._task),
                "precision": str(self._task.precision).removeprefix("torch."),
                **run.origin,
            },
            started=_began(bound),
            place=run.place,
        )
        if bound is None:
            return entry
        entry.reported = set(bound.intermediate_values)
        entry.place = _first_place(bound) or run.place
        entry.troubles = Troubles.of(bound)
        if slot.taken_over:
            entry.troubles = entry.troubles.after_death(max(entry.reported, default=0))
            trial.set_user_attr(TROUBLES, entry.troubles.to_dict())
        self.renew(entry)
        return entry

    def _is_to_train(self, entry: Entry) -> bool:
        """Whether a trial is to be trained; one that needs no training is told."""
        if entry.troubles.verdict is not None:
            self._teller.fail(entry, entry.troubles.verdict)
            return False
        history = entry.member.history
        ending = ending_of(entry.member, history.records[-1]) if history.records else None
        if ending is not None:
            # Its worker had trained it to the end, and ended before that could be told.
            self._teller.end(entry, ending)
            return False
        # One that was taken over has trained already; its own outcome counts.
        drawn = entry.trial
        twin = None if entry.begun else find_finished_twin(self._study, drawn.params, drawn.number)
        if twin is None:
            return True
        self._teller.copy(entry, twin)
        return False

    def _sampler(self, slot: Slot, batch_size: int | None) -> Callable[[int], BaseSampler]:
        """What draws the trial of a slot, by the trial's number.

        A variation, and a cell of a grid, follow from the slot's own number.

        The sampler's startup trials are free in their batch size: the draws after them can only
        learn from sizes that they have seen.
        """
        if self._definition.variations:
            return lambda _: CellSampler({space.VARIATION: slot.number})
        if self._cells is not None:
            cell = self._cells[slot.number]
            return lambda _: CellSampler(cell)
        fixed = {} if batch_size is None else {space.BATCH_SIZE: batch_size}
        free = startup_trials(self._definition)
        seed = self._definition.search.seed
        return lambda number: build_sampler(
            self._definition, trial_seed(seed, number), fixed if number >= free else {}
        )


def identity(entry: Entry) -> dict[str, Any]:
    """What a checkpoint has to agree with to be this trial's."""
    return {
        "trial": entry.trial_id,
        "number": entry.trial.number,
        "slot": entry.slot.id,
        "seed": entry.origin["seed"],
        "config": entry.member.config.to_dict(),
    }


def _began(trial: FrozenTrial | None) -> float:
    """When a trial was drawn, in any hands, by this process's `time.monotonic`."""
    now = time.monotonic()
    if trial is None or trial.datetime_start is None:
        return now
    age = datetime.now(UTC) - trial.datetime_start.astimezone(UTC)
    # By the clock of whoever drew it, which may be ahead of this machine's.
    return now - max(0.0, age.total_seconds())


def _first_place(trial: FrozenTrial) -> Place | None:
    """Where a trial began, so that it comes to the same values if it begins again."""
    place = records.place_of(trial)
    return None if place is None else Place(*place)
