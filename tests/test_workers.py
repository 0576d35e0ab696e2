"""Many workers: `hpo optimize --workers`, `hpo worker` and `hpo submit`, as processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import optuna
import pytest

from hpo.engines.supervisor import MOST_DEATHS
from hpo.search.storage import open_storage
from tests.commands import HPO, environment, here, hpo, read, start
from tests.watching import in_folder, until, write_slow_study

SLOW = ("--study", "slow")
LONG = (*SLOW, "--set", "training.epochs=100000")
TWO = ("--workers", "2", "--population", "2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    return write_slow_study(tmp_path)


def numbers(folder: Path, study: str = "slow") -> list[int]:
    return [trial["number"] for trial in read(folder, "trials", "--study", study)]


def children(pid: int) -> set[int]:
    """The processes that a process has started and that have not ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[1] == str(pid) and fields[0] not in "ZX":
                found.add(int(entry.name))
    return found


def lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def both_train(folder: Path) -> bool:
    return in_folder(folder).is_training() and len(in_folder(folder).pids()) == 2


# --- hpo optimize --workers


def test_two_workers_end_with_exactly_the_budget_and_then_there_is_nothing_to_do(
    folder: Path,
) -> None:
    process = start(folder, "optimize", *SLOW, *TWO, "--trials", "8", epochs_last=0.2)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "8 of 8 trials finished (8 complete" in said
    assert "workers: 2 on the CPU, 1 thread each" in errors
    assert "waiting" not in errors
    assert numbers(folder) == list(range(8))
    workers = {trial["worker"] for trial in read(folder, "trials", *SLOW)}
    assert len(workers) == 2
    assert "nothing to do" in hpo(folder, "optimize", *SLOW, *TWO, "--trials", "8").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_worker_and_the_search_resumes(
    folder: Path, number: signal.Signals
) -> None:
    process = start(folder, "optimize", *SLOW, *TWO, epochs_last=0.5)
    until(lambda: both_train(folder))
    workers = children(process.pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert len(workers) == 2
    assert not any(map(lives, workers))
    assert in_folder(folder).pids() == set()
    assert in_folder(folder).finished() < 6  # nobody has trained on to the end
    here(folder, "optimize", *SLOW)
    assert numbers(folder) == list(range(6))


def test_a_second_signal_kills_the_workers_at_once(folder: Path) -> None:
    process = start(folder, "optimize", *LONG, *TWO)
    until(lambda: both_train(folder))
    workers = children(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # so that it cannot heed the first
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    until(lambda: not any(map(lives, workers)))


def test_workers_leave_when_their_parent_is_killed(folder: Path) -> None:
    process = start(folder, "optimize", *LONG, *TWO, "--lease", "3600")
    until(lambda: both_train(folder))
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert len(workers) == 2
    until(lambda: not any(map(lives, workers)))
    # They had the time to hand back what they held.
    assert in_folder(folder).pids() == set()


def test_a_worker_that_is_killed_is_replaced_and_named(folder: Path) -> None:
    process = start(folder, "optimize", *SLOW, *TWO, "--trials", "8", epochs_last=0.2)
    until(lambda: both_train(folder))
    victim = min(children(process.pid))
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "ended by SIGKILL; another takes its place" in errors
    assert "worker 1" in errors or "worker 2" in errors
    assert numbers(folder) == list(range(8))
    status = read(folder, "status", *SLOW)
    assert status["complete"] == 8
    assert status["running"] == status["waiting"] == 0


def test_a_signal_to_all_processes_at_once_hands_everything_back(folder: Path) -> None:
    """As a service manager ends a group: the workers hear it twice, once from the supervisor."""
    process = start(folder, "optimize", *LONG, *TWO)
    until(lambda: both_train(folder))
    for pid in (*children(process.pid), process.pid):
        os.kill(pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    with contextlib.closing(sqlite3.connect(folder / "hpo.db")) as database:
        query = "SELECT count(*), count(holder) FROM hpo_slots WHERE trial_id IS NOT NULL"
        begun, held = database.execute(query).fetchone()
    assert begun >= 2
    assert held == 0


def test_workers_that_die_again_and_again_end_the_search_with_their_last_words(
    folder: Path,
) -> None:
    process = start(folder, "optimize", *LONG, *TWO)
    seen: set[int] = set()

    def kill_all() -> bool:
        for worker in children(process.pid) - seen:
            seen.add(worker)
            with contextlib.suppress(ProcessLookupError):  # the supervisor has ended it
                os.kill(worker, signal.SIGKILL)
        return process.poll() is not None

    until(kill_all)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "ended by SIGKILL again and again" in errors
    assert len(seen) == 2 * MOST_DEATHS


def test_the_time_limit_holds_for_the_whole_search(folder: Path) -> None:
    stopped = hpo(folder, "optimize", *LONG, *TWO, "--timeout", "8")
    assert "the time is up" in stopped.stdout
    status = read(folder, "status", *SLOW)
    assert status["finished"] < 6
    assert status["running"] == 0


def test_the_url_is_on_no_command_line_and_in_no_line(folder: Path) -> None:
    # Of an SQLite file the URL is no secret, but it goes the same way as one that is.
    secret = f"sqlite:///{folder}/s3cr3t.db"
    process = start(folder, "optimize", *LONG, *TWO, HPO_STORAGE=secret)
    until(lambda: len(children(process.pid)) == 2)
    lines = [(Path("/proc") / str(pid) / "cmdline").read_text() for pid in children(process.pid)]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert len(lines) == 2
    assert "s3cr3t" not in errors + "".join(lines)


BAD: list[tuple[list[str], str]] = [
    (["--workers", "0"], "--workers: 0 is neither auto nor a number"),
    (["--workers", "two"], "--workers: two is neither"),
    (["--workers", "-1"], "--workers: -1"),
    (["--gpus", "7"], "--gpus: there is no GPU '7'; torch finds no GPU here"),
    (["--gpus", "all", "--workers", "2"], "--gpus all: torch finds no GPU here"),
    (["--workers-per-gpu", "2"], "--workers-per-gpu: no GPU is used here"),
    (["--gpus", "none", "--workers-per-gpu", "0"], "--workers-per-gpu: 0"),
    (["--workers", "2", "--set", "training.device=cuda"], "training.device"),
    (["--workers", "2", "--set", "training.batch_size=5000"], "larger than the 1150 training"),
    (["--workers", "2", "--set", "dataset.name=digitz"], "digits"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda value: str(value))
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    result = here(tmp_path, "optimize", "--study", "digits", *arguments, expect=2, **hidden)
    assert words in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_of_the_workers(tmp_path: Path) -> None:
    dry = ("optimize", "--study", "digits", "--dry-run")
    assert (
        "workers: 3 on the CPU, 1 thread each"
        in here(tmp_path, *dry, "--workers", "3", "--gpus", "none", OMP_NUM_THREADS="1").stdout
    )
    assert (
        "workers: 1 on the CPU"
        in here(
            tmp_path, *dry, "--workers", "auto", "--trials", "1", CUDA_VISIBLE_DEVICES=""
        ).stdout
    )
    assert list(tmp_path.iterdir()) == []


# --- hpo submit and hpo worker


def test_submit_trains_nothing_and_a_worker_with_nothing_but_the_url_does(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    submitted = read(folder, "submit", *SLOW, "--trials", "4")
    assert submitted == {"study": "slow", "budget": 4, "finished": 0}
    assert numbers(folder) == []
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    url = f"sqlite:///{folder}/hpo.db"
    said = hpo(elsewhere, "worker", *SLOW, HPO_STORAGE=url)
    assert numbers(folder) == list(range(4))
    assert said.stdout == ""
    host = os.uname().nodename
    assert all(line.startswith(f"{host}:") for line in said.stderr.splitlines())
    assert list(elsewhere.iterdir()) == []
    again = here(folder, "submit", *SLOW, "--trials", "4")
    assert "4 of 4 trials finished" in again.stdout


def test_submit_refuses_what_no_worker_could_train(tmp_path: Path) -> None:
    changes = ("--set", "training.batch_size=5000")
    refused = here(tmp_path, "submit", "--study", "digits", *changes, expect=2)
    assert "larger than the 1150 training" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_worker_serves_every_study_the_oldest_first_and_waits_for_more(folder: Path) -> None:
    worker = start(folder, "worker", "--population", "1")
    try:
        until((folder / "hpo.db").exists)
        for name in ("first", "second"):
            here(folder, "submit", *SLOW, "--name", name, "--trials", "2")
        until(lambda: in_folder(folder).finished() == 4)
        here(folder, "submit", *SLOW, "--name", "third", "--trials", "1")
        until(lambda: in_folder(folder).finished() == 5)
    finally:
        worker.send_signal(signal.SIGTERM)
        _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 143, errors
    assert errors.index("first: training") < errors.index("second: training")


def test_a_worker_leaves_when_it_was_idle_for_long_enough(folder: Path) -> None:
    here(folder, "submit", *SLOW, "--trials", "1")
    here(folder, "worker", "--idle", "0.5")
    assert read(folder, "status", *SLOW)["finished"] == 1


def test_a_worker_takes_over_from_one_that_was_killed(folder: Path) -> None:
    here(folder, "submit", *SLOW, "--trials", "3")
    first = start(folder, "worker", "--lease", "3600", epochs_last=0.5)
    until(lambda: in_folder(folder).is_training())
    first.kill()
    first.communicate()
    here(folder, "worker", *SLOW)
    assert numbers(folder) == list(range(3))
    assert read(folder, "status", *SLOW)["complete"] == 3


def test_a_study_that_cannot_be_trained_here_is_left_to_others(folder: Path) -> None:
    here(folder, "submit", *SLOW, "--name", "gpu", "--set", "training.device=cuda:7")
    here(folder, "submit", *SLOW, "--trials", "1")
    said = here(folder, "worker", "--idle", "0")  # which is not idle while the second has work
    assert said.stderr.count("study `gpu` is left to other workers: training.device") == 1
    assert read(folder, "status", *SLOW)["finished"] == 1
    refused = hpo(folder, "worker", "--study", "gpu", expect=2)
    assert "cuda:7 is not on this machine" in refused.stderr


def test_a_study_that_is_deleted_does_not_end_the_worker_that_serves_it(folder: Path) -> None:
    here(folder, "submit", *LONG, "--name", "doomed")
    worker = start(folder, "worker")
    try:
        until(lambda: in_folder(folder).is_training())
        delete_study(folder, "doomed")
        here(folder, "submit", *SLOW, "--name", "next", "--trials", "1")
        until(lambda: worker.poll() is not None or in_folder(folder).finished() == 1)
    finally:
        worker.send_signal(signal.SIGINT)
        _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 130, errors
    assert "study `doomed` was deleted while it was served" in errors
    assert "Traceback" not in errors


def test_a_worker_of_a_study_that_is_deleted_says_so(folder: Path) -> None:
    here(folder, "submit", *LONG, "--name", "doomed")
    worker = start(folder, "worker", "--study", "doomed")
    until(lambda: in_folder(folder).is_training())
    delete_study(folder, "doomed")
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 2, errors
    assert "study `doomed` was deleted" in errors


def delete_study(folder: Path, name: str) -> None:
    """Delete it, for good: where a report comes in between, Optuna gives up without a word."""
    with open_storage(f"sqlite:///{folder}/hpo.db") as opened:

        def gone() -> bool:
            if name in optuna.get_all_study_names(opened.optuna):
                optuna.delete_study(study_name=name, storage=opened.optuna)
            return name not in optuna.get_all_study_names(opened.optuna)

        until(gone)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--study", "slwo"], 2, "did you mean `slow`"),
        (["--study", "slow", "--idle", "3"], 2, "--idle"),
        (["--idle", "-1"], 2, "--idle: -1"),
        (["--population", "0"], 2, "--population: 0"),
        (["--study", "slow", "--storage", "sqlite:///nowhere.db"], 69, "nowhere.db"),
    ],
)
def test_what_a_worker_cannot_do_is_one_sentence(
    folder: Path, arguments: list[str], code: int, words: str
) -> None:
    here(folder, "submit", *SLOW)
    refused = here(folder, "worker", *arguments, expect=code)
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_status_repair_frees_what_a_dead_worker_held(folder: Path) -> None:
    here(folder, "submit", *SLOW, "--trials", "2")
    worker = start(folder, "worker", "--lease", "3600", epochs_last=0.5)
    until(lambda: in_folder(folder).is_training())
    worker.kill()
    worker.communicate()
    repaired = here(folder, "status", *SLOW, "--repair", "--format", "json")
    assert "trials of lost workers freed: 2" in repaired.stderr
    assert json.loads(repaired.stdout)["waiting"] == 2
    assert in_folder(folder).pids() == set()
    again = here(folder, "status", "--repair")
    assert "slow: " in again.stderr
    assert "freed: 0" in again.stderr


# --- signals before there is anything to hand back


@pytest.mark.parametrize(
    "arguments", [("optimize", *LONG, *TWO), ("optimize", *LONG), ("worker",)]
)
def test_a_signal_at_any_moment_of_the_start_is_no_accident(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    chance = random.Random(len(arguments))  # noqa: S311 (nothing secret)
    for number in (signal.SIGINT, signal.SIGTERM) * 2:
        process = subprocess.Popen(
            [*HPO, *arguments],
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Python itself must have begun, which has its own answer before.
        until(lambda pid=process.pid: listens(pid))  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 3.0))
        workers = children(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number, errors
        assert "Traceback" not in errors
        until(lambda found=workers: not any(map(lives, found)))  # type: ignore[misc]


def listens(pid: int) -> bool:
    """Whether a process handles SIGINT and SIGTERM; Python itself does not handle the second."""
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
