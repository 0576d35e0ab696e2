"""How many trials train side by side once memory was short, and after that."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import pytest

import hpo.search.berths
from hpo.search.status import read_status
from hpo.search.storage import Storage
from hpo.search.worker import WorkerOptions
from hpo.training.history import EpochRecord
from hpo.training.population import Member, Population
from tests.searching import Search, Watcher, begin

STUDY = """
dataset: {name: digits}
model: {mlp: {widths: [16]}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: 64, epochs: 12}
search: {trials: 14, sampler: random, pruner: none}
"""
FOUR = WorkerOptions(population=4)


class Counter(Watcher):
    """Writes down at every epoch of a trial how many are in training."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[int] = []

    def epoch(self, *found: float) -> None:
        super().epoch(*found)
        self.running.append(int(found[0]))


@pytest.fixture
def search(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return begin(storage, tmp_path, monkeypatch, STUDY)


@pytest.mark.parametrize("shortages", [1, 2])
def test_a_shortage_of_memory_that_passes_is_forgotten(
    search: Search, monkeypatch: pytest.MonkeyPatch, shortages: int
) -> None:
    """And one that comes again is given twice the time to pass."""
    alive: weakref.WeakSet[Population] = weakref.WeakSet()
    counter = Counter()
    short: list[int] = []

    class Greedy(Population):
        """More than two trials at a time are too much for a while."""

        def add(self, members: Collection[Member]) -> None:
            alive.add(self)
            super().add(members)

        def run_epoch(self, *arguments: object) -> list[EpochRecord]:
            if sum(map(len, alive)) > 2 and len(short) < shortages:
                short.append(len(counter.running))
                raise MemoryError
            return super().run_epoch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hpo.search.berths, "Population", Greedy)
    assert search.run(counter, FOUR)
    status = read_status(search.storage, "s")
    assert (status.complete, status.budget) == (14, 14)
    assert len(short) == shortages
    wide = counter.running.index(4)
    assert set(counter.running[:wide]) == {2}
    tries = [*short, wide]
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert 2 * 10 < waits[0] <= 2 * 16
    assert all(later > 1.8 * earlier for earlier, later in pairwise(waits))
    assert max(counter.running) == 4
