"""A worker: claim, train, record, until the study's budget is met."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import optuna

from hpo.definition import StudyDefinition
from hpo.search.lease_keeper import LeaseKeeper
from hpo.search.ledger import holder_name
from hpo.search.objective import Limits, SearchCrew, Watcher
from hpo.search.storage import Storage
from hpo.training.fit import fit
from hpo.training.footprint import default_capacity, memory_limit
from hpo.training.population import Stopped
from hpo.training.task import Split

__all__ = ["DEFAULT_LEASE", "WorkerOptions", "run_worker"]

DEFAULT_LEASE = 60.0
_LONGEST_WAIT = 2.0


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        population: trials in training side by side; None chooses by the device.
        lease: seconds after which others may take over the trials of a silent worker.
    """

    population: int | None = None
    lease: float = DEFAULT_LEASE


def run_worker(
    storage: Storage,
    study: optuna.Study,
    definition: StudyDefinition,
    data: Split,
    options: WorkerOptions,
    watcher: Watcher,
    stopping: Callable[[], bool],
) -> bool:
    """Train trials of one study until its budget is met.

    Args:
        data: the study's, as `training.task.prepare` gives it.
        stopping: asked before every batch, and while waiting for others.

    Returns:
        Whether the budget is met; False means that `stopping` said so, and that the trials in
        progress were handed back.

    Raises:
        StorageError, FileError: the database refuses.
    """
    holder = holder_name()
    study_id, ledger = study._study_id, storage.ledger
    limits = _limits(options, data)
    crew = SearchCrew(study, definition, ledger, holder, data, limits, watcher, stopping)
    with storage.guard(), LeaseKeeper(ledger, holder, options.lease):
        try:
            while True:
                fit(crew, data.validation, stopping)
                counts = ledger.counts(study_id)
                if counts.done >= counts.budget:
                    return True
                # Others hold the rest; should one of them die, its trials are ours.
                watcher.waiting()
                wait = ledger.next_expiry(study_id, holder)
                if _sleep(min(wait or 0.0, _LONGEST_WAIT), stopping):
                    return False
        except Stopped:
            return False
        finally:
            ledger.release(holder)


def _limits(options: WorkerOptions, data: Split) -> Limits:
    device = data.task.examples.device
    return Limits(
        members=options.population or default_capacity(device),
        memory=memory_limit(device),
        lease=options.lease,
    )


def _sleep(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait, but not beyond a stop; returns whether there was one."""
    end = time.monotonic() + max(seconds, 0.05)
    while not stopping():
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, 0.05))
    return True
