"""Studies to interrupt, and looking at them from outside: straight into the tables."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo.search.url import parse


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for something to become true, and return it.

    A machine that stands still for minutes, as a virtual one may, uses up a second of them.
    """
    left, last = seconds, time.monotonic()
    while not (found := condition()):
        assert left > 0, "it never came"
        time.sleep(0.05)
        now = time.monotonic()
        left, last = left - min(now - last, 1.0), now
    return found


class Study:
    """The only study of a database, as its tables have it."""

    def __init__(self, url: str) -> None:
        address = parse(url)
        self._file = address.path
        self._engine = sa.create_engine(
            address.url, poolclass=sa.NullPool, connect_args=dict(address.options)
        )

    def rows(self, query: str) -> list[Any]:
        """What a query gives; nothing while the tables are not there or the server is away."""
        if self._file is not None and not self._file.exists():
            return []
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(sa.text(query)).all())
        except (sa.exc.OperationalError, sa.exc.ProgrammingError):
            return []

    def holders(self) -> dict[int, str]:
        """Who holds which slot."""
        query = "SELECT number, holder FROM hpo_slots WHERE holder IS NOT NULL"
        return {row.number: row.holder for row in self.rows(query)}

    def pids(self) -> set[int]:
        """The processes that hold trials."""
        return {int(holder.split(":")[1]) for holder in self.holders().values()}

    def epochs(self) -> dict[int, int]:
        """The last epoch that each trial has reported."""
        query = (
            "SELECT t.number, max(v.step) AS epoch FROM trials t JOIN trial_intermediate_values v "
            "ON v.trial_id = t.trial_id GROUP BY t.number"
        )
        return {row.number: row.epoch for row in self.rows(query)}

    def running(self) -> dict[int, int]:
        """The last epoch of each trial that is in training, and of those that wait."""
        query = "SELECT number FROM trials WHERE state = 'RUNNING'"
        numbers = {row.number for row in self.rows(query)}
        return {number: epoch for number, epoch in self.epochs().items() if number in numbers}

    def states(self) -> Counter[str]:
        """How many trials there are in each of Optuna's states."""
        return Counter(row.state for row in self.rows("SELECT state FROM trials"))

    def finished(self) -> int:
        """How many slots are done."""
        return len(self.rows("SELECT id FROM hpo_slots WHERE done"))

    def assert_exactly(self, budget: int) -> None:
        """Every slot done, every trial finished once, no number missing or twice."""
        numbers = [row.number for row in self.rows("SELECT number FROM trials ORDER BY number")]
        assert numbers == list(range(budget))
        assert set(self.states()) <= {"COMPLETE", "PRUNED", "FAIL"}
        assert self.finished() == budget
        bound = [row.trial_id for row in self.rows("SELECT trial_id FROM hpo_slots")]
        assert len(set(bound)) == len(bound) == budget

    def is_training(self) -> bool:
        """Whether some trial has reported an epoch."""
        return bool(self.epochs())


SLOW = """
dataset: {name: digits}
model: {mlp: {layers: {int: [1, 2]}, width: {int: [8, 32]}}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: 32, epochs: 10}
search: {trials: 6, pruner: none}
"""
"""A study to interrupt, which prunes nothing: slow where it is started with `epochs_last`."""

SLOW_RANDOM = """
dataset: {name: digits}
model: {mlp: {layers: {int: [1, 2]}, width: {int: [32, 64]}, dropout: 0.1}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: 32, epochs: 10}
search: {trials: 6, pruner: none, sampler: random}
"""
"""The same, of which no trial depends on another."""


def write_slow_study(folder: Path, text: str = SLOW) -> Path:
    """Put the study `slow` into the folder's `studies`."""
    (folder / "studies").mkdir()
    (folder / "studies" / "slow.yaml").write_text(text)
    return folder


def in_folder(folder: Path) -> Study:
    """The study in `hpo.db` there, which may not be there yet."""
    return Study(f"sqlite:///{folder}/hpo.db")
