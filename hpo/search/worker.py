"""A worker: claim, train, record, until the study's budget is met."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import optuna
import torch

from hpo.definition import StudyDefinition
from hpo.search.berths import Berths
from hpo.search.final_score import FinalScore
from hpo.search.intake import Intake
from hpo.search.lease_keeper import LeaseKeeper
from hpo.search.ledger import Ledger, holder_name
from hpo.search.objective import SearchCrew
from hpo.search.repair import repair
from hpo.search.spool import Spool
from hpo.search.state_folder import state_folder
from hpo.search.storage import Storage
from hpo.search.study import check_exists
from hpo.search.telling import Teller, Watcher
from hpo.search.waiting import stopped_within
from hpo.training.checkpoint_writer import CheckpointWriter
from hpo.training.checkpoints import Checkpoints
from hpo.training.fit import fit
from hpo.training.footprint import Limits, limits
from hpo.training.mishaps import DeviceLost
from hpo.training.population import Stopped
from hpo.training.task import Split

__all__ = ["DEFAULT_LEASE", "WorkerOptions", "build_crew", "room_for", "run_worker"]

_log = logging.getLogger(__name__)
DEFAULT_LEASE = 60.0
_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 2.0
_PARTING_SECONDS = 1.5
_WAVE = 8  # newcomers in a row with one batch size, where so many train side by side


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        population: trials in training side by side; None chooses by the device.
        lease: seconds after which others may take over the trials of a silent worker.
        sharers: workers on its GPU, itself included.
    """

    population: int | None = None
    lease: float = DEFAULT_LEASE
    sharers: int = 1


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
        progress were put by and handed back.

    Raises:
        StorageError, FileError: the database, or the disk, refuses.
        TrainingError: too many trials fail, or the device is lost.
        DataError: a study with variations cannot have its test rows.
    """
    holder = holder_name()
    ledger = storage.ledger
    with storage.guard(), LeaseKeeper(ledger, holder, options.lease) as keeper:
        crew = build_crew(
            *(storage, study, definition, data, options, holder),
            watcher=watcher,
            lost=keeper.lost_slots,
            stopping=stopping,
        )
        handed_back = True
        try:
            repair(storage, study.study_name)
            while True:
                fit(crew, data.validation, stopping)
                counts = ledger.counts(study._study_id)
                if counts.done >= counts.budget:
                    repair(storage, study.study_name)
                    return True
                # Others hold the rest; should one of them die, its trials are ours.
                watcher.waiting()
                wait = ledger.next_expiry(study._study_id, holder)
                if stopped_within(min(max(wait or 0.0, _SHORTEST_WAIT), _LONGEST_WAIT), stopping):
                    return False
        except Stopped:
            return False
        except DeviceLost:
            # Its trials are not handed back: whoever finds their worker dead counts that, and so
            # one that always loses its device ends.
            handed_back = False
            raise
        except Exception:
            # A database that is away is no reason not to stop; leases run out by themselves.
            if stopping():
                return False
            check_exists(storage, study._study_id, study.study_name)
            raise
        finally:
            # First what the next holder goes on from, then the trials themselves.
            crew.close(hurry=stopping())
            if handed_back:
                _part(ledger, holder)


def build_crew(
    storage: Storage,
    study: optuna.Study,
    definition: StudyDefinition,
    data: Split,
    options: WorkerOptions,
    holder: str,
    *,
    watcher: Watcher,
    lost: Callable[[], frozenset[int]],
    stopping: Callable[[], bool],
) -> SearchCrew:
    """The crew of one worker, with checkpoints and spool in the database's state folder.

    Args:
        holder: the worker's name in the ledger.
        lost: the ids of the slots that other workers have taken over.
        stopping: asked before a trial begins.
    """
    folder = state_folder(storage.ledger.database_id)
    checkpoints = CheckpointWriter(Checkpoints(folder / "checkpoints"))
    device = data.task.examples.device
    teller = Teller(
        study,
        definition,
        storage.ledger,
        Spool(folder / "spool"),
        checkpoints,
        watcher,
        FinalScore.of(definition, data.task),
    )
    intake = Intake(
        study,
        definition,
        storage.ledger,
        holder,
        data.task,
        options.lease,
        checkpoints,
        teller,
        stopping,
    )
    room = room_for(definition, device, options)
    return SearchCrew(
        intake,
        Berths(definition, data, min(room.members, _WAVE)),
        teller,
        checkpoints,
        data.task,
        room,
        watcher,
        lost,
        definition.search.retries,
    )


def room_for(definition: StudyDefinition, device: torch.device, options: WorkerOptions) -> Limits:
    """How much one worker of a study takes on at once."""
    search = definition.search
    return limits(
        device,
        options.population,
        learning=search.sampler.name == "tpe" or search.pruner.name != "none",
        trials=search.trials,
        sharers=options.sharers,
    )


def _part(ledger: Ledger, holder: str) -> None:
    """Hand everything back, unless the database does not answer: a worker leaves in time."""

    def release() -> None:
        try:
            ledger.release(holder)
        except Exception as error:  # noqa: BLE001 (leases run out by themselves)
            _log.warning(
                "the trials could not be handed back (%s); their lease has to run out",
                type(error).__name__,
            )

    parting = threading.Thread(target=release, name="hpo-parting", daemon=True)
    parting.start()
    parting.join(_PARTING_SECONDS)
