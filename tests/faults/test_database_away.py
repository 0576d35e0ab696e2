"""A PostgreSQL server that goes away and comes back: no worker ends, nothing is lost or twice.

F4, F5 and F6 of the field notes; the lengths of the outages follow Determined's tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import environment, here, read, start
from tests.databases import PostgresServer
from tests.watching import SLOW_RANDOM, Study, until, write_slow_study

AT_TELL = Path(__file__).with_name("at_tell.py")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    return write_slow_study(tmp_path, SLOW_RANDOM)


@pytest.fixture
def server(unsteady_server: PostgresServer) -> PostgresServer:
    return unsteady_server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.tcp_url(server.create_database())


@pytest.mark.parametrize(
    ("down", "lease"),
    [
        (0, "60"),
        pytest.param(5, "60", marks=pytest.mark.slow),
        pytest.param(20, "60", marks=pytest.mark.slow),
        pytest.param(60, "600", marks=pytest.mark.slow),
        (10, "4"),  # F6: longer than a lease
    ],
)
def test_f4_f6_workers_outlive_an_outage(
    place: Path, server: PostgresServer, url: str, down: int, lease: str
) -> None:
    study = Study(url)
    process = start(
        place,
        *("optimize", "--study", "slow", "--population", "2", "--workers", "2"),
        *("--trials", "15", "--lease", lease, "--set", "training.epochs=5"),
        epochs_last=0.3,
        HPO_STORAGE=url,
    )
    until(lambda: max(study.running().values(), default=0) >= 2)
    until(lambda: len(study.pids()) == 2)
    workers = study.pids()
    server.stop()
    time.sleep(down)
    assert process.poll() is None
    server.start()
    held = until(lambda: study.rows("SELECT holder FROM hpo_slots WHERE holder IS NOT NULL"))
    assert held
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    study.assert_exactly(15)
    assert study.states() == {"COMPLETE": 15}
    trials = read(place, "trials", "--study", "slow", "--storage", url)
    assert {
        int(trial["worker"].split(":")[1]) for trial in trials
    } == workers  # nobody was replaced
    assert all(trial["epochs"] == 5 for trial in trials)


@pytest.mark.parametrize("then", ["goes on", "is killed"])
def test_f5_a_result_survives_an_outage_at_the_moment_it_is_told(
    place: Path, server: PostgresServer, url: str, then: str
) -> None:
    arguments = ("--study", "slow", "--trials", "2", "--set", "training.epochs=2")
    here(place, "submit", *arguments, HPO_STORAGE=url)
    worker = subprocess.Popen(
        [sys.executable, str(AT_TELL), "slow"],
        cwd=place,
        env=environment(HPO_STORAGE=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdin is not None
    told = json.loads(worker.stdout.readline())
    server.stop()
    worker.stdin.write("\n")  # now it tells, and nobody listens
    worker.stdin.flush()
    time.sleep(3)
    if then == "is killed":
        worker.kill()
        worker.communicate()
    server.start()
    if then == "goes on":
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    here(place, "optimize", *arguments, HPO_STORAGE=url)
    Study(url).assert_exactly(2)
    trials = read(place, "trials", "--study", "slow", "--storage", url)
    (same,) = [trial for trial in trials if trial["number"] == told["number"]]
    assert same["value"] == told["value"]
    assert same["worker"] == told["holder"]  # it was not trained again
    assert not list((place / "state").rglob("*.json"))


def test_a_worker_waits_for_a_server_that_starts_later(
    place: Path, server: PostgresServer, url: str
) -> None:
    few = ("--trials", "1", "--set", "training.epochs=1")
    here(place, "submit", "--study", "slow", *few, HPO_STORAGE=url)
    server.stop()
    worker = start(place, "worker", "--study", "slow", HPO_STORAGE=url)
    time.sleep(4)
    assert worker.poll() is None
    server.start()
    _, errors = worker.communicate(timeout=120)
    assert worker.returncode == 0, errors
    Study(url).assert_exactly(1)


def test_who_only_looks_does_not_wait(place: Path, server: PostgresServer, url: str) -> None:
    server.stop()
    refused = here(place, "status", "--study", "slow", expect=69, HPO_STORAGE=url)
    assert "no server answers" in refused.stderr
    server.start()


def test_a_worker_can_be_stopped_while_the_database_is_away(
    place: Path, server: PostgresServer, url: str
) -> None:
    arguments = ("optimize", "--study", "slow", "--set", "training.epochs=40")
    process = start(
        place, *arguments, "--population", "1", "--trials", "2", epochs_last=0.3, HPO_STORAGE=url
    )
    study = Study(url)
    until(lambda: max(study.running().values(), default=0) >= 3)
    server.stop()
    time.sleep(2)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert list((place / "state").rglob("*.safetensors"))
    server.start()
    again = here(place, *arguments, "-v", "--trials", "2", HPO_STORAGE=url)
    assert "goes on after epoch" in again.stderr
    study.assert_exactly(2)
