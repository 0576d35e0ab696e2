"""A few hundred rows of digits, ready to train on in float64, so that numbers can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from hpo.data import LabelledRows, load_train
from hpo.data.tensors import ImageTensors
from hpo.training.population import Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

BATCH = 50


@dataclass(frozen=True)
class Bench:
    """A task, streams over its first 300 rows, and 80 rows to score members on."""

    task: Task
    validation: Tensor

    def stream(self, number: int = 0, batch_size: int = BATCH, seed: int = 7) -> Stream:
        return Stream(torch.arange(300), batch_size, seed, number)

    def population(self, *streams: Stream, epoch: int = 0) -> Population:
        """Without streams given, on the first one; `epoch` is where its streams stand."""
        return Population(self.task, *(streams or (self.stream(),)), epoch=epoch)

    def train(self, population: Population, epochs: int) -> None:
        for _ in range(epochs):
            population.run_epoch(self.validation)

    def alone(self, member: Member, stream: Stream, epochs: int, joined: int = 0) -> Population:
        """Train one member with nobody beside it."""
        population = self.population(stream, epoch=joined)
        population.add([member])
        self.train(population, epochs)
        return population


@cache
def build_bench(dtype: torch.dtype) -> Bench:
    """Also for processes that a test starts."""
    rows = load_train("digits")
    rows = LabelledRows(rows.images[:400], rows.labels[:400])
    examples = ImageTensors(rows, torch.device("cpu"))
    task = Task(
        examples=examples,
        outputs=10,
        normalization=examples.normalization(torch.arange(300)),
        precision=dtype,
        dtype=dtype,
    )
    return Bench(task, torch.arange(320, 400))


@pytest.fixture(scope="session")
def make_bench() -> Callable[[torch.dtype], Bench]:
    return build_bench


@pytest.fixture(scope="session")
def bench(make_bench: Callable[[torch.dtype], Bench]) -> Bench:
    return make_bench(torch.float64)


@pytest.fixture
def float64_default() -> Iterator[None]:
    """torch's NAdam multiplies its schedule up in float32, unless the default is float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)
