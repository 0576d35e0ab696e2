"""A database with studies as searches leave them, and running the command line on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpo import space
from hpo.cli import main
from hpo.definition import load_definition
from hpo.search import records
from hpo.search.ledger import Slot, holder_name
from hpo.search.storage import Storage, open_storage
from hpo.search.study import build_sampler, create_or_resume, retire, start_trial

STUDY = Path(__file__).parents[2] / "studies" / "digits.yaml"


@dataclass(frozen=True)
class Outcome:
    """What one run of the command line left."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's database, and none leaves a file in the repository."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HPO_STORAGE", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return call


def hpo(*arguments: str, **environment: str) -> Outcome:
    """Run a command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with a study in each state, `digits`, `fresh`, `loss`, and a stock one.

    digits has a budget of 12 and these trials: 0 complete (0.9), 1 complete (0.95), 2 complete
    (0.95), 3 pruned (best 0.6), 4 failed, 5 running, 6 handed back, 7 with a lease that ran
    out, 8 surplus and retired, 9 surplus and still there.
    """
    url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'studies.db'}"
    with open_storage(url) as storage:
        _fill(Filler(storage, "digits", [], budget=12))
        Filler(storage, "fresh", [], budget=3)
        loss = Filler(storage, "loss", ["search.metric=loss"], budget=5)
        for value in (0.5, 0.25):
            loss.finish(loss.begin(), TrialState.COMPLETE, value, [1.0, value], "finished")
        optuna.create_study(storage=storage.optuna, study_name="stock")
    return url


class Filler:
    """A worker that trains nothing."""

    def __init__(self, storage: Storage, name: str, overrides: list[str], budget: int) -> None:
        self.definition = load_definition(STUDY, ["search.sampler=random", *overrides], name=name)
        self.storage = storage
        self.study = create_or_resume(storage, self.definition, name)
        self.ledger = storage.ledger
        self.ledger.set_budget(self.study._study_id, budget)
        self.holder = holder_name()

    def claim(self, lease: float = 3600.0) -> Slot:
        return self.ledger.claim(self.study._study_id, self.holder, 1, lease)[0]

    def start(self, slot: Slot) -> optuna.Trial:
        trial = start_trial(self.study, slot.id, lambda n: build_sampler(self.definition, n))
        config = space.draw(self.definition, trial)
        origin = {"seed": 7, "worker": self.holder, "device": "cpu", "precision": "float32"}
        records.write_origin(trial, config, {**origin, "stream": 0, "joined": 0})
        return trial

    def begin(self, lease: float = 3600.0) -> tuple[Slot, optuna.Trial]:
        slot = self.claim(lease)
        trial = self.start(slot)
        return self.ledger.assign(slot, trial._trial_id), trial

    def finish(
        self,
        begun: tuple[Slot, optuna.Trial],
        state: TrialState,
        value: float | None,
        reports: list[float],
        reason: str,
    ) -> None:
        slot, trial = begun
        for step, report in enumerate(reports, 1):
            trial.report(report, step)
        outcome: dict[str, Any] = {"epochs": len(reports), "best_epoch": len(reports) or None}
        outcome |= {"train_seconds": 1.5, "total_seconds": 2.25, "reason": reason}
        records.write_outcome(self.study._storage, trial._trial_id, outcome, [])
        self.study.tell(trial, value, state=state)
        self.ledger.finish(slot)


def _fill(worker: Filler) -> None:
    for value in (0.9, 0.95, 0.95):
        worker.finish(worker.begin(), TrialState.COMPLETE, value, [0.5, value], "finished")
    worker.finish(worker.begin(), TrialState.PRUNED, None, [0.6, 0.4], "pruned")
    worker.finish(worker.begin(), TrialState.FAIL, None, [], "diverged in epoch 1")
    _, running = worker.begin()
    running.report(0.3, 1)
    running.report(0.7, 2)
    handed_back, _ = worker.begin()
    worker.ledger.release(worker.holder, [handed_back])
    silent = Filler(worker.storage, "digits", [], budget=12)
    # The slot that was handed back would come first.
    worker.claim(3600.0)
    silent.begin(lease=0.01)
    worker.ledger.release(worker.holder, [handed_back])
    for lingers in (False, True):
        extra = worker.start(handed_back)
        if not lingers:
            retire(worker.study, extra._trial_id, "its slot has another trial")
    time.sleep(0.02)
