"""A study that trains long enough to be interrupted, and waiting for what happens to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

SLOW = (
    "dataset: {name: digits}\n"
    "model: {mlp: {layers: {int: [1, 2]}, width: {int: [8, 32]}}}\n"
    "optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}\n"
    "training: {batch_size: 16, epochs: 30}\n"
    "search: {trials: 6, pruner: none}\n"
)


def write_slow_study(folder: Path) -> Path:
    """Put the study `slow` into the folder's `studies`; it prunes nothing."""
    (folder / "studies").mkdir()
    (folder / "studies" / "slow.yaml").write_text(SLOW)
    return folder


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def query(database: Path, text: str) -> list[Any]:
    """The rows of a query, read at once (`hpo status` takes a second); none without a table."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(text).fetchall()
        except sqlite3.OperationalError:  # not set up yet
            return []


def is_training(database: Path) -> bool:
    """Whether some trial has reported an epoch."""
    return query(database, "SELECT count(*) FROM trial_intermediate_values") not in ([], [(0,)])


def done(database: Path) -> int:
    """How many trials have finished."""
    rows = query(database, "SELECT count(*) FROM hpo_slots WHERE done")
    return int(rows[0][0]) if rows else 0


def holders(database: Path) -> set[int]:
    """The process ids of the workers that hold trials now."""
    rows = query(database, "SELECT DISTINCT holder FROM hpo_slots WHERE holder IS NOT NULL")
    return {int(holder.split(":")[1]) for (holder,) in rows}
