"""Runs that cannot be scored on the test rows for lack of memory, when they are trained."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

import hpo.search.berths
import hpo.search.final_score
from hpo.search.storage import Storage
from hpo.search.worker import WorkerOptions
from hpo.training.population import Member, Population
from hpo.training.scoring import score_network
from tests.searching import Search, Watcher, begin

STUDY = """
dataset: {name: digits, validation: 0.2}
model: {mlp: {widths: [16]}}
optimizer: {adam: {lr: 0.001}}
training: {batch_size: 32, epochs: 2}
variations: [{}, {optimizer.adam.lr: 0.01}, {optimizer: {sgd: {lr: 0.01}}}]
"""
THREE = WorkerOptions(population=3)


@pytest.fixture
def search(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return begin(storage, tmp_path, monkeypatch, STUDY)


def outcomes(search: Search) -> list[dict[str, Any]]:
    """Of the runs, which are all complete."""
    assert {trial.state.name for trial in search.study.trials} == {"COMPLETE"}
    return [trial.user_attrs["hpo:outcome"] for trial in search.study.trials]


def test_a_run_is_scored_when_its_population_has_let_go(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Population] = weakref.WeakSet()
    short: list[int] = []

    class Listed(Population):
        def add(self, members: Collection[Member]) -> None:
            alive.add(self)
            super().add(members)

    def score(*arguments: Any) -> Any:
        if members := sum(map(len, alive)):
            short.append(members)
            raise MemoryError
        return score_network(*arguments)

    monkeypatch.setattr(hpo.search.berths, "Population", Listed)
    monkeypatch.setattr(hpo.search.final_score, "score_network", score)
    watcher = Watcher()
    assert search.run(watcher, THREE)
    assert short == [3, 3, 3]
    assert watcher.epochs == 3 * 2  # nothing was trained again
    for outcome in outcomes(search):
        assert outcome["reason"] == "all epochs trained"
        assert 0.1 < outcome["test_accuracy"] <= 1


def test_a_run_that_cannot_be_scored_says_so_and_takes_nobody_along(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def score(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) in (1, 4):  # the first run's first try, and its last
            raise MemoryError
        return score_network(*arguments)

    monkeypatch.setattr(hpo.search.final_score, "score_network", score)
    watcher = Watcher()
    assert search.run(watcher, THREE)
    assert watcher.epochs == 3 * 2
    first, *others = outcomes(search)
    assert first["reason"] == "all epochs trained; not scored on the test rows: out of memory"
    assert not [key for key in first if key.startswith("test_")]
    assert all(0.1 < other["test_accuracy"] <= 1 for other in others)
