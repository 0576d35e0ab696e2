"""What the peers of `mark` search: the tutorials' space, trained by the tutorials' loop.

The space is that of Optuna's PyTorch example with 64 to 512 units instead of 4 to 128 and dropout
from 0 on, both of which help on Fashion-MNIST; the batch size, 10 epochs and the learning rates
are the example's. A config is the mapping that a search draws, by the example's names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import tutorial
from hpo.data import describe, load_test, load_train, split
from hpo.data.tensors import ImageTensors, Normalization

__all__ = [
    "DROPOUT",
    "LAYERS",
    "OPTIMIZERS",
    "RATES",
    "UNITS",
    "Work",
    "test_accuracies",
    "validation_accuracies",
]

LAYERS, UNITS = (1, 3), (64, 512)
DROPOUT, RATES = (0.0, 0.5), (1e-5, 1e-1)
OPTIMIZERS = ("Adam", "RMSprop", "SGD")

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """What a trial of a peer does.

    Attributes:
        validation: the share of the training rows that is held out.
        seed: of the split, as in a study of hpo.
        epochs: that a trial trains.
        rows: how many training rows it sees at most.
    """

    dataset: str
    validation: float
    seed: int
    epochs: int
    rows: int


def validation_accuracies(work: Work, config: Mapping[str, Any]) -> Iterator[float]:
    """Train as the tutorials do, and yield the validation accuracy after each epoch."""
    rows = load_train(work.dataset)
    parts = split(len(rows), work.validation, work.seed)
    training, validation = (torch.from_numpy(part) for part in parts)
    training = training[: work.rows]
    shuffled = tutorial.loader(tutorial.PilRows(rows, training, training), shuffle=True)
    held_out = tutorial.loader(tutorial.PilRows(rows, validation, training), shuffle=False)
    model = _network(config, work.dataset)
    optimizer = _optimizer(config, model)
    for _ in range(work.epochs):
        tutorial.train_epoch(model, optimizer, shuffled, _CPU)
        yield tutorial.accuracy(model, held_out, _CPU)


def test_accuracies(work: Work, config: Mapping[str, Any], seeds: int) -> list[float]:
    """Train on training and validation rows over seeds, and score the test rows.

    Nobody times this, so the same numbers come from tensors in memory and not through PIL.
    """
    examples = ImageTensors(load_train(work.dataset), _CPU)
    index = torch.arange(min(len(examples), work.rows))
    levels = examples.normalization(index)
    training = _in_memory(examples, index, levels, shuffle=True)
    test = ImageTensors(load_test(work.dataset), _CPU)
    scored = _in_memory(test, torch.arange(len(test)), levels, shuffle=False)
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = _network(config, work.dataset)
        optimizer = _optimizer(config, model)
        for _ in range(work.epochs):
            tutorial.train_epoch(model, optimizer, training, _CPU)
        found.append(tutorial.accuracy(model, scored, _CPU))
    return found


def _network(config: Mapping[str, Any], dataset: str) -> nn.Sequential:
    layers = range(config["n_layers"])
    info = describe(dataset)
    return tutorial.sequential(
        math.prod(info.shape),
        [config[f"n_units_l{layer}"] for layer in layers],
        info.classes,
        [config[f"dropout_l{layer}"] for layer in layers],
    )


def _optimizer(config: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    chosen: type[torch.optim.Optimizer] = getattr(torch.optim, config["optimizer"])
    return chosen(model.parameters(), lr=config["lr"])  # type: ignore[call-arg]


def _in_memory(
    examples: ImageTensors, index: Tensor, levels: Normalization, *, shuffle: bool
) -> tutorial.MemoryBatches:
    features, labels = examples.batch(index, levels, torch.float32)
    return tutorial.MemoryBatches(features, labels, shuffle)
