"""What convolutional members are said to take is at least what they take, and not far above it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from hpo.config import CnnConfig, NumpyCnnConfig, OptimizerConfig, TrialConfig
from hpo.data import LabelledRows
from hpo.data.tensors import ImageTensors
from hpo.training.footprint import member_bytes
from hpo.training.population import EVALUATION_ROWS, Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

ROWS = 512
SIDE = 28
CASES: list[tuple[dict[str, Any], int]] = [
    ({"channels": (8, 16), "kernel": 5, "pool": 2, "hidden": 64}, 64),
    ({"channels": (16,), "kernel": 3, "pool": 4, "activation": "silu"}, 128),
    ({"channels": (8, 8, 8), "kernel": 3, "pool": 1, "hidden": 0}, 32),
    ({"channels": (4,), "kernel": 3, "pool": 2, "hidden": 2000}, 32),
]


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS + EVALUATION_ROWS, SIDE, SIDE), dtype=np.uint8)
    rows = LabelledRows(images, rng.integers(0, 10, len(images)))
    examples = ImageTensors(rows, torch.device("cpu"))
    return Task(examples, 10, examples.normalization(torch.arange(ROWS)))


def train(task: Task, own: TrialConfig) -> None:
    population = Population(task, Stream(torch.arange(ROWS), own.batch_size, 0))
    population.add([Member(0, own, seed=0)])
    population.run_epoch(torch.arange(ROWS, ROWS + EVALUATION_ROWS))
    population.add([Member(1, replace(own, epochs=9), seed=1)])
    population.run_epoch(torch.arange(ROWS, ROWS + EVALUATION_ROWS))


def of(model: CnnConfig | NumpyCnnConfig, batch: int) -> TrialConfig:
    return TrialConfig(
        model=model, optimizer=OptimizerConfig(name="adam", lr=1e-3), batch_size=batch
    )


SHARED = EVALUATION_ROWS * SIDE**2 * (1 + 4 + 4)  # rows to score, as bytes and as floats


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize(("shape", "batch"), CASES, ids=str)
def test_in_torch(shape: dict[str, Any], batch: int, norm: bool, task: Task) -> None:
    own = of(CnnConfig(**shape, batch_norm=norm, dropout=0.2 if norm else 0.0), batch)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train(task, own)
    assert profiled.profiler is not None
    results = profiled.profiler.kineto_results
    assert results is not None
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    )
    peak = max(accumulate(change for _, change in changes))
    claimed = 2 * member_bytes(own, (1, SIDE, SIDE), 10)
    assert claimed / 6 < peak < claimed + SHARED


@pytest.mark.parametrize(("shape", "batch"), CASES, ids=str)
def test_in_numpy(shape: dict[str, Any], batch: int, task: Task) -> None:
    own = of(NumpyCnnConfig(**shape), batch)
    tracemalloc.start()
    try:
        train(task, own)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    claimed = 2 * member_bytes(own, (1, SIDE, SIDE), 10)
    assert claimed / 6 < peak < claimed + SHARED
