"""What the tests run in processes of their own: `processes.py ACTION COUNT ARGUMENTS...`.

COUNT processes are forked once everything is imported, also what Optuna and SQLAlchemy import
when a database is first opened, and start at the same moment. Each prints
one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from hpo.definition import load_definition
from hpo.search.lease_keeper import LeaseKeeper
from hpo.search.ledger import holder_name
from hpo.search.outages import Patience
from hpo.search.slots import Slot
from hpo.search.storage import Storage, open_storage
from hpo.search.study import create_or_resume, find_trial_of_slot, resume_trial, start_trial


def say(what: object) -> None:
    """Print a line at once and as one, so that those of several processes do not mix."""
    os.write(1, f"{json.dumps(what)}\n".encode())


def open_database(url: str) -> str:
    """Open, and set up where nobody has."""
    with open_storage(url) as storage:
        return storage.optuna.__class__.__name__


def identify(url: str) -> str:
    """The database's name."""
    with open_storage(url) as storage:
        return storage.ledger.database_id


def claim(url: str, study_id: str, lease: str) -> list[int]:
    """Claim and finish one slot after another until none is left; returns their ids."""
    holder = holder_name()
    mine = []
    with open_storage(url) as storage:
        while slots := storage.ledger.claim(int(study_id), holder, 1, float(lease)):
            for slot in slots:
                slot = storage.ledger.assign(slot, slot.id * 1000)
                storage.ledger.renew(holder, float(lease))
                storage.ledger.finish(slot)
                mine.append(slot.id)
    return mine


def hold(url: str, study_id: str, lease: str) -> None:
    """Claim a slot, bind a trial to it, say so, and wait for the end."""
    storage = open_storage(url)
    [slot] = storage.ledger.claim(int(study_id), holder_name(), 1, float(lease))
    storage.ledger.assign(slot, 77)
    say(slot.id)
    time.sleep(600)


def create(url: str, file: str) -> int:
    """Create or resume the study of a file; returns its id."""
    definition = load_definition(Path(file))
    with open_storage(url) as storage:
        return create_or_resume(storage, definition, definition.name)._study_id


def tell(url: str, study: str, trials: str) -> list[bool]:
    """Tell trials 0, 1, ... this process's id as their value; returns which were taken."""
    with open_storage(url) as storage:
        loaded = optuna.load_study(study_name=study, storage=storage.optuna)
        taken = []
        for number in range(int(trials)):
            try:
                loaded.tell(number, values=float(os.getpid()), state=TrialState.COMPLETE)
            except (ValueError, UpdateFinishedTrialError):
                taken.append(False)
            else:
                taken.append(True)
    return taken


def budget(url: str, study_id: str, slots: str) -> int:
    """Set a study's budget."""
    with open_storage(url) as storage:
        return storage.ledger.set_budget(int(study_id), int(slots))


def work(url: str, name: str, reports: str, pause: str) -> dict[str, Any]:
    """Work on a study as a worker does, without training, until its budget is met.

    Returns:
        The numbers of the trials that this process told, the seconds that each took in the
        database, and the slots that it lost.
    """
    holder, lease = holder_name(), 4.0
    told, costs = [], []
    with open_storage(url, patience=Patience(120.0)) as storage:
        study = optuna.load_study(study_name=name, storage=storage.optuna)
        ledger, study_id = storage.ledger, study._study_id
        with LeaseKeeper(ledger, holder, lease) as keeper:
            while True:
                began = time.perf_counter()
                slots = ledger.claim(study_id, holder, 1, lease)
                if not slots:
                    counts = ledger.counts(study_id)
                    if counts.done == counts.budget:
                        break
                    time.sleep(0.1)
                    continue
                number = _one_trial(storage, study, slots[0], int(reports), float(pause))
                if number is not None:
                    told.append(number)
                    costs.append(time.perf_counter() - began - int(reports) * float(pause))
            return {"told": told, "costs": costs, "lost": len(keeper.lost_slots())}


def die(url: str, name: str, moment: str) -> None:
    """Work on one trial and vanish, as by kill -9, at a moment of it."""
    storage = open_storage(url)
    study = optuna.load_study(study_name=name, storage=storage.optuna)
    [slot] = storage.ledger.claim(study._study_id, holder_name(), 1, 600.0)
    if moment == "claimed":
        os._exit(0)
    found = find_trial_of_slot(study, slot)
    trial = _open_trial(study, slot, found)
    if moment == "created":
        os._exit(0)
    storage.ledger.assign(slot, trial._trial_id)
    if found is None or not found.intermediate_values:
        trial.report(0.5, 0)
    if moment == "running":
        os._exit(0)
    study.tell(trial, 0.75)
    os._exit(0)


def hold_lock(url: str) -> None:
    """Take an SQLite file's write lock, say so, and keep it."""
    with open_storage(url) as storage, storage.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        say(os.getpid())
        time.sleep(600)


def _one_trial(
    storage: Storage, study: optuna.Study, slot: Slot, reports: int, pause: float
) -> int | None:
    """The number of the trial if this process told it."""
    found = None if slot.fresh else find_trial_of_slot(study, slot)
    number = None
    if found is None or not found.state.is_finished():
        trial = _open_trial(study, slot, found)
        slot = storage.ledger.assign(slot, trial._trial_id)
        x = trial.suggest_float("x", 0, 1)
        for step in range(reports):
            time.sleep(pause)
            if found is None or step not in found.intermediate_values:
                trial.report(x, step)
        study.tell(trial, x)
        number = trial.number
    storage.ledger.finish(slot)
    return number


def _open_trial(study: optuna.Study, slot: Slot, found: FrozenTrial | None) -> optuna.Trial:
    if found is None:
        return start_trial(study, slot.id, lambda number: RandomSampler(seed=number))
    return resume_trial(study, found._trial_id, lambda number: RandomSampler(seed=number))


ACTIONS: dict[str, Callable[..., Any]] = {
    action.__name__: action
    for action in (
        open_database,
        identify,
        claim,
        hold,
        create,
        tell,
        budget,
        work,
        die,
        hold_lock,
    )
}


def _act(action: str, arguments: tuple[str, ...]) -> NoReturn:
    """End without tearing down the interpreter, which takes longer than the action."""
    try:
        say(ACTIONS[action](*arguments))
    except BaseException:  # noqa: BLE001 (a child must never go on as its parent)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(action: str, count: str, *arguments: str) -> int:
    """Fork, let all start at once, and wait; 0 if every process ended well."""
    with tempfile.TemporaryDirectory() as folder:
        open_storage(f"sqlite:///{folder}/warm.db").close()
    reading, writing = os.pipe()
    children = []
    for _ in range(int(count)):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            _act(action, arguments)
        children.append(child)
    os.close(writing)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
