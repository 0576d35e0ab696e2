"""Schedules against torch's schedulers, and what holds for every one of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from hpo.config import ScheduleConfig
from hpo.training.schedules import rate_factor


def rates_of_torch(
    make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int
) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("every", "gamma"), [(1, 0.9), (3, 0.5), (10, 0.1), (50, 0.5)])
def test_step_drops_when_torch_does(every: int, gamma: float) -> None:
    schedule = ScheduleConfig(name="step", every=every, gamma=gamma)
    expected = rates_of_torch(lambda o: lr_scheduler.StepLR(o, every, gamma), 30)
    steps_per_epoch = 4
    ours = [rate_factor(schedule, step, steps_per_epoch, 30) for step in range(120)]
    assert ours == pytest.approx([rate for rate in expected for _ in range(steps_per_epoch)])


def test_cosine_is_that_of_torch_step_by_step() -> None:
    expected = rates_of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, 60), 60)
    ours = [rate_factor(ScheduleConfig(name="cosine"), step, 12, 5) for step in range(60)]
    assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # torch's own call
def test_warmup_and_cosine_are_those_of_torch(share: float) -> None:
    total = 60
    warmup = round(share * total)

    def rise_and_fall(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        rise = lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / warmup)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, total - warmup)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])

    expected = rates_of_torch(rise_and_fall, total)
    schedule = ScheduleConfig(name="cosine", warmup=share)
    ours = [rate_factor(schedule, step, 12, 5) for step in range(total)]
    assert ours == pytest.approx(expected, abs=1e-12)


def test_constant_stays() -> None:
    assert {rate_factor(ScheduleConfig(), step, 5, 20) for step in range(100)} == {1.0}


SCHEDULES = st.one_of(
    st.just(ScheduleConfig()),
    st.builds(
        ScheduleConfig,
        name=st.just("cosine"),
        warmup=st.floats(0, 1, exclude_max=True),
    ),
    st.builds(
        ScheduleConfig,
        name=st.just("step"),
        every=st.integers(1, 20),
        gamma=st.floats(0, 1, exclude_min=True),
    ),
)


@settings(deadline=None)
@given(schedule=SCHEDULES, steps_per_epoch=st.integers(1, 50), epochs=st.integers(1, 30))
def test_a_factor_lies_in_0_to_1_and_only_warmup_rises(
    schedule: ScheduleConfig, steps_per_epoch: int, epochs: int
) -> None:
    total = steps_per_epoch * epochs
    factors = [rate_factor(schedule, step, steps_per_epoch, epochs) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0 or schedule.gamma < 1e-3
    warmup = round(schedule.warmup * total) if schedule.name == "cosine" else 0
    rising, falling = factors[:warmup], factors[warmup:]
    assert all(low < high for low, high in itertools.pairwise(rising))
    assert all(high >= low for high, low in itertools.pairwise(falling))
    assert not rising or rising[-1] == pytest.approx(1)


@settings(deadline=None)
@given(warmup=st.floats(0, 0.9), steps_per_epoch=st.integers(10, 500), epochs=st.integers(1, 50))
def test_a_cosine_ends_near_zero(warmup: float, steps_per_epoch: int, epochs: int) -> None:
    schedule = ScheduleConfig(name="cosine", warmup=warmup)
    total = steps_per_epoch * epochs
    falling = total - round(warmup * total)
    last = rate_factor(schedule, total - 1, steps_per_epoch, epochs)
    # One step before zero; cos(pi - x) is -1 + x^2 / 2 at most.
    assert last <= (torch.pi / falling) ** 2 / 4 + 1e-12
    assert rate_factor(schedule, total, steps_per_epoch, epochs) == pytest.approx(0, abs=1e-12)
