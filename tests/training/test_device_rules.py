"""CUDA's rules, on a machine without a GPU: nobody waits for the device, and launches are few.

torch's fake tensors have a device, a shape and a dtype, and no numbers. Where a program needs to
know a number, as with `item`, `nonzero` or a mask as an index, they raise; on a GPU it would wait
there until all that was launched is done. What is copied between the CPU and the device waits as
well, and is recorded here with all that is launched. So these tests prove what is asked of a
device, and nothing of its kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import MeasuredRows, load_train
from hpo.data.tensors import ImageTensors, Normalization
from hpo.data.vectors import VectorTensors
from hpo.models.activations import ACTIVATIONS
from hpo.training.goals import TARGETS
from hpo.training.network import Network
from hpo.training.optimizers import OPTIMIZERS
from hpo.training.population import Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

DEVICE = torch.device("cuda")
BATCH, ROWS = 50, 170
BATCHES = ROWS // BATCH
WAITS = (DataDependentOutputException, DynamicOutputShapeException)
TENSORS_A_LAUNCH = 30
"""A launch of torch's `_foreach_` and `_fused_` kernels takes so many tensors, or more."""
OPTIMIZER_LAUNCHES = {"sgd": 1, "adam": 1, "adamw": 1, "rmsprop": 1, "nadam": 4}


@dataclass(frozen=True)
class Call:
    """What was asked of torch.

    Attributes:
        launches: kernels that it takes, 0 for a view.
        crosses: whether it reads on one device and writes on another.
    """

    name: str
    launches: int
    crosses: bool


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes all that is asked of torch in this thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        # Only this kernel is unknown to fake tensors; it changes its arguments, returns nothing.
        result = None if func is torch.ops.aten._fused_sgd_.default else func(*args, **kwargs)
        if func.namespace != "prim":
            tensors = [t for t in tree_iter((args, kwargs, result)) if isinstance(t, Tensor)]
            devices = {tensor.device.type for tensor in tensors}
            name = str(func)
            silent = func.is_view or ".empty" in name or "detach" in name or devices == {"cpu"}
            listed = len(args[0]) if args and isinstance(args[0], (list, tuple)) else 1
            launches = 0 if silent else -(-listed // TENSORS_A_LAUNCH)
            self.calls.append(Call(name, launches, len(devices) > 1))
        return result


class OnDevice(Population):
    """A population on the fake device, whose masks are drawn from generators that exist here."""

    def _dropout_generator(self, network: Network) -> torch.Generator:  # noqa: ARG002
        return torch.Generator()

    def _noise_generator(self, stream: Stream) -> torch.Generator:  # noqa: ARG002
        return torch.Generator()


@pytest.fixture
def device() -> Iterator[torch.device]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield DEVICE


def task_on(device: torch.device, precision: torch.dtype = torch.float32) -> Task:
    examples = ImageTensors(load_train("digits"), device)
    normalization = Normalization(*torch.ones(2, 1, device=device))
    return Task(examples, 10, normalization, precision=precision)


def measured_on(device: torch.device, _precision: torch.dtype = torch.float32) -> Task:
    """Two numbers to predict from two."""
    rows = np.zeros((ROWS + 50, 2), np.float32)
    examples = VectorTensors(MeasuredRows(rows, rows), device)
    levels = Normalization(*torch.ones(4, 2, device=device))
    return Task(examples, 2, levels, goal=TARGETS)


def streams(count: int = 1) -> list[Stream]:
    return [Stream(torch.arange(ROWS), BATCH, 0, number) for number in range(count)]


def member(
    key: int,
    name: str = "adam",
    widths: tuple[int, ...] = (20, 12),
    stream: int = 0,
    **settings: Any,
) -> Member:
    momentum = settings.pop("momentum", 0.0)
    decay = settings.pop("weight_decay", 0.0)
    own = TrialConfig(
        model=MlpConfig(widths=widths, **settings),
        optimizer=OptimizerConfig(name=name, lr=0.01, momentum=momentum, weight_decay=decay),
        batch_size=BATCH,
    )
    return Member(key, own, seed=key, stream=stream)


def company(streams: int) -> list[Member]:
    """Every optimizer and activation, with and without batch norm, dropout, momentum and decay."""
    widths, names = [(20, 12), (), (7,), (20, 12, 9)], list(OPTIMIZERS)
    return [
        member(
            10 * place + copy,
            names[(place + 3 * copy) % len(names)],
            widths[(place + copy) % 4],
            stream=place % streams,
            activation=activation,
            batch_norm=bool(place % 2),
            dropout=0.2 * copy,
            input_batch_norm=place % 3 == 0,
            input_dropout=0.1 * (place % 4),
            momentum=0.9 * copy,
            weight_decay=0.1 * copy,
        )
        for place, activation in enumerate(ACTIVATIONS)
        for copy in range(2)
    ]


def batch_by_batch(population: Population, batches: int = BATCHES) -> list[list[Call]]:
    """What is asked of torch before the first batch is trained on, and from each to the next.

    With the losses, for which somebody waits, an epoch ends, and so does an interrupted one.
    """
    parts: list[list[Call]] = []

    def stopping() -> bool:
        parts.append(recorder.calls)
        recorder.calls = []
        return len(parts) > batches

    with Recorder() as recorder, pytest.raises(DataDependentOutputException):
        population.train_epoch(stopping)
    return parts if len(parts) > batches else [*parts, recorder.calls]


@pytest.mark.parametrize(
    ("build", "precision"),
    [
        (task_on, torch.float32),
        (task_on, torch.bfloat16),
        (measured_on, torch.float32),
    ],
    ids=["classes", "classes in bfloat16", "targets"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_nobody_waits_for_the_device_within_an_epoch(
    device: torch.device,
    build: Callable[[torch.device, torch.dtype], Task],
    count: int,
    precision: torch.dtype,
) -> None:
    population = OnDevice(build(device, precision), *streams(count))
    members = company(count)
    population.add(members)
    first, *later = batch_by_batch(population)
    assert len(later) == BATCHES
    assert {one.networks[0].optimizer.steps for one in members} == {BATCHES}
    assert sum(call.crosses for call in first) == count  # the order of each stream
    assert [call for part in later for call in part if call.crosses] == []
    assert all(sum(call.launches for call in part) > 100 for part in later)


@pytest.mark.parametrize("build", [task_on, measured_on])
def test_nobody_waits_while_members_are_scored(
    device: torch.device, build: Callable[[torch.device], Task]
) -> None:
    population = OnDevice(build(device), *streams())
    population.add(company(1))
    with Recorder() as recorder:
        scores = population.evaluate(torch.arange(200))
    assert {values.device.type for values in scores.values()} == {"cuda"}
    assert sum(call.crosses for call in recorder.calls) == 1  # which rows


@pytest.mark.parametrize(
    "wait",
    [
        lambda numbers: numbers.sum().item(),
        lambda numbers: numbers.tolist(),
        lambda numbers: bool(numbers.any()),
        lambda numbers: torch.equal(numbers, numbers),
        lambda numbers: numbers[numbers > 0],
        lambda numbers: numbers.nonzero(),
        lambda numbers: numbers.unique(),
        lambda numbers: torch.arange(5, device=numbers.device).repeat_interleave(numbers.int()),
        lambda numbers: numbers.cpu(),
        lambda numbers: torch.zeros(5).copy_(numbers),
        lambda numbers: torch.zeros(5).to(numbers.device, non_blocking=True),
        lambda numbers: torch.tensor(0.5, device=numbers.device),
        lambda numbers: torch.tensor([1.0, 2.0], device=numbers.device),
    ],
)
def test_waiting_would_be_seen(device: torch.device, wait: Callable[[Tensor], object]) -> None:
    numbers = torch.ones(5, device=device)
    with Recorder() as recorder:
        try:
            wait(numbers)
        except WAITS:
            return
    assert any(call.crosses for call in recorder.calls)


def launches_a_step(device: torch.device, members: Sequence[Member]) -> int:
    population = OnDevice(task_on(device), *streams())
    population.add(members)
    _, _, second = batch_by_batch(population, batches=2)
    return sum(call.launches for call in second)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_member_more_of_one_shape_takes_its_optimizer_and_its_masks(
    device: torch.device, name: str, dropout: float, prepared: bool
) -> None:
    settings: dict[str, Any] = {
        "batch_norm": True,
        "dropout": dropout,
        "input_batch_norm": prepared,
        "input_dropout": 0.1 * prepared,
    }
    taken = {
        count: launches_a_step(device, [member(key, name, **settings) for key in range(count)])
        for count in (1, 2, 8)
    }
    layers = 2
    own = OPTIMIZER_LAUNCHES[name] + (layers if dropout else 0)
    assert taken[2] - taken[1] == own
    assert taken[8] - taken[1] == 7 * own
    assert taken[1] > 8 * own


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_launches_grow_more_slowly_than_members_of_many_shapes(
    device: torch.device, name: str
) -> None:
    def crowd(count: int) -> list[Member]:
        return [
            member(
                key,
                name,
                ((20, 12), (33,), (8, 8, 8), ())[key % 4],
                activation=("relu", "tanh", "gelu")[key % 3],
                batch_norm=bool(key % 2),
                dropout=0.2 * (key % 2),
                momentum=0.9 * (key % 3 % 2) if name in ("sgd", "rmsprop") else 0.0,
                weight_decay=0.1 * (key % 2),
            )
            for key in range(count)
        ]

    taken = [launches_a_step(device, crowd(count)) for count in (1, 2, 4, 8, 16)]
    for fewer, more in pairwise(taken):
        assert more < 2 * fewer, taken
