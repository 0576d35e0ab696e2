"""A disk that refuses, and files that are damaged: F12 and F22 of the field notes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import HPO, environment, here, start
from tests.watching import SLOW_RANDOM, Study, until, write_slow_study

WIDE = ("--set", "model.mlp.width=512", "--set", "training.batch_size=64")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    return write_slow_study(tmp_path, SLOW_RANDOM)


def limited(
    place: Path, blocks: int, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that may write no file above so many KiB."""
    script = f'ulimit -f {blocks}; exec "$@"'
    return subprocess.run(
        ["bash", "-c", script, "bash", *HPO, *arguments],
        cwd=place,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_f12_no_room_for_a_checkpoint(place: Path, postgres_url: str) -> None:
    arguments = ("optimize", "--study", "slow", "--population", "1", *WIDE, "--trials", "2")
    small = ("--set", "model.mlp.layers=1")
    stopped = limited(place, 64, *arguments, *small, HPO_STORAGE=postgres_url)
    assert stopped.returncode == 74, stopped.stderr
    assert str(place / "state") in stopped.stderr
    assert "bytes free" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    left = [path for path in (place / "state").rglob("*") if path.is_file()]
    assert left == []
    assert Study(postgres_url).holders() == {}
    here(place, *arguments, *small, HPO_STORAGE=postgres_url)
    Study(postgres_url).assert_exactly(2)


def test_f12_the_last_checkpoint_outlives_a_disk_that_fills_up(
    place: Path, postgres_url: str
) -> None:
    arguments = ("optimize", "--study", "slow", "--population", "1", "--trials", "1", *WIDE)
    long = ("--set", "training.epochs=60")
    process = start(place, *arguments, *long, epochs_last=0.3, HPO_STORAGE=postgres_url)
    study = Study(postgres_url)
    until(lambda: max(study.running().values(), default=0) >= 3)
    process.terminate()
    process.communicate(timeout=60)
    saved = {path.name: path.read_bytes() for path in (place / "state").rglob("*.safetensors")}
    assert saved
    stopped = limited(place, 64, *arguments, *long, HPO_STORAGE=postgres_url)
    assert stopped.returncode == 74, stopped.stderr
    files = [path for path in (place / "state").rglob("*") if path.is_file()]
    assert {
        path.name: path.read_bytes() for path in files if path.suffix == ".safetensors"
    } == saved
    assert {path.suffix for path in files} == {".safetensors", ".json"}  # no draft is left
    again = here(place, *arguments, *long, HPO_STORAGE=postgres_url)
    assert "goes on after epoch" in again.stderr
    study.assert_exactly(1)


def test_f12_a_full_disk_under_the_database(place: Path, sqlite_url: str) -> None:
    database = place / "hpo.db"
    here(place, "optimize", "--study", "slow", "--trials", "1", HPO_STORAGE=sqlite_url)
    kib = database.stat().st_size // 1024 + 8
    arguments = ("optimize", "--study", "slow", "--population", "2", "--trials", "40")
    quick = ("--set", "training.epochs=10")
    stopped = limited(place, kib, *arguments, *quick, HPO_STORAGE=sqlite_url)
    assert stopped.returncode == 74, stopped.stderr
    assert "hpo.db" in stopped.stderr
    assert "bytes free" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    fewer = ("optimize", "--study", "slow", "--population", "8", "--trials", "8")
    here(place, *fewer, HPO_STORAGE=sqlite_url)
    status = Study(sqlite_url)
    assert status.finished() >= 8
    assert set(status.states()) <= {"COMPLETE"}


@pytest.mark.parametrize("damage", ["newest", "both", "json"])
def test_f22_a_damaged_checkpoint_is_passed_over(
    place: Path, sqlite_url: str, damage: str
) -> None:
    arguments = ("optimize", "--study", "slow", "--population", "1", "--trials", "1")
    study = Study(sqlite_url)
    for epoch in (3, 5):
        process = start(place, *arguments, epochs_last=0.4, HPO_STORAGE=sqlite_url)
        until(lambda: max(study.running().values(), default=0) >= epoch)  # noqa: B023
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    suffix = "*.json" if damage == "json" else "*.safetensors"
    checkpoints = sorted(
        (place / "state").rglob(suffix), key=lambda path: path.stat().st_mtime_ns, reverse=True
    )
    assert len(checkpoints) == 2
    for path in checkpoints if damage == "both" else checkpoints[:1]:
        path.write_bytes(path.read_bytes()[:-1])
    again = here(place, *arguments, HPO_STORAGE=sqlite_url)
    assert again.stderr.count("damaged (") == (2 if damage == "both" else 1), again.stderr
    assert ("goes on after epoch" in again.stderr) == (damage != "both")
    study.assert_exactly(1)
