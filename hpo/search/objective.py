"""From claimed slots to members in training, and from their epochs to told trials.

A trial begins when a slot is claimed: it is drawn, or taken over from a worker that let it go,
and its config joins a population. It ends when it is told; then its slot is done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpo import space
from hpo.config import TrialConfig
from hpo.definition import StudyDefinition
from hpo.definition.ranges import is_range
from hpo.search import records
from hpo.search.ledger import Ledger, LostLease, Slot
from hpo.search.study import (
    build_sampler,
    find_trial_of_slot,
    resume_trial,
    retire,
    start_trial,
    trial_seed,
)
from hpo.training.devices import device_name
from hpo.training.fit import Ending
from hpo.training.footprint import member_bytes
from hpo.training.history import EpochRecord
from hpo.training.population import Member, Population
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import Split

__all__ = ["Limits", "SearchCrew", "Watcher"]

_TRAINING = 3  # tells a trial's training seed from that of its draw
_TOLD_BY_OTHERS = (ValueError, optuna.exceptions.UpdateFinishedTrialError)
_STATES = {
    Ending.FINISHED: TrialState.COMPLETE,
    Ending.STALLED: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.DIVERGED: TrialState.FAIL,
}


class Watcher(Protocol):
    """Whoever shows how a search goes."""

    def epoch(self, running: int, value: float) -> None:
        """An epoch of some trial was reported; so many are in training."""

    def finished(self, number: int, state: str, value: float | None) -> None:
        """A trial was told; `state` is `complete`, `pruned` or `failed`."""

    def waiting(self) -> None:
        """Nothing is left to train here, and others have yet to finish."""


@dataclass(frozen=True)
class Limits:
    """How much a worker takes on at once.

    Attributes:
        members: trials in training side by side.
        memory: bytes that their tensors may take together.
        lease: seconds after which a silent worker's trials may be taken over.
    """

    members: int
    memory: int
    lease: float


@dataclass
class _Entry:
    """A trial in training.

    `inherited` are the epochs that a worker before this one has reported, `place` is where in
    which stream the trial began then: its number, and its epoch.
    """

    slot: Slot
    trial: optuna.Trial
    member: Member
    origin: dict[str, Any]
    inherited: frozenset[int]
    place: tuple[int, int] | None
    started: float
    lost: bool = False


class SearchCrew:
    """The crew of `training.fit` in a search.

    Args:
        study: with its pruner set.
        holder: this worker's name in the ledger.
        data: the study's data, split.
        stopping: asked before a trial begins.
    """

    def __init__(
        self,
        study: optuna.Study,
        definition: StudyDefinition,
        ledger: Ledger,
        holder: str,
        data: Split,
        limits: Limits,
        watcher: Watcher,
        stopping: Callable[[], bool],
    ) -> None:
        self._study = study
        self._definition = definition
        self._ledger = ledger
        self._holder = holder
        self._data = data
        self._limits = limits
        self._watcher = watcher
        self._stopping = stopping
        self._entries: dict[int, _Entry] = {}
        self._open: Population | None = None
        self._places: dict[tuple[int, int], Population] = {}
        self._held: _Entry | None = None

    # What training.fit calls

    def admit(self, running: Sequence[Member]) -> Iterable[tuple[Population, list[Member]]]:
        """Draw or take over trials for the room there is, until the budget has no free slot."""
        self._close_old_stream()
        count = len(running)
        used = sum(self._bytes(member.config) for member in running)
        joining: dict[Population, list[Member]] = {}
        while count < self._limits.members:
            entry = self._held or self._next_entry()
            self._held = None
            if entry is None:
                break
            size = self._bytes(entry.member.config)
            if count and used + size > self._limits.memory:
                self._held = entry
                break
            try:
                population = self._join(entry)
            except optuna.exceptions.UpdateFinishedTrialError:
                # It waited for longer than its lease, and another worker has finished it.
                self._ledger.release(self._holder, [entry.slot])
                continue
            count, used = count + 1, used + size
            joining.setdefault(population, []).append(entry.member)
        return joining.items()

    def report(self, member: Member, record: EpochRecord) -> None:
        """Write the epoch's value, once, also when the trial was taken over and trains anew."""
        entry = self._entries[member.key]
        if record.epoch not in entry.inherited and not record.diverged:
            try:
                entry.trial.report(member.history.value(record), record.epoch)
            except _TOLD_BY_OTHERS:
                entry.lost = True
        self._watcher.epoch(len(self._entries), member.history.value(record))

    def prunes(self, member: Member) -> bool:
        """Whether the study's pruner ends the trial, or another worker has."""
        entry = self._entries[member.key]
        if len(member.history.records) < max(entry.inherited, default=0):
            return False  # it passed this epoch in the hands of the worker that had it before
        return entry.lost or entry.trial.should_prune()

    def ended(self, population: Population, member: Member, ending: Ending) -> None:  # noqa: ARG002
        """Tell the trial with all that is known of it, and mark its slot as done."""
        entry = self._entries.pop(member.key)
        history = member.history
        reason = ending.value
        if ending is Ending.DIVERGED:
            reason = f"diverged in epoch {len(history.records)}: the loss is not finite"
        outcome = {
            "epochs": len(history.records),
            "best_epoch": history.best.epoch if history.best else None,
            "train_seconds": round(history.train_seconds, 4),
            "total_seconds": round(time.time() - entry.started, 4),
            "reason": reason,
        }
        state = _STATES[ending]
        value = None
        if history.best is not None and state == TrialState.COMPLETE:
            value = history.value(history.best)
        curve = [] if ending is Ending.DIVERGED else history.curve()
        self._tell(entry, state, value, outcome, curve)

    # How a trial begins

    def _next_entry(self) -> _Entry | None:
        """The next trial to train; those that need no training are told on the way."""
        study_id, lease = self._study._study_id, self._limits.lease
        while not self._stopping() and (
            claimed := self._ledger.claim(study_id, self._holder, 1, lease)
        ):
            try:
                entry = self._begin(claimed[0])
                if entry is None:
                    continue
                # One that was taken over has trained already; its own outcome counts.
                begun = entry.place is not None or entry.inherited
                twin = None if begun else self._finished_twin(entry.trial)
                if twin is None:
                    return entry
                self._copy(entry, twin)
            except optuna.exceptions.UpdateFinishedTrialError:
                self._ledger.release(self._holder, claimed)
        return None

    def _begin(self, slot: Slot) -> _Entry | None:
        bound = find_trial_of_slot(self._study, slot)
        if bound is not None and bound.state.is_finished():
            # Told by a worker that died before it could mark the slot.
            self._finish(slot)
            return None
        if bound is None:
            trial = start_trial(self._study, slot.id, self._sampler)
        else:
            trial = resume_trial(self._study, bound._trial_id, self._sampler)
        if slot.trial_id is None:
            try:
                slot = self._ledger.assign(slot, trial._trial_id)
            except LostLease:
                # This worker froze for longer than its lease, and the slot has another trial.
                retire(self._study, trial._trial_id, "its worker had lost its slot")
                return None
        search = self._definition.search
        seed = derive_seed(search.seed, trial.number, _TRAINING)
        config = space.draw(self._definition, trial)
        task = self._data.task
        return _Entry(
            slot=slot,
            trial=trial,
            member=Member(trial.number, config, seed, search.metric),
            origin={
                "seed": seed,
                "worker": self._holder,
                "device": device_name(task.examples.device),
                "precision": str(task.precision).removeprefix("torch."),
            },
            inherited=frozenset(bound.intermediate_values if bound else ()),
            place=records.place_of(bound) if bound else None,
            started=time.time(),
        )

    def _sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial; its batch size is that of the open stream, if there is one."""
        fixed = {}
        if self._open is not None and self._chooses_batch_size():
            fixed = {space.BATCH_SIZE: self._open.batch_size}
        seed = trial_seed(self._definition.search.seed, number)
        return build_sampler(self._definition, seed, fixed)

    def _finished_twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """A finished trial with the same parameters; failed ones are worth another try."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        for other in self._study.get_trials(deepcopy=False, states=states):
            if other.params == trial.params and not records.is_twin(other):
                return other
        return None

    def _copy(self, entry: _Entry, twin: FrozenTrial) -> None:
        """Give a trial the outcome of its twin, which was trained already."""
        records.write_origin(entry.trial, entry.member.config, entry.origin)
        for epoch, reported in twin.intermediate_values.items():
            entry.trial.report(reported, epoch)
        outcome = {
            "twin": twin.number,
            "epochs": 0,
            "best_epoch": records.read(twin, maximize=True).outcome.get("best_epoch"),
            "train_seconds": 0.0,
            "total_seconds": round(time.time() - entry.started, 4),
            "reason": f"same parameters as trial {twin.number}; not trained again",
        }
        value = twin.value if twin.state == TrialState.COMPLETE else None
        self._tell(entry, twin.state, value, outcome, [])

    def _join(self, entry: _Entry) -> Population:
        """The population that a trial joins: the open stream's, or that of a new stream.

        A stream takes newcomers for a quarter of a run. Then the next trial is free in its batch
        size and opens another stream, while those of the first train on to their end. A trial
        that is taken over begins again where it began before, so it comes to the same values.
        """
        batch_size, number = entry.member.config.batch_size, entry.member.key
        if entry.place is not None:
            population = self._at(entry.place, batch_size)
        elif self._open is None or self._open.batch_size != batch_size:
            population = self._open = self._population(number, batch_size)
        else:
            population = self._open
        entry.origin.update(stream=population.streams[0].number, joined=population.epoch)
        records.write_origin(entry.trial, entry.member.config, entry.origin)
        self._entries[number] = entry
        return population

    def _at(self, place: tuple[int, int], batch_size: int) -> Population:
        """A population at that epoch of that stream; those that begin there share it."""
        stream, epoch = place
        population = self._places.get(place)
        if population is None or population.epoch != epoch:
            population = self._places[place] = self._population(stream, batch_size)
            population.epoch = epoch
        return population

    def _population(self, stream: int, batch_size: int) -> Population:
        seed = self._definition.search.seed
        return Population(
            self._data.task, Stream(self._data.training, batch_size, seed, number=stream)
        )

    def _close_old_stream(self) -> None:
        """Let the open stream take no more newcomers once its time is over."""
        quarter = max(1, self._definition.training.epochs // 4)
        if self._open is not None and self._open.epoch >= quarter and self._chooses_batch_size():
            self._open = None

    def _chooses_batch_size(self) -> bool:
        return is_range(self._definition.training.batch_size)

    # How it ends

    def _tell(
        self,
        entry: _Entry,
        state: TrialState,
        value: float | None,
        outcome: dict[str, Any],
        curve: list[dict[str, float]],
    ) -> None:
        try:
            records.write_outcome(entry.trial, outcome, curve)
            self._study.tell(entry.trial, value, state=state)
        except _TOLD_BY_OTHERS:
            # This worker was silent for longer than its lease; what the other told counts.
            self._ledger.release(self._holder, [entry.slot])
            return
        self._finish(entry.slot)
        self._watcher.finished(entry.trial.number, records.STATE_NAMES[state], value)

    def _finish(self, slot: Slot) -> None:
        # Whoever took a lost slot over finds its trial told, and marks the slot.
        with contextlib.suppress(LostLease):
            self._ledger.finish(slot)

    def _bytes(self, config: TrialConfig) -> int:
        task = self._data.task
        return member_bytes(config, task.examples.features, task.classes)
