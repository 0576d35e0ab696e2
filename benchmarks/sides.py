"""The sides that `rate` compares, and a process that trains them on command.

`python -m benchmarks.sides OPTIONS` builds every side that `--sides` names, says `ready`, and
then, for each number on its standard input, trains that side for an epoch and answers with the
seconds it took. Who writes to several such processes at once has them start together.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from benchmarks import tutorial
from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import describe, load_train
from hpo.data.tensors import ImageTensors
from hpo.models.alone import build_module
from hpo.training.population import Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

__all__ = ["CONFIG", "LOOP", "TUTORIAL", "population_name"]

TUTORIAL, LOOP = "the tutorials' loop", "hand-written loop"
CONFIG = TrialConfig(
    model=MlpConfig(widths=(256, 256), batch_norm=True, dropout=0.2),
    optimizer=OptimizerConfig(name="adam", lr=1e-3),
    batch_size=tutorial.BATCH,
)


def population_name(members: int, precision: str) -> str:
    """What the side is called that trains so many members in that precision."""
    return f"population of {members}, {precision}"


def _loop_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, stream: Stream
) -> None:
    """What a careful person writes: no DataLoader, all in memory; the stream's first epoch."""
    model.train()
    for index in stream.epoch(0, task.examples.device):
        features, labels = task.examples.batch(index, task.normalization, torch.float32)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(features), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _build(name: str, dataset: str, count: int, device: torch.device) -> Callable[[], object]:
    """A side: whoever calls it trains it for an epoch."""
    rows, classes = load_train(dataset), describe(dataset).classes
    index = torch.arange(count)
    if name == TUTORIAL:
        return _tutorial(tutorial.PilRows(rows, index, index), classes, device)
    examples = ImageTensors(rows, device)
    precision = torch.float32 if name == LOOP else getattr(torch, name.rsplit(" ", 1)[1])
    task = Task(examples, classes, examples.normalization(index), precision=precision)
    stream = Stream(index, tutorial.BATCH, seed=0)
    if name == LOOP:
        model = build_module(CONFIG.model, task.shape, classes).to(device)
        adam = torch.optim.Adam(model.parameters(), lr=CONFIG.optimizer.lr, fused=True)
        return partial(_loop_epoch, model, adam, task, stream)
    population = Population(task, stream)
    members = int(name.split()[2].rstrip(","))
    population.add([Member(key, CONFIG, seed=key) for key in range(members)])
    return population.train_epoch


def _tutorial(rows: tutorial.PilRows, classes: int, device: torch.device) -> Callable[[], object]:
    assert isinstance(CONFIG.model, MlpConfig)
    widths, dropout = CONFIG.model.widths, CONFIG.model.dropout
    features = rows[0][0].numel()
    model = tutorial.sequential(
        features, widths, classes, [dropout] * len(widths), batch_norm=True
    ).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=CONFIG.optimizer.lr)
    batches = tutorial.loader(rows, shuffle=True)
    return partial(tutorial.train_epoch, model, adam, batches, device)


def _seconds(epoch: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    epoch()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", required=True, help="names, one a line")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    names = options.sides.splitlines()
    sides = [_build(name, options.dataset, options.rows, device) for name in names]
    print("ready", flush=True)
    for line in sys.stdin:
        print(_seconds(sides[int(line)], device), flush=True)


if __name__ == "__main__":
    _main()
