"""A training step of `hpo.models.numpy_cnn` beside torch's of the very same network, one thread.

Networks within the ranges of `studies/mnist_numpy_cnn.yaml`, float32, Adam, on random images of
MNIST's size: the time of a step does not depend on what is in them. torch has images as they come
(`[batch, channels, height, width]`) and, in a second column, in the layout that is fastest on a
CPU (`channels_last`).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmarks.processes import ROOT, output_of
from benchmarks.spread import median_and_range
from hpo.config import NumpyCnnConfig
from hpo.models.cnn import Cnn
from hpo.models.numpy_cnn import Adam, build_network

__all__ = ["main"]

_SHAPE, _CLASSES = (1, 28, 28), 10
_NETWORKS = (  # channels, kernel, pool, units of the head, batch
    ((8, 8), 3, 2, 0, 64),
    ((16, 16), 3, 2, 64, 64),
    ((16, 32), 5, 2, 128, 64),
    ((32, 32), 3, 3, 128, 128),
    ((32, 32), 5, 2, 128, 128),
)
_ROUNDS, _STEPS = 7, 8

_Step = Callable[[], object]


def main() -> None:
    print(output_of([sys.executable, "-m", "benchmarks.convolutions"], folder=str(ROOT)), end="")


def _table() -> None:
    torch.set_num_threads(1)
    print(
        "| network | batch | NumPy, ms | torch, ms | NumPy / torch (min to max) "
        "| NumPy / channels_last (min to max) |"
    )
    print("|---|---|---|---|---|---|")
    for channels, kernel, pool, hidden, batch in _NETWORKS:
        config = NumpyCnnConfig(channels=channels, kernel=kernel, pool=pool, hidden=hidden)
        sides = [
            _numpy_step(config, batch),
            _torch_step(config, batch, torch.contiguous_format),
            _torch_step(config, batch, torch.channels_last),
        ]
        for step in sides:
            _milliseconds(step)
        rounds = [[_milliseconds(step) for step in sides] for _ in range(_ROUNDS)]  # in turns
        ours, theirs, _ = map(statistics.median, zip(*rounds, strict=True))
        print(
            f"| {' and '.join(map(str, channels))} channels, kernel {kernel}, pool {pool}, "
            f"head {hidden or 'none'} | {batch} | {ours:.1f} | {theirs:.1f} "
            f"| {median_and_range([row[0] / row[1] for row in rounds])} "
            f"| {median_and_range([row[0] / row[2] for row in rounds])} |"
        )
    print(f"\nMedian of n = {_ROUNDS} rounds of {_STEPS} steps each, one thread.")


def _numpy_step(config: NumpyCnnConfig, batch: int) -> _Step:
    network, rule = build_network(config, _SHAPE, _CLASSES), Adam(0.001)
    random = np.random.default_rng(0)
    images = random.standard_normal((batch, *_SHAPE), np.float32)
    labels = random.integers(0, _CLASSES, batch)
    return lambda: network.train_step(images, labels, rule)


def _torch_step(config: NumpyCnnConfig, batch: int, layout: torch.memory_format) -> _Step:
    module = Cnn(config, _SHAPE, _CLASSES).to(memory_format=layout)
    adam = torch.optim.Adam(module.parameters(), lr=0.001, fused=True)
    features, labels = torch.randn(batch, 28 * 28), torch.randint(0, _CLASSES, (batch,))

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        functional.cross_entropy(module(features), labels).backward()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def _milliseconds(step: _Step) -> float:
    start = time.perf_counter()
    for _ in range(_STEPS):
        step()
    return (time.perf_counter() - start) / _STEPS * 1000


if __name__ == "__main__":
    _table()
