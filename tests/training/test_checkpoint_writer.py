"""Checkpoints beside training: in order, never more than their share, and no error is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import FileError
from hpo.training.checkpoint_writer import CheckpointWriter
from hpo.training.checkpoints import Checkpoints
from hpo.training.population import Population
from hpo.training.snapshot import Snapshot

from .conftest import Bench
from .test_fit import member

MINE = {"trial": 1}


class Slow(Checkpoints):
    """Saves when it is told to go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()

    def save(self, key: int, snapshot: Snapshot, identity: dict[str, Any]) -> None:
        assert self.go_on.wait(30)
        super().save(key, snapshot, identity)


@pytest.fixture
def population(bench: Bench) -> Population:
    population = bench.population()
    population.add([member(1), member(2)])
    return population


def copies(population: Population) -> list[Any]:
    return [(m.key, lambda m=m: population.snapshot(m), MINE) for m in population.members]


def test_training_goes_on_while_the_disk_is_slow(population: Population, tmp_path: Path) -> None:
    stored = Slow(tmp_path)
    writer = CheckpointWriter(stored)
    before = population.snapshot(population.members[0])
    writer.save(copies(population))
    assert not writer.due()
    population.train_epoch()  # what is being written is a copy
    assert not writer.flush(0.05)
    stored.go_on.set()
    loaded = writer.load(1, MINE)  # waits for it
    assert loaded is not None
    assert loaded.epoch == 0
    for name, tensor in before.tensors.items():
        assert loaded.tensors[name].equal(tensor)
    assert writer.load(2, MINE) is not None


def test_what_is_removed_after_it_was_saved_stays_removed(
    population: Population, tmp_path: Path
) -> None:
    stored = Slow(tmp_path)
    writer = CheckpointWriter(stored)
    writer.save(copies(population))
    writer.remove(1)
    stored.go_on.set()
    assert writer.load(1, MINE) is None
    assert writer.load(2, MINE) is not None


def test_the_next_round_waits_until_the_last_one_is_a_small_part_of_the_time(
    population: Population, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter(Checkpoints(tmp_path))
    writer.save(copies(population))
    assert writer.flush(30)
    writer._cost = 1000.0
    assert not writer.due()
    writer._cost = 0.0
    assert writer.due()


def test_a_disk_that_refuses_is_said_where_training_goes_on(
    population: Population, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(Checkpoints(tmp_path / "file"))
    writer.save(copies(population))
    with pytest.raises(FileError, match="bytes free"):
        writer.flush(30)
    writer.save(copies(population))
    while writer._error is None:
        time.sleep(0.01)
    with pytest.raises(FileError):
        writer.due()


def test_no_thread_is_left_behind(population: Population, tmp_path: Path) -> None:
    threads = threading.active_count()
    for _ in range(5):
        writer = CheckpointWriter(Checkpoints(tmp_path))
        writer.save(copies(population))
        writer.close(30)
    assert threading.active_count() == threads
    assert Checkpoints(tmp_path).load(1, MINE) is not None
