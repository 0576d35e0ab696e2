"""Workers that die, freeze or are stopped: their trials go on where they stood, each counts once.

F1, F11 and F20 of the field notes on reliability; F20 follows Determined's test that a resumed
experiment gives the metrics of an unbroken one.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.commands import here, read, start
from tests.watching import SLOW_RANDOM, Study, until, write_slow_study

ALONE = ("--study", "slow", "--population", "1", "-v")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the slow study and a state folder of its own."""
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    return write_slow_study(tmp_path, SLOW_RANDOM)


def curves(url: str, study: str = "slow") -> dict[int, list[tuple[float, ...]]]:
    """The learning curve of every trial, without times."""
    found = optuna.load_study(study_name=study, storage=url.replace("postgresql:", PSYCOPG))
    keys = ("epoch", "train_loss", "loss", "accuracy")
    return {
        trial.number: [
            tuple(epoch[key] for key in keys) for epoch in trial.user_attrs["hpo:curve"]
        ]
        for trial in found.trials
    }


PSYCOPG = "postgresql+psycopg:"


def resumed(errors: str) -> dict[int, int]:
    """From what a worker said: after which epoch each trial went on."""
    found = re.findall(r"trial (\d+) goes on after epoch (\d+)", errors)
    return {int(number): int(epoch) for number, epoch in found}


def test_f1_a_killed_worker_is_replaced_and_its_trial_goes_on(place: Path, url: str) -> None:
    """Ten kills on the two kinds of database.

    No more than an epoch is done again where an epoch lasts longer than saving does, which costs
    a share of the processor's time and waits for the disk. So these last for a second.
    """
    kills, trials = 5, 8
    many = ("--workers", "2", "--trials", str(trials), "--lease", "3600")
    few = ("--set", "training.epochs=6", "--set", "training.batch_size=32")
    process = start(place, "optimize", *ALONE, *many, *few, epochs_last=1, HPO_STORAGE=url)
    study = Study(url)
    stood: list[tuple[int, int]] = []
    for _ in range(kills):
        number, epoch, pid = until(lambda: _victim(study, {number for number, _ in stood}))
        os.kill(pid, signal.SIGKILL)
        stood.append((number, epoch))
        until(lambda: pid not in study.pids())  # noqa: B023
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    study.assert_exactly(trials)
    went_on = resumed(errors)
    for number, epoch in stood:
        assert went_on[number] >= epoch - 1, errors
    trained = read(place, "trials", "--study", "slow", "--storage", url)
    assert all(trial["state"] == "complete" and trial["epochs"] == 6 for trial in trained)


def _victim(study: Study, spared: set[int]) -> tuple[int, int, int] | None:
    """A trial in the middle of its training, its last epoch, and the process that trains it."""
    holders = study.holders()
    bound = {row.trial: row.slot for row in study.rows(BOUND)}
    for number, epoch in study.running().items():
        if number not in spared and 2 <= epoch <= 4 and bound.get(number) in holders:
            return number, epoch, int(holders[bound[number]].split(":")[1])
    return None


BOUND = (
    "SELECT t.number AS trial, s.number AS slot FROM hpo_slots s "
    "JOIN trials t ON t.trial_id = s.trial_id"
)


def test_f1_the_whole_search_dies_and_the_next_command_goes_on(place: Path, url: str) -> None:
    process = start(place, "optimize", *ALONE, "--workers", "2", epochs_last=0.4, HPO_STORAGE=url)
    study = Study(url)
    until(lambda: max(study.running().values(), default=0) >= 4)
    workers = study.pids()
    process.kill()
    process.communicate()
    # Those whom nobody supervises any more stop of their own accord, and hand back.
    until(lambda: not any(map(_lives, workers)))
    assert study.holders() == {}
    again = here(place, "optimize", *ALONE, HPO_STORAGE=url)
    assert any(epoch >= 3 for epoch in resumed(again.stderr).values())
    study.assert_exactly(6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_f11_a_signal_puts_trials_by_and_hands_them_back(
    place: Path, sqlite_url: str, number: signal.Signals, workers: str
) -> None:
    arguments = (*ALONE, "--workers", workers, "--lease", "3600")
    process = start(place, "optimize", *arguments, epochs_last=0.5, HPO_STORAGE=sqlite_url)
    study = Study(sqlite_url)
    until(lambda: max(study.running().values(), default=0) >= 3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert study.holders() == {}
    assert list((place / "state").rglob("*.safetensors"))
    stood = {number: epoch for number, epoch in study.running().items() if epoch >= 3}
    assert stood  # it has stopped in the middle of a trial
    again = here(place, "optimize", *ALONE, HPO_STORAGE=sqlite_url)
    went_on = resumed(again.stderr)
    # Nothing is lost: not even the epoch in whose middle the signal came.
    assert {number: went_on[number] for number in stood} == stood
    study.assert_exactly(6)
    assert not list((place / "state").rglob("*.safetensors"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_f11_a_second_signal_leaves_at_once(place: Path, sqlite_url: str, workers: str) -> None:
    long = ("--set", "training.epochs=100000")
    process = start(place, "optimize", *ALONE, *long, "--workers", workers, HPO_STORAGE=sqlite_url)
    study = Study(sqlite_url)
    until(lambda: study.running())
    children = study.pids()
    process.send_signal(signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    until(lambda: not any(map(_lives, children)))


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("population", ["1", "4"])
def test_f20_an_interrupted_search_gives_the_numbers_of_an_unbroken_one(
    place: Path, population: str
) -> None:
    rates = "{lr: {float: [1.0e-4, 1.0e-2], log: true}}"
    arguments: tuple[str, ...] = (
        *("--study", "slow", "-v", "--population", population, "--trials", population),
        *("--set", f"optimizer={{nadam: {rates}}}", "--set", "training.epochs=7"),
        *("--set", "dataset.augment=[{random_crop: {padding: 1}}]"),
        *("--set", "model.mlp.batch_norm={choice: [true, false]}"),
    )
    whole, broken = f"sqlite:///{place}/whole.db", f"sqlite:///{place}/broken.db"
    here(place, "optimize", *arguments, HPO_STORAGE=whole)
    study = Study(broken)
    # A kill may come when some of them are saved and others not: they go on apart, and round
    # differently.
    hardest = signal.SIGKILL if population == "1" else signal.SIGTERM
    for number, epoch in ((signal.SIGTERM, 1), (hardest, 3), (signal.SIGINT, 4)):
        process = start(place, "optimize", *arguments, epochs_last=0.4, HPO_STORAGE=broken)
        until(lambda: _reached(study, epoch))  # noqa: B023
        process.send_signal(number)
        process.communicate(timeout=60)
    done = here(place, "optimize", *arguments, HPO_STORAGE=broken)
    assert "goes on after epoch" in done.stderr
    study.assert_exactly(int(population))
    assert curves(broken) == curves(whole)


def _reached(study: Study, epoch: int) -> bool:
    return max(study.running().values(), default=0) >= epoch


def test_a_frozen_worker_that_comes_back_counts_nothing_twice(place: Path, url: str) -> None:
    many = ("--trials", "4", "--lease", "1")
    frozen = start(place, "optimize", *ALONE, *many, epochs_last=0.2, HPO_STORAGE=url)
    study = Study(url)
    until(lambda: max(study.running().values(), default=0) >= 2)
    frozen.send_signal(signal.SIGSTOP)
    try:
        other = start(place, "optimize", *ALONE, *many, epochs_last=0.2, HPO_STORAGE=url)
        until(lambda: study.pids() == {other.pid})  # the lease has run out
    finally:
        frozen.send_signal(signal.SIGCONT)
    for process in (frozen, other):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    study.assert_exactly(4)
    assert study.states() == {"COMPLETE": 4}


def test_f2_a_worker_that_dies_between_its_steps_leaves_nothing_behind(
    place: Path, url: str
) -> None:
    """Killed soon after it holds a slot, again and again: no trial is left over or missing."""
    arguments = (*ALONE, "--trials", "5", "--set", "training.epochs=2")
    study = Study(url)
    for seconds in (0.0, 0.02, 0.1, 0.5):
        process = start(place, "optimize", *arguments, epochs_last=0.3, HPO_STORAGE=url)
        until(lambda: process.pid in study.pids())  # noqa: B023
        time.sleep(seconds)
        process.kill()
        process.communicate()
    here(place, "optimize", *arguments, HPO_STORAGE=url)
    study.assert_exactly(5)


def test_status_repair_finds_what_the_last_worker_left(place: Path, url: str) -> None:
    arguments = (*ALONE, "--lease", "3600")
    process = start(place, "optimize", *arguments, epochs_last=0.5, HPO_STORAGE=url)
    study = Study(url)
    until(lambda: study.running())
    process.kill()
    process.communicate()
    assert study.holders()
    shown = here(place, "status", "--study", "slow", "--repair", HPO_STORAGE=url)
    assert study.holders() == {}
    assert "1" in shown.stdout + shown.stderr
    status: Any = read(place, "status", "--study", "slow", "--storage", url)
    assert (status["running"], status["waiting"]) == (0, 1)


def test_two_searches_with_two_workers_each_end_with_exactly_the_budget(
    place: Path, url: str
) -> None:
    arguments = (
        *("--study", "slow", "--population", "2", "--workers", "2", "--trials", "13"),
        *("--set", "training.epochs=3"),
    )
    both = [
        start(place, "optimize", *arguments, epochs_last=0.3, HPO_STORAGE=url) for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    Study(url).assert_exactly(13)
    assert Study(url).states() == {"COMPLETE": 13}
