"""Rows trained per second: a population, and a hand-written torch loop over tensors in memory.

Both train 784-256-256-10 with batch norm, dropout 0.2 and Adam on Fashion-MNIST, batch 128, the
same rows in the same order. The loop is what a careful person writes: no DataLoader, everything
in memory, `Adam(fused=True)`. They run in turn, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import load_train
from hpo.data.tensors import ImageTensors
from hpo.models.mlp import Mlp
from hpo.training.population import Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

_ROWS = 12_800
_BATCH = 128
_REPEATS = 5
_MEMBERS = (1, 2, 4, 8, 16)
_CONFIG = TrialConfig(
    model=MlpConfig(widths=(256, 256), batch_norm=True, dropout=0.2),
    optimizer=OptimizerConfig(name="adam", lr=1e-3),
    batch_size=_BATCH,
)


def main() -> None:
    examples = ImageTensors(load_train("fashion_mnist"), torch.device("cpu"))
    rows = torch.arange(_ROWS)
    task = Task(examples, 10, examples.normalization(rows))
    stream = Stream(rows, _BATCH, seed=0)
    loops: list[float] = []
    rates: dict[int, list[float]] = {count: [] for count in _MEMBERS}
    populations = {count: _population(task, stream, count) for count in _MEMBERS}
    for _ in range(_REPEATS):
        loops.append(_loop_rate(task, stream))
        for count, population in populations.items():
            rates[count].append(_population_rate(population, count))
    loop = statistics.median(loops)
    print(f"hand-written loop: {loop:,.0f} rows a second\n")
    print("| members | rows x members a second | over the loop (min to max) |")
    print("|---|---|---|")
    for count, found in rates.items():
        ratios = [rate / base for rate, base in zip(found, loops, strict=True)]
        print(
            f"| {count} | {statistics.median(found):,.0f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    print(f"\nMedian of n = {_REPEATS}, {_ROWS} rows each, one process.")


def _population(task: Task, stream: Stream, count: int) -> Population:
    population = Population(task, stream)
    population.add([Member(key, _CONFIG, seed=key) for key in range(count)])
    return population


def _population_rate(population: Population, count: int) -> float:
    start = time.perf_counter()
    population.train_epoch()
    return _ROWS * count / (time.perf_counter() - start)


def _loop_rate(task: Task, stream: Stream) -> float:
    model = Mlp(_CONFIG.model, task.examples.features, task.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=_CONFIG.optimizer.lr, fused=True)
    start = time.perf_counter()
    for index in stream.epoch(0):
        features, labels = task.examples.batch(index, task.normalization, torch.float32)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(features), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return _ROWS / (time.perf_counter() - start)
