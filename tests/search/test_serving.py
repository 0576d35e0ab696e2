"""A worker that joins a database: what it opens, and which studies it leaves to others."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpo.search import serving
from tests.commands import environment, here, hpo, read, start
from tests.data import stl10_files
from tests.data.clients import NO_WEB, HangingClient

STUDY = """\
dataset: {name: stl10, validation: 0.2}
model: {mlp: {widths: [8]}}
optimizer: {adam: {lr: {float: [1.0e-3, 1.0e-2], log: true}}}
training: {batch_size: 8, epochs: 1}
search: {trials: 1, sampler: random, pruner: none}
"""
RUNS = """\
dataset: {name: stl10, validation: 0.2}
model: {mlp: {widths: [8]}}
optimizer: {adam: {lr: 0.001}}
training: {batch_size: 8, epochs: 1}
variations: [{}, {training.batch_size: 4}]
"""
SERVE = ("worker", "--study", "pictures")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two studies of 40 training and 20 test rows, beside the rows."""
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "data"))
    stl10_files.write(rows(tmp_path), stl10_files.content())
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "pictures.yaml").write_text(STUDY)
    (tmp_path / "studies" / "runs.yaml").write_text(RUNS)
    return tmp_path


def rows(folder: Path) -> Path:
    return folder / "data" / "stl10"


def finished(folder: Path, study: str) -> int:
    return int(read(folder, "status", "--study", study)["finished"])


# --- the test rows

_WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from hpo.cli import main
assert main(sys.argv[1:]) == 0
rows = {path.rsplit("/", 1)[1] for path in opened if path.endswith(".bin")}
assert rows == {"train_X.bin", "train_y.bin"}, rows
"""


def test_a_worker_opens_no_file_with_test_rows(folder: Path) -> None:
    here(folder, "submit", "--study", "pictures")
    command = [sys.executable, "-c", _WATCHED, *SERVE]
    subprocess.run(command, check=True, cwd=folder, env=environment())
    assert finished(folder, "pictures") == 1


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b"\x0b")], ids=["absent", "damaged"]
)
def test_a_worker_needs_no_test_rows(folder: Path, spoil: Callable[[Path], object]) -> None:
    here(folder, "submit", "--study", "pictures")
    spoil(rows(folder) / "test_y.bin")
    hpo(folder, *SERVE, **NO_WEB)
    assert finished(folder, "pictures") == 1


def test_runs_that_are_scored_on_test_rows_do_not_begin_without_them(folder: Path) -> None:
    here(folder, "submit", "--study", "runs")
    (rows(folder) / "test_y.bin").unlink()
    refused = hpo(folder, "worker", "--study", "runs", expect=1, **NO_WEB)
    assert "no source has it; tried the data folder (no test_y.bin" in refused.stderr
    assert read(folder, "trials", "--study", "runs") == []


# --- a disk that refuses


def test_data_without_room_is_told_once_and_ends_only_the_worker_of_that_study(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(folder, "submit", "--study", "pictures")
    here(folder, "submit", "--study", "digits", "--trials", "1", "--set", "training.epochs=1")
    shutil.rmtree(rows(folder))
    free = itertools.count(5000, -1)  # which the message names, and which differ at each try
    usage: Callable[[object], object] = lambda _: SimpleNamespace(free=next(free))  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(serving, "_REFUSED_SECONDS", 0.0)
    said = here(folder, "worker", "--idle", "1").stderr
    assert next(free) < 4998
    assert said.count("study `pictures` is left to other workers: ") == 1
    assert f"{rows(folder)}: fetching needs about" in said
    assert finished(folder, "digits") == 1
    alone = here(folder, *SERVE, expect=74)
    assert f"{rows(folder)}: fetching needs about" in alone.stderr


def test_a_worker_without_a_state_folder_ends(folder: Path) -> None:
    here(folder, "submit", "--study", "pictures")
    nobody = "~nobody-of-this-name"
    refused = here(folder, "worker", "--idle", "0", expect=74, HPO_STATE=nobody)
    assert "HPO_STATE: there is no home folder for" in refused.stderr


# --- a fetch that is not waited for


def test_a_client_that_fetches_ends_with_its_worker(folder: Path) -> None:
    here(folder, "submit", "--study", "mnist")
    client = HangingClient(folder / "bin", "npm")
    worker = start(folder, "worker", "--study", "mnist", PATH=str(folder / "bin"), **NO_WEB)
    client.wait()
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    client.wait_for_its_end()
    assert not os.path.lexists(folder / "data" / "mnist" / "train-labels-idx1-ubyte")
