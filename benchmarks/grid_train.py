"""A process that trains groups of the grid's cells: a population a group, a stream a fold.

It reads a line of JSON a group from its standard input, a list of the cells' places in the grid,
all of one batch size, and writes one: the place of each cell with the accuracy of each fold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.grid_cells import Cell, all_cells, folds_of
from hpo.data import describe, load_train
from hpo.data.tensors import ImageTensors
from hpo.training.population import Member, Population
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import Task

__all__ = ["add_options", "train_group"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the grid's processes have to know of it."""
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--batch-sizes", default="512,1024")
    parser.add_argument("--epochs", type=int, default=15)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid_train")
    add_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells = all_cells([int(size) for size in options.batch_sizes.split(",")])
    rows = load_train(options.dataset)
    examples = ImageTensors(rows, torch.device("cpu"))
    # Mean and deviation of a pixel are those of all rows, as the peer has them, not of each fold.
    everything = examples.normalization(torch.arange(len(examples)))
    task = Task(examples, describe(options.dataset).classes, everything)
    folds = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in folds_of(rows.labels)]
    for line in sys.stdin:
        places = json.loads(line)
        group = {place: cells[place] for place in places}
        print(json.dumps(train_group(task, folds, group, options.epochs)), flush=True)


def train_group(
    task: Task, folds: Sequence[tuple[Tensor, Tensor]], group: dict[int, Cell], epochs: int
) -> list[tuple[int, list[float]]]:
    """Train cells of one batch size side by side, each once a fold, and score what was held out.

    Returns:
        Each cell's place and its accuracies in [0, 1], one a fold, after the last epoch.
    """
    [batch_size] = {cell.batch_size for cell in group.values()}
    streams = [Stream(rows, batch_size, 0, number) for number, (rows, _) in enumerate(folds)]
    population = Population(task, *streams)
    cell_of = {
        Member(
            place * len(folds) + fold, cell.config(epochs), derive_seed(place, fold), stream=fold
        ): place
        for place, cell in group.items()
        for fold in range(len(folds))
    }
    population.add(list(cell_of))
    for _ in range(epochs):
        population.train_epoch()
    found: dict[int, list[float]] = {place: [] for place in group}
    for fold, (_, held_out) in enumerate(folds):
        # All members are scored, and those of a fold are wanted; who was scored leaves, so that
        # three folds cost six parts of nine.
        accuracies = population.evaluate(held_out)["accuracy"]
        for member, accuracy in zip(population.members, accuracies.tolist(), strict=True):
            if member.stream == fold:
                found[cell_of[member]].append(accuracy)
        population.keep([member for member in population.members if member.stream > fold])
    return list(found.items())


if __name__ == "__main__":
    main(sys.argv[1:])
