"""From claimed slots to members in training, and from their epochs to told trials.

`Intake` claims slots and makes their trials ready, `Berths` finds each a population, `Teller`
ends it; the crew between them hears of every epoch, puts members by, and contains what goes wrong.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from hpo.search import records
from hpo.search.berths import Berths
from hpo.search.entry import Entry
from hpo.search.intake import Intake, identity
from hpo.search.study import is_judged
from hpo.search.telling import Teller, Watcher
from hpo.search.troubles import TROUBLES
from hpo.training.checkpoint_writer import CheckpointWriter
from hpo.training.fit import Ending, ending_of
from hpo.training.footprint import Limits, company_bytes
from hpo.training.history import EpochRecord
from hpo.training.mishaps import Mishap, give_memory_back, is_short_of_memory
from hpo.training.population import Member, Population
from hpo.training.snapshot import Snapshot
from hpo.training.task import Task

__all__ = ["SearchCrew"]

_log = logging.getLogger(__name__)
_LEAVING_SECONDS = 2.5  # a worker that was told to stop leaves within 5 s
_CLOSING_SECONDS = 30.0
_FIRST_ROUNDS = 16  # of epochs with fewer side by side, before more are tried again


class SearchCrew:
    """The crew of `training.fit` in a search.

    Args:
        lost: the ids of the slots that other workers have taken over.
        retries: how often a trial that raised an exception is tried again.
    """

    def __init__(
        self,
        intake: Intake,
        berths: Berths,
        teller: Teller,
        checkpoints: CheckpointWriter,
        task: Task,
        limits: Limits,
        watcher: Watcher,
        lost: Callable[[], frozenset[int]],
        retries: int,
    ) -> None:
        self._intake = intake
        self._berths = berths
        self._teller = teller
        self._checkpoints = checkpoints
        self._task = task
        self._limits = limits
        self._width = _Width(limits)
        self._watcher = watcher
        self._lost = lost
        self._retries = retries
        self._entries: dict[int, Entry] = {}
        self._waiting: deque[Entry] = deque()
        self._unscored: list[tuple[Entry, Ending]] = []

    def admit(self, running: Sequence[Member]) -> Iterable[tuple[Population, list[Member]]]:
        """Draw or take over trials for the room there is, until the budget has no free slot."""
        self._berths.begin_round()
        company = list(running)
        joining: dict[Population, list[Member]] = {}
        while len(company) < self._limits.members and not self._guarded():
            entry = self._next()
            if entry is None:
                break
            crowded = self._bytes([*company, entry.member]) > self._limits.memory
            if company and (crowded or entry.troubles.suspect):
                self._waiting.appendleft(entry)
                break
            population = self._join(entry)
            if population is None:
                continue
            company.append(entry.member)
            joining.setdefault(population, []).append(entry.member)
        return joining.items()

    def report(self, member: Member, record: EpochRecord) -> None:
        """Write the epoch's value, once, also when the trial was taken over and trains anew."""
        entry, value = self._entries[member.key], member.history.value(record)
        ending = ending_of(member, record)
        if ending is not None and not entry.lost:
            self._teller.put_by(entry, ending)
        if not (entry.lost or record.diverged or record.epoch in entry.reported):
            try:
                entry.trial.report(value, record.epoch)
            except UpdateFinishedTrialError:
                entry.lost = True
            entry.reported.add(record.epoch)
        self._watcher.epoch(len(self._entries), value)

    def prunes(self, member: Member) -> bool:
        """Whether the study's pruner ends the trial, or another worker has it."""
        entry = self._entries[member.key]
        if self._is_lost(entry):
            return True
        epoch = len(member.history.records)
        # By an epoch after which it is known to have gone on, here or elsewhere, it is not judged
        # again; where a worker died with its verdict, nobody knows, and it is.
        if epoch <= entry.judged:
            return False
        if is_judged(entry.trial.study, epoch) and entry.trial.should_prune():
            return True
        entry.judged = epoch
        return False

    def ended(self, population: Population, member: Member, ending: Ending) -> None:  # noqa: ARG002
        """Tell the trial, and mark its slot as done."""
        entry = self._entries.pop(member.key)
        if self._teller.waits_for_score(entry):
            self._unscored.append((entry, ending))
        else:
            self._teller.end(entry, ending)

    def failed(self, members: Sequence[Member], mishap: Mishap) -> None:
        """Send members whose population is lost again, fewer at a time or alone; or give up."""
        # An exception comes out of one population; memory is what all of them take together.
        company = len(self._entries) if mishap.memory else len(members)
        alone = company == 1
        if mishap.memory and not alone:
            self._width.fell_short(company)
            _log.warning(
                "%d trials side by side ran %s; going on with %d at a time",
                *(company, mishap.reason, self._limits.members),
            )
        else:
            _log.warning("trial %s: %s", ", ".join(str(m.key) for m in members), mishap.reason)
        for member in sorted(members, key=lambda member: member.key):
            entry = self._entries.pop(member.key)
            if self._is_lost(entry):
                self._teller.drop(entry)
                continue
            entry.troubles = entry.troubles.after(mishap, alone=alone, retries=self._retries)
            if entry.troubles.verdict is not None:
                self._teller.fail(entry, entry.troubles.verdict)
                continue
            entry.company = entry.company and mishap.memory
            try:
                entry.trial.set_user_attr(TROUBLES, entry.troubles.to_dict())
                self._intake.renew(entry)
            except UpdateFinishedTrialError:
                self._teller.drop(entry)
            else:
                self._waiting.append(entry)

    def rested(self, populations: Sequence[Population]) -> None:
        """Put members by, as often as that takes a small part of the time."""
        self._width.rested()
        unscored, self._unscored = self._unscored, []
        for entry, ending in unscored:
            self._is_lost(entry)
            self._teller.end(entry, ending)
        try:
            if self._checkpoints.due():
                self._checkpoints.save(self._copies(populations))
        except Exception as error:
            if not is_short_of_memory(error):
                raise
            _log.warning("there is no memory to save the trials in training; later perhaps")
            give_memory_back()

    def left(self, populations: Sequence[Population]) -> None:
        """Put by what time allows, whatever the reason; nothing here hides that reason."""
        try:
            for entry, ending in self._unscored:
                if not self._is_lost(entry):
                    self._teller.put_by(entry, ending, last=True)
            for copy in self._copies(populations):
                self._checkpoints.save([copy])
            if not self._checkpoints.flush(_LEAVING_SECONDS):
                _log.warning("there is no time to save every trial; the rest goes on from earlier")
        except Exception as error:  # noqa: BLE001 (the reason for leaving matters more)
            _log.warning("not every trial could be saved: %s", error)

    def close(self, *, hurry: bool) -> None:
        """Let what is being written come to its end, unless there is no time for that."""
        self._checkpoints.close(0.2 if hurry else _CLOSING_SECONDS)
        self._teller.close()

    def _next(self) -> Entry | None:
        """The next trial to train, out of those that wait or out of the ledger."""
        while self._waiting:
            entry = self._waiting.popleft()
            if not self._is_lost(entry):
                return entry
            self._teller.drop(entry)
        return self._intake.next(self._berths.batch_size)

    def _is_lost(self, entry: Entry) -> bool:
        entry.lost = entry.lost or entry.slot.id in self._lost()
        return entry.lost

    def _guarded(self) -> bool:
        """Whether somebody trains who may take its process down, and so trains alone."""
        return any(entry.troubles.suspect for entry in self._entries.values())

    def _join(self, entry: Entry) -> Population | None:
        population = self._berths.find(entry)
        joined = entry.member.joined
        entry.origin.update(
            stream=population.streams[0].number // entry.member.folds,
            joined=population.epoch if joined is None else joined,
        )
        try:
            records.write_origin(entry.trial, entry.member.config, entry.origin)
        except UpdateFinishedTrialError:
            # It waited for longer than its lease, and another worker has finished it.
            self._teller.drop(entry)
            return None
        self._entries[entry.member.key] = entry
        entry.network = partial(population.state, entry.member)
        return population

    def _copies(
        self, populations: Sequence[Population]
    ) -> list[tuple[int, Callable[[], Snapshot], dict[str, Any]]]:
        """What is to be saved: of each trial its id, what copies its member, and its identity."""
        return [
            (entry.trial_id, partial(population.snapshot, member), identity(entry))
            for population in populations
            for member in population.members
            if (entry := self._entries.get(member.key)) is not None
            and not (entry.lost or _awaits_verdict(entry))
        ]

    def _bytes(self, members: Sequence[Member]) -> int:
        task = self._task
        configs = [(member.config, member.folds) for member in members]
        return company_bytes(configs, task.shape, task.outputs)


class _Width:
    """How many trials train side by side: fewer once memory was short, more when that is over.

    Often it is another program that takes the memory for a while. So twice as many are tried
    after some rounds. A try that fails costs every trial what it trained since it was put by;
    therefore the next one comes after twice as many rounds.

    Args:
        limits: its `members` are changed, and never come to more than they are now.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most = limits.members
        self._pause = _FIRST_ROUNDS
        self._rounds = 0  # since memory was short, or more were tried
        self._tries = False

    def fell_short(self, company: int) -> None:
        """Memory was short for so many trials, more than one."""
        if self._tries:
            self._pause *= 2
        self._rounds, self._tries = 0, False
        self._limits.members = company // 2

    def rested(self) -> None:
        """A round of epochs is over."""
        self._rounds += 1
        if self._rounds < self._pause:
            return
        self._rounds = 0
        if self._limits.members < self._most:
            self._limits.members, self._tries = min(2 * self._limits.members, self._most), True
            _log.info("memory was enough for a while; trying %d at a time", self._limits.members)
        else:
            self._pause, self._tries = _FIRST_ROUNDS, False


def _awaits_verdict(entry: Entry) -> bool:
    """Whether a trial has come to an epoch that it is judged by, and was not judged yet.

    Put by now, it would pass for one that went on.
    """
    trained = entry.member.history.records
    return (
        len(trained) > entry.judged
        and is_judged(entry.trial.study, len(trained))
        and ending_of(entry.member, trained[-1]) is None
    )
