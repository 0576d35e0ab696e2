"""Gradient norms of mixed members against torch's autograd in float64; they change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.models.mlp import Mlp
from hpo.models.wide_mlp import WideMlp
from hpo.training.diagnostics import GRADIENT_NORMS, mean_norms
from hpo.training.population import Member, Stopped

from .conftest import BATCH, Bench
from .test_snapshot import BATCHES, after, facts_and_bits, go_on, restart, written

MODELS = {
    3: MlpConfig(widths=(20, 12), activation="gelu", batch_norm=True),
    1: MlpConfig(widths=(9,), activation="tanh"),
    4: MlpConfig(widths=()),
    2: MlpConfig(widths=(7, 8, 6), activation="selu"),
    5: MlpConfig(widths=(6, 5), batch_norm=True, input_batch_norm=True),
    6: MlpConfig(widths=(8,), input_batch_norm=True),
}


def members(*diagnostics: str) -> list[Member]:
    return [
        Member(
            key,
            TrialConfig(
                model=model,
                optimizer=OptimizerConfig(name="sgd", lr=0.05),
                batch_size=BATCH,
                epochs=3,
                label_smoothing=0.1,
                diagnostics=diagnostics,
            ),
            seed=key,
        )
        for key, model in MODELS.items()
    ]


def norms_by_autograd(bench: Bench, member: Member, state: dict[str, Tensor]) -> list[list[float]]:
    """Two epochs of plain torch; the squared sums of what its linear layers' outputs receive."""
    task, config = bench.task, member.config
    model = Mlp(MODELS[member.key], task.examples.features, 10).double()
    model.load_state_dict(state, strict=False)
    sums: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def add(module: nn.Module, given: object, received: Sequence[Tensor]) -> None:
            sums[name] += received[0].square().sum().item()

        return add

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_full_backward_hook(watch(name))
    linear = [name for name, one in model.named_modules() if isinstance(one, nn.Linear)]
    found = []
    for epoch in range(2):
        sums.update(dict.fromkeys(linear, 0.0))
        for rows in bench.stream().epoch(epoch):
            features, labels = task.examples.batch(
                rows, task.normalization, task.precision, (), None
            )
            # A hook on a module needs an input that has a gradient.
            loss = functional.cross_entropy(
                model(features.requires_grad_()), labels, label_smoothing=config.label_smoothing
            )
            model.zero_grad()
            torch.autograd.backward(loss)
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=config.optimizer.lr)
        found.append([sums[name] for name in linear])
    return found


def test_the_norms_of_mixed_members_are_those_of_autograd(bench: Bench) -> None:
    population = bench.population()
    crowd = members(GRADIENT_NORMS)
    population.add(crowd)
    states = {member.key: population.state(member) for member in crowd}
    bench.train(population, 2)
    for member in crowd:
        expected = norms_by_autograd(bench, member, states[member.key])
        found = [list(record.gradient_norms) for record in member.history.records]
        assert [len(norms) for norms in found] == [len(MODELS[member.key].widths) + 1] * 2
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-9)


def test_they_change_nothing_and_are_not_there_unless_asked_for(bench: Bench) -> None:
    watched, plain = bench.population(), bench.population()
    watched.add(members(GRADIENT_NORMS))
    plain.add(members())
    bench.train(watched, 2)
    bench.train(plain, 2)
    assert [member.key for member in watched.members] == [member.key for member in plain.members]
    for one, other in zip(watched.members, plain.members, strict=True):
        for record, bare in zip(one.history.records, other.history.records, strict=True):
            assert replace(record, gradient_norms=(), seconds=0.0) == replace(bare, seconds=0.0)
            assert record.gradient_norms
        curve = json.dumps(other.history.curve())
        assert GRADIENT_NORMS not in curve
        states = watched.state(one), plain.state(other)
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_nobody_observes_where_nobody_asks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    backward = WideMlp.backward

    def spy(self: WideMlp, grad: Tensor, observe: object = None) -> None:
        given.append(observe)
        backward(self, grad)

    monkeypatch.setattr(WideMlp, "backward", spy)
    population = bench.population()
    population.add(members())
    bench.train(population, 1)
    assert given == [None] * BATCHES


def test_one_who_asks_among_others_who_do_not(bench: Bench) -> None:
    asking, other = members(GRADIENT_NORMS)[0], members()[1]
    population = bench.population()
    population.add([asking, other])
    bench.train(population, 1)
    assert len(asking.history.records[0].gradient_norms) == 3
    assert other.history.records[0].gradient_norms == ()


@pytest.mark.parametrize("batches", [BATCHES, BATCHES + 2], ids=["between epochs", "amidst one"])
def test_a_resumed_epoch_comes_to_the_sums_of_an_unbroken_one(bench: Bench, batches: int) -> None:
    unbroken, broken = bench.population(), bench.population()
    unbroken.add(members(GRADIENT_NORMS))
    go_on(bench, unbroken)
    broken.add(members(GRADIENT_NORMS))
    stopping = after(batches)
    with pytest.raises(Stopped):
        go_on(bench, broken, stopping)
    again = restart(bench, written(broken))
    go_on(bench, again)
    assert facts_and_bits(again) == facts_and_bits(unbroken)


def test_of_folds_they_are_the_means(bench: Bench) -> None:
    streams = [bench.stream(number) for number in range(2)]
    made = members(GRADIENT_NORMS)[0]
    folded = Member(made.key, made.config, seed=5, folds=2)
    population = bench.population(*streams)
    population.add([folded])
    bench.train(population, 1)
    alone = []
    for stream, network in zip(streams, folded.networks, strict=True):
        single = Member(made.key, made.config, seed=network.seed)
        bench.alone(single, stream, epochs=1)
        alone.append(single.history.records[0].gradient_norms)
    means = [sum(pair) / 2 for pair in zip(*alone, strict=True)]
    assert folded.history.records[0].gradient_norms == pytest.approx(means, rel=1e-9)
    assert alone[0] != pytest.approx(alone[1], rel=1e-3)


def test_one_that_diverges_keeps_its_numbers_to_itself(bench: Bench) -> None:
    crowd = members(GRADIENT_NORMS)
    sick = next(member for member in crowd if member.key == 1)
    (network,) = sick.networks
    network.config = replace(
        network.config, optimizer=OptimizerConfig(name="sgd", lr=float("inf"))
    )
    population = bench.population()
    population.add(crowd)
    bench.train(population, 1)
    for member in crowd:
        (record,) = member.history.records
        assert record.diverged == (member is sick)
        assert bool(record.gradient_norms) == (member is not sick)
    assert mean_norms([[1.0, float("inf")]]) == ()
