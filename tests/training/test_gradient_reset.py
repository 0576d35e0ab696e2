"""Gradients that are never set to zero, against torch's `.grad` that adds up, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from hpo.config import CnnConfig, TrialConfig
from hpo.models.alone import build_module
from hpo.training.footprint import member_bytes
from hpo.training.optimizers import OPTIMIZERS
from hpo.training.population import Member, Stopped

from .conftest import BATCH, Bench
from .test_optimizers import torch_optimizer
from .test_snapshot import (
    AMIDST,
    BETWEEN,
    after,
    config,
    facts_and_bits,
    go_on,
    restart,
    written,
)

EPOCHS = 3
SHAPE = (1, 8, 8)


def never_reset(name: str) -> TrialConfig:
    made = config(name, norm=name == "nadam", model={"dropout": 0.0}, gradient_reset=False)
    return replace(made, schedule=replace(made.schedule, name="constant", warmup=0.0))


CASES = {name: never_reset(name) for name in sorted(OPTIMIZERS)}
CASES["cnn"] = replace(never_reset("adam"), model=CnnConfig(channels=(3, 4), batch_norm=True))


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("case", CASES)
def test_every_step_follows_the_sum_of_all_gradients(bench: Bench, case: str) -> None:
    own = CASES[case]
    member, plain = Member(1, own, seed=5), Member(2, replace(own, gradient_reset=True), seed=5)
    population = bench.population()
    population.add([member, plain])
    model = build_module(own.model, bench.task.shape, 10)
    model.load_state_dict(population.state(member), strict=False)
    bench.train(population, EPOCHS)

    optimizer = torch_optimizer(own.optimizer, list(model.parameters()))
    for epoch in range(EPOCHS):
        for rows in bench.stream().epoch(epoch):
            features, labels = bench.task.examples.batch(
                rows, bench.task.normalization, bench.task.precision, (), None
            )
            loss = functional.cross_entropy(
                model(features), labels, label_smoothing=own.label_smoothing
            )
            torch.autograd.backward(loss)
            optimizer.step()  # and no zero_grad

    state, reset = population.state(member), population.state(plain)
    for parameter_name, parameter in model.named_parameters():
        torch.testing.assert_close(state[parameter_name], parameter.detach(), rtol=1e-7, atol=1e-9)
    last = [parameter_name for parameter_name, _ in model.named_parameters()][-2]
    assert not torch.allclose(state[last], reset[last], atol=1e-3)


@pytest.mark.parametrize("batches", [BETWEEN, AMIDST])
def test_a_checkpoint_carries_the_sum(bench: Bench, batches: int) -> None:
    def crowd() -> list[Member]:
        return [Member(key, never_reset(name), key) for key, name in enumerate(sorted(OPTIMIZERS))]

    unbroken, broken = bench.population(), bench.population()
    unbroken.add(crowd())
    go_on(bench, unbroken)
    broken.add(crowd())
    stopping = after(batches)
    with pytest.raises(Stopped):
        go_on(bench, broken, stopping)
    snapshots = written(broken)
    assert any("gradient_sum" in name for name in snapshots[0][1].tensors)
    again = restart(bench, snapshots)
    go_on(bench, again)
    assert facts_and_bits(again) == facts_and_bits(unbroken)


def test_the_sum_is_counted_as_memory() -> None:
    own = never_reset("adam")
    assert own.batch_size == BATCH
    assert member_bytes(own, SHAPE, 10) > member_bytes(
        replace(own, gradient_reset=True), SHAPE, 10
    )
