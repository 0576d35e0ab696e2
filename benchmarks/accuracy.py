"""Whether a population's speed costs accuracy: its members beside a plain float32 torch loop.

Each member of one population of `--seeds` has its twin: the torch module that a user would end
with, from the same first weights, on the same batches in the same order, with `torch.optim.Adam`.
Dropout draws differ. Both are scored on rows that neither has seen.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

import torch

from benchmarks import tutorial
from benchmarks.rate import check_device, parser_of
from benchmarks.sides import CONFIG
from benchmarks.tutorial import BATCH
from hpo.data import describe, load_train
from hpo.data.tensors import ImageTensors
from hpo.models.alone import build_module
from hpo.training.population import EVALUATION_ROWS, Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

__all__ = ["main"]

_EPOCHS = 3
_SEEDS = 10


def main(arguments: Sequence[str] = ()) -> None:
    options = _options(arguments)
    examples = ImageTensors(load_train(options.dataset), torch.device(options.device))
    training = torch.arange(options.rows)
    validation = torch.arange(options.rows, len(examples))
    classes, normalization = describe(options.dataset).classes, examples.normalization(training)
    print("| precision | plain loop, % | population, % | difference, points |")
    print("|---|---|---|---|")
    for name in options.precisions.split(","):
        task = Task(examples, classes, normalization, precision=getattr(torch, name))
        ours, plain = _measure(task, training, validation, options)
        differences = [mine - theirs for mine, theirs in zip(ours, plain, strict=True)]
        print(f"| {name} | {_shown(plain)} | {_shown(ours)} | {_shown(differences)} |")
    print(
        f"\nMean +- its standard error over n = {options.seeds} seeds, after {options.epochs} "
        f"epochs of {options.rows:,} rows of {options.dataset}, on {len(validation):,} others; "
        "the plain loop is in float32. The difference is the mean of that of each pair."
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_of("accuracy")
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    options = parser.parse_args(arguments)
    rows = describe(options.dataset).n_train
    if not BATCH <= options.rows < rows:
        parser.error(f"--rows: from {BATCH}, a batch, to {rows - 1}, so that others are left")
    if options.seeds < 2:
        parser.error("--seeds: two or more have a spread")
    check_device(options.device)
    return options


def _measure(
    task: Task, training: torch.Tensor, validation: torch.Tensor, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """The accuracy of every member, and of its twin."""
    stream = Stream(training, BATCH, seed=0)
    population = Population(task, stream)
    members = [Member(seed, CONFIG, seed=seed) for seed in range(options.seeds)]
    population.add(members)
    first_weights = [population.state(member) for member in members]
    for _ in range(options.epochs):
        population.train_epoch()
    reached = population.evaluate(validation)["accuracy"]
    by_member = dict(zip(population.members, reached.tolist(), strict=True))
    plain = []
    for seed, weights in enumerate(first_weights):
        torch.manual_seed(seed)  # of the dropout
        plain.append(_plain(task, stream, validation, weights, options.epochs))
    return [by_member[member] for member in members], plain


def _plain(
    task: Task,
    stream: Stream,
    validation: torch.Tensor,
    weights: dict[str, torch.Tensor],
    epochs: int,
) -> float:
    examples = task.examples
    model = build_module(CONFIG.model, task.shape, task.outputs).to(examples.device)
    model.load_state_dict(weights, strict=False)  # a member does not count its batches
    adam = torch.optim.Adam(model.parameters(), lr=CONFIG.optimizer.lr)
    for epoch in range(epochs):
        batches = (
            examples.batch(index, task.normalization, torch.float32)
            for index in stream.epoch(epoch, examples.device)
        )
        tutorial.train_epoch(model, adam, batches, examples.device)
    held_out = examples.batches(validation, task.normalization, torch.float32, EVALUATION_ROWS)
    return tutorial.accuracy(model, held_out, examples.device)


def _shown(shares: Sequence[float]) -> str:
    """Mean and standard error, in points of a hundred."""
    error = statistics.stdev(shares) / math.sqrt(len(shares))
    return f"{statistics.mean(shares) * 100:.2f} +- {error * 100:.2f}"
