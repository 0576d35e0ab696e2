"""`hpo` whose epochs last: `slowly.py SECONDS ARGUMENTS...`.

An epoch waits for so long before its first batch, and a moment before each batch. A test that
acts in the middle of a training is then right however fast or slow the machine trains. The
workers that it starts are as slow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

import hpo.cli.supervising
import hpo.search.berths
from hpo.cli import main
from hpo.cli.supervising import WorkerCommand
from hpo.training.population import Population

SECONDS = sys.argv[1]
_BATCH_SECONDS = 0.005
_STEP_SECONDS = 0.02


class SlowPopulation(Population):
    """Takes its time for an epoch, and heeds a stop meanwhile."""

    def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
        end = time.monotonic() + float(SECONDS)
        while not stopping() and time.monotonic() < end:
            time.sleep(_STEP_SECONDS)

        def linger() -> bool:
            time.sleep(_BATCH_SECONDS)
            return stopping()

        return super().train_epoch(linger)


class SlowWorkerCommand(WorkerCommand):
    """Starts this file instead of `hpo`."""

    def __call__(self, seconds_left: float | None) -> list[str]:
        words = super().__call__(seconds_left)
        arguments = words[words.index("hpo") + 1 :]
        return [sys.executable, "-P", str(Path(__file__)), SECONDS, *arguments]


if __name__ == "__main__":
    hpo.search.berths.Population = SlowPopulation  # type: ignore[attr-defined]
    hpo.cli.supervising.WorkerCommand = SlowWorkerCommand  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
