"""What members are said to take is at least what they take, and not far above it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import LabelledRows
from hpo.data.tensors import ImageTensors
from hpo.training.footprint import company_bytes, limits, member_bytes
from hpo.training.population import EVALUATION_ROWS, Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task

SHAPE, CLASSES = (1, 28, 28), 10
CASES = [
    ((64, 64), 64, True, "adam"),
    ((256, 256), 128, True, "nadam"),
    ((600, 600), 128, False, "adamw"),
    ((512,), 64, False, "sgd"),
    ((32, 32, 32, 32), 512, True, "rmsprop"),
    ((), 128, False, "adam"),
]


def config(
    widths: tuple[int, ...], batch: int, batch_norm: bool, name: str, dropout: float = 0.2
) -> TrialConfig:
    return TrialConfig(
        model=MlpConfig(widths=widths, batch_norm=batch_norm, dropout=dropout),
        optimizer=OptimizerConfig(name=name, lr=1e-3, momentum=0.9),
        batch_size=batch,
        label_smoothing=0.1,
    )


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * EVALUATION_ROWS, 28, 28), dtype=np.uint8)
    rows = LabelledRows(images, rng.integers(0, CLASSES, len(images)))
    examples = ImageTensors(rows, torch.device("cpu"))
    return Task(examples, CLASSES, examples.normalization(torch.arange(1024)))


def members_of(own: TrialConfig, count: int) -> list[Member]:
    return [Member(key, own, seed=key) for key in range(count)]


def storages(thing: object, seen: set[int]) -> Iterator[torch.UntypedStorage]:
    """Every memory that can be reached from an object of ours."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing.untyped_storage()
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from storages(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from storages(value, seen)
    elif type(thing).__module__.startswith("hpo.") and hasattr(thing, "__dict__"):
        yield from storages(vars(thing), seen)


def held(*things: object) -> int:
    found = {s.data_ptr(): s.nbytes() for s in storages(list(things), set())}
    return sum(found.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_held_between_epochs_is_within_a_factor(
    case: tuple[tuple[int, ...], int, bool, str], task: Task
) -> None:
    own = config(*case)
    population = Population(task, Stream(torch.arange(1024), own.batch_size, 0))
    members = members_of(own, 4)
    population.add(members)
    population.train_epoch()
    shared = held(task, population.streams)
    real = held(population, members) - shared
    claimed = 4 * member_bytes(own, SHAPE, CLASSES)
    assert claimed / 6 < real < claimed


def test_normalised_inputs_cost_a_member_little(task: Task) -> None:
    """What is the same of a batch for all is held once: members have no inputs of their own."""
    own = config((64,), 512, False, "adam")
    assert isinstance(own.model, MlpConfig)
    model = replace(own.model, input_batch_norm=True, input_dropout=0.2)
    own = replace(own, model=model)
    real = []
    for count in (2, 10):
        population = Population(task, Stream(torch.arange(1024), own.batch_size, 0))
        members = members_of(own, count)
        population.add(members)
        population.train_epoch()
        real.append(held(population, members))
    assert real[1] - real[0] < 8 * member_bytes(own, SHAPE, CLASSES)
    inputs = math.prod(SHAPE) * own.batch_size * 4
    assert real[1] - real[0] < 8 * 2 * inputs  # with inputs and their gradient it were three


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("alike", [False, True], ids=["each its own", "alike"])
def test_inputs_that_are_dropped_are_claimed_once_for_all_who_share_them(
    task: Task, norm: bool, alike: bool
) -> None:
    own = config((16,), 512, False, "adam")
    assert isinstance(own.model, MlpConfig)
    population = Population(task, Stream(torch.arange(1024), own.batch_size, 0))
    members = []
    for key in range(6):
        dropout = 0.2 if alike else 0.1 + key / 20
        model = replace(own.model, input_batch_norm=norm, input_dropout=dropout)
        members.append(Member(key, replace(own, model=model), seed=key))
    population.add(members)
    population.train_epoch()
    real = held(population, members) - held(task, population.streams)
    claimed = company_bytes([(member.config, 1) for member in members], SHAPE, CLASSES)
    # The batch itself, its normal form, and a few readings' inputs near the caches are nobody's.
    once = 3 * own.batch_size * math.prod(SHAPE) * 4
    assert claimed / 4 < real < claimed + once


@pytest.mark.parametrize("case", CASES, ids=str)
def test_at_its_peak_a_population_holds_no_more_than_is_claimed(
    case: tuple[tuple[int, ...], int, bool, str], task: Task
) -> None:
    """Over joining, training, leaving and scoring, by what torch allocates and frees."""
    own = config(*case)
    rows = torch.arange(1024, 1024 + EVALUATION_ROWS)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        population = Population(task, Stream(torch.arange(1024), own.batch_size, 0))
        members = members_of(own, 4)
        population.add(members[:3])
        population.run_epoch(rows)
        population.add(members[3:])
        population.run_epoch(rows)
        population.keep(members[1:])
        population.run_epoch(rows)
    assert profiled.profiler is not None
    results = profiled.profiler.kineto_results
    assert results is not None
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    )
    peak = max(accumulate(change for _, change in changes))
    # The rows of a scoring pass: bytes, then floats, once more while they are converted.
    shared = EVALUATION_ROWS * math.prod(SHAPE) * (1 + 4 + 4)
    claimed = 4 * member_bytes(own, SHAPE, CLASSES)
    assert claimed / 4 < peak < claimed + shared


def test_a_member_that_left_holds_nothing_of_its_population(task: Task) -> None:
    own = config((64,), 128, batch_norm=True, name="adam")
    population = Population(task, Stream(torch.arange(1024), 128, 0))
    members = members_of(own, 10)
    population.add(members)
    population.train_epoch()
    population.keep(members[:9])
    parameters = math.prod(SHAPE) * 64 + 2 * 64 + 64 * CLASSES + CLASSES
    assert held(members[9]) <= 4 * 2 * parameters  # the two moments of Adam
    population.keep([])
    assert held(population) <= held(task, population.streams)


WIDTHS = st.lists(st.integers(1, 2000), max_size=5)


@given(
    widths=WIDTHS,
    batch=st.integers(1, 1024),
    features=st.integers(1, 4000),
    classes=st.integers(2, 100),
    more=st.integers(1, 500),
    place=st.integers(0, 4),
)
def test_more_of_anything_takes_more(
    widths: list[int], batch: int, features: int, classes: int, more: int, place: int
) -> None:
    own = config(tuple(widths), batch, batch_norm=True, name="adam")
    shape = (1, 1, features)
    size = member_bytes(own, shape, classes)
    assert member_bytes(own, (1, 1, features + more), classes) > size
    assert member_bytes(own, shape, classes + more) > size
    assert member_bytes(replace(own, batch_size=batch + more), shape, classes) > size
    if widths:
        wider = list(widths)
        wider[place % len(widths)] += more
        assert isinstance(own.model, MlpConfig)
        model = replace(own.model, widths=tuple(wider))
        assert member_bytes(replace(own, model=model), shape, classes) > size


def test_a_cpu_worker_has_room_beside_torch_itself() -> None:
    cpu = torch.device("cpu")
    chosen, asked = limits(cpu), limits(cpu, 500)
    assert chosen.members >= 2
    assert asked.members == 500
    assert chosen.memory <= asked.memory
    assert 256 * 2**20 <= asked.memory <= 1024 * 2**20


def test_auto_takes_many_small_networks_and_few_large_ones() -> None:
    """By what was measured (`benchmarks/RESULTS.md`): large ones fill a CPU by themselves."""
    chosen = limits(torch.device("cpu"))
    small, large = (
        member_bytes(config((width, width), 128, batch_norm=True, name="adam"), SHAPE, CLASSES)
        for width in (64, 1024)
    )
    assert chosen.memory // small >= chosen.members
    assert chosen.memory // large <= 1


def test_workers_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds it empty when it asks, and what torch keeps for this process is free to it."""
    gpu, total, kept, held = torch.device("cuda"), 80_000, 10_000, 4_000
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: kept)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: held)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (total - kept, total))
    alone, four = limits(gpu), limits(gpu, sharers=4)
    assert alone.memory == int(0.6 * (total - held))
    assert 4 * four.memory == 4 * int(0.6 * total / 4)
    assert limits(gpu, 7, sharers=4).members == 7
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (100, total))
    assert limits(gpu, sharers=4).memory == int(0.6 * (100 + kept - held))


def test_auto_takes_a_small_part_of_a_search_that_learns() -> None:
    cpu = torch.device("cpu")
    taken = {trials: limits(cpu, trials=trials).members for trials in (1, 80, 200, 10_000)}
    assert taken == {1: 4, 80: 4, 200: 10, 10_000: limits(cpu).members}
    wide = member_bytes(config((400, 400), 128, batch_norm=True, name="adam"), SHAPE, CLASSES)
    assert limits(cpu, trials=25).memory // wide == 2
    assert limits(cpu, trials=80).memory // wide > 2
    patient = limits(cpu, learning=False, trials=80)
    assert patient.members == limits(cpu).members
    assert patient.memory > limits(cpu, trials=80).memory == limits(cpu).memory
    assert limits(cpu, 50, trials=80) == limits(cpu, 50)
