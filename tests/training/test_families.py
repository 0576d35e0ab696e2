"""Convolutional members: what they come to, alone, beside perceptrons, and after a stop."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from hpo.config import (
    CnnConfig,
    MlpConfig,
    ModelConfig,
    NumpyCnnConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrialConfig,
)
from hpo.models.alone import build_module
from hpo.models.numpy_cnn import SGD, Adam, build_network
from hpo.training.blocks import cost
from hpo.training.optimizers import OPTIMIZERS
from hpo.training.population import Member, Population, Stopped
from hpo.training.schedules import rate_factor
from hpo.training.snapshot import Snapshot
from hpo.training.streams import derive_seed

from .conftest import BATCH, Bench, build_bench

SHAPE = (1, 8, 8)
BATCHES = 6
EPOCHS = 3
NUMPY = NumpyCnnConfig(channels=(4, 6), kernel=3, pool=2, hidden=10)
CNN = CnnConfig(channels=(4, 6), kernel=3, pool=2, hidden=10)
NORMED = replace(CNN, batch_norm=True, dropout=0.3, activation="silu")
MLP = MlpConfig(widths=(16,), batch_norm=True, dropout=0.2)


def config(model: ModelConfig, name: str = "adam", **settings: Any) -> TrialConfig:
    momentum = 0.9 if name in ("sgd", "rmsprop") else 0.0
    made = TrialConfig(
        model=model,
        optimizer=OptimizerConfig(name=name, lr=1e-2, momentum=momentum),
        schedule=ScheduleConfig(name="cosine", warmup=0.2),
        batch_size=BATCH,
        epochs=EPOCHS,
        label_smoothing=0.1,
    )
    return replace(made, **settings)


def crowd() -> list[Member]:
    """Members of every family; their keys are not in the order of joining."""
    configs = {
        7: config(CNN, "sgd"),
        3: config(MLP, "adamw"),
        11: config(NUMPY, "adam"),
        5: config(NORMED, "adam", schedule=ScheduleConfig(), label_smoothing=0.0),
        2: config(NUMPY, "sgd", schedule=ScheduleConfig(name="step", every=1)),
        9: config(replace(MLP, widths=(8, 8), batch_norm=False)),
    }
    return [Member(key, own, seed=2**40 + key) for key, own in configs.items()]


def plain_loop(bench: Bench, module: nn.Module, own: TrialConfig, epochs: int) -> list[float]:
    """The same training with torch's own optimizer; each epoch's mean loss."""
    assert own.optimizer.name in ("sgd", "adam")
    settings: dict[str, Any] = {"lr": own.optimizer.lr, "weight_decay": own.optimizer.weight_decay}
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(module.parameters(), momentum=own.optimizer.momentum, **settings)
        if own.optimizer.name == "sgd"
        else torch.optim.Adam(module.parameters(), **settings)
    )
    losses, step = [], 0
    module.train()
    for epoch in range(epochs):
        total = 0.0
        for index in bench.stream().epoch(epoch):
            features, labels = bench.task.examples.batch(
                index, bench.task.normalization, bench.task.dtype
            )
            factor = rate_factor(own.schedule, step, BATCHES, own.epochs)
            optimizer.param_groups[0]["lr"] = own.optimizer.lr * factor
            optimizer.zero_grad()
            loss = functional.cross_entropy(
                module(features), labels, label_smoothing=own.label_smoothing
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
            step += 1
        losses.append(total / BATCHES)
    return losses


def scores(bench: Bench, module: nn.Module) -> tuple[float, float]:
    """Mean loss and accuracy of a plain module on the validation rows."""
    module.eval()
    features, labels = bench.task.examples.batch(
        bench.validation, bench.task.normalization, bench.task.dtype
    )
    with torch.no_grad():
        logits = module(features)
    right = (logits.argmax(1) == labels).double().mean().item()
    return functional.cross_entropy(logits, labels).item(), right


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("pool", [1, 2])
def test_a_cnn_trains_as_a_plain_module(
    bench: Bench, name: str, batch_norm: bool, pool: int
) -> None:
    model = replace(CNN, batch_norm=batch_norm, pool=pool, activation="gelu")
    own = config(model, name)
    own = replace(own, optimizer=replace(own.optimizer, weight_decay=1e-2))
    population = bench.population()
    member = Member(4, own, seed=5)
    population.add([member, Member(1, config(MLP), 1), Member(8, config(NORMED), 2)])
    module = build_module(model, SHAPE, 10).double()
    module.load_state_dict(population.state(member), strict=False)
    bench.train(population, 2)

    losses = plain_loop(bench, module, own, 2)
    assert [r.train_loss for r in member.history.records] == pytest.approx(losses, rel=1e-9)
    loss, accuracy = scores(bench, module)
    assert member.history.records[-1].loss == pytest.approx(loss, rel=1e-9)
    assert member.history.records[-1].accuracy == pytest.approx(accuracy)
    state, expected = population.state(member), module.state_dict()
    for tensor in state:
        assert torch.allclose(state[tensor], expected[tensor], rtol=1e-8, atol=1e-10), tensor


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_the_loss_of_a_cnn(bench: Bench, name: str) -> None:
    own = config(NORMED, name, schedule=ScheduleConfig())
    population = bench.alone(Member(0, own, seed=1), bench.stream(), EPOCHS)
    first, *_, last = population.members[0].history.records
    assert last.train_loss < 0.8 * first.train_loss


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_network_in_numpy_trains_as_the_library_does(bench: Bench, name: str) -> None:
    own, seed = config(NUMPY, name), 2**40 + 5
    member = Member(4, own, seed)
    population = bench.alone(member, bench.stream(), EPOCHS)

    network = build_network(NUMPY, SHAPE, 10, seed=derive_seed(seed, 1), dtype=np.float64)
    for weight in network.state().values():  # a member begins with weights of float32
        weight[...] = weight.astype(np.float32)
    rule = SGD(1.0, 0.9) if name == "sgd" else Adam(1.0)
    losses = []
    for epoch in range(EPOCHS):
        total = 0.0
        for index in bench.stream().epoch(epoch):
            features, labels = bench.task.examples.batch(
                index, bench.task.normalization, torch.float64
            )
            factor = rate_factor(own.schedule, rule.steps, BATCHES, EPOCHS)
            rule.learning_rate = 1e-2 * factor
            images = features.view(-1, *SHAPE).numpy()
            total += network.train_step(images, labels.numpy(), rule, 0.1)
        losses.append(total / BATCHES)
    assert [r.train_loss for r in member.history.records] == pytest.approx(losses, rel=1e-9)
    for place, tensor in population.state(member).items():
        assert np.allclose(tensor.numpy(), network.state()[place], rtol=1e-9, atol=1e-12)
    assert losses[-1] < 0.8 * losses[0]


def test_neighbours_of_other_families_change_rounding_and_no_more(bench: Bench) -> None:
    together = bench.population()
    together.add(crowd())
    bench.train(together, 1)
    together.keep([member for member in together.members if member.key != 3])
    bench.train(together, 1)
    assert sorted(member.key for member in together.members) == [2, 5, 7, 9, 11]
    lonely = {member.key: member for member in crowd()}
    for member in together.members:
        alone = bench.alone(lonely[member.key], bench.stream(), 2)
        for mine, other in zip(
            member.history.records, alone.members[0].history.records, strict=True
        ):
            assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-9)
            assert (mine.loss, mine.accuracy) == pytest.approx((other.loss, other.accuracy))


def after(batches: int) -> Callable[[], bool]:
    """Stop when so many batches are trained on."""
    left = iter(range(batches))
    return lambda: next(left, None) is None


def through_bytes(snapshot: Snapshot) -> Snapshot:
    copied = Snapshot(json.loads(json.dumps(snapshot.facts)), load(save(snapshot.tensors)))
    copied.check()
    return copied


def facts_and_bits(population: Population) -> list[tuple[int, dict[str, Any], dict[str, bytes]]]:
    found = []
    for member in sorted(population.members, key=lambda member: member.key):
        snapshot = population.snapshot(member)
        facts = copy.deepcopy(snapshot.facts)
        for record in [facts, *facts["history"]]:
            record["seconds"] = 0.0
        bits = {name: tensor.numpy().tobytes() for name, tensor in snapshot.tensors.items()}
        found.append((member.key, facts, bits))
    return found


@pytest.mark.parametrize("batches", [BATCHES, BATCHES + 4], ids=["between", "amidst"])
@pytest.mark.parametrize(
    "members", [crowd, lambda: crowd()[2:3], lambda: crowd()[3:4]], ids=["all", "numpy", "cnn"]
)
def test_they_go_on_bit_for_bit(members: Callable[[], list[Member]], batches: int) -> None:
    bench = build_bench(torch.float32)

    def train(population: Population, stopping: Callable[[], bool] = lambda: False) -> None:
        while population.epoch < EPOCHS:
            population.run_epoch(bench.validation, stopping)

    never_stopped, population = bench.population(), bench.population()
    never_stopped.add(members())
    population.add(members())
    train(never_stopped)
    with pytest.raises(Stopped):
        train(population, after(batches))
    written = [
        (member.key, through_bytes(population.snapshot(member)))
        for member in reversed(population.members)
    ]
    first = written[0][1]
    resumed = Population(bench.task, bench.stream(), epoch=first.epoch, batch=first.batch)
    resumed.add([Member.restored(key, snapshot) for key, snapshot in written])
    train(resumed)
    assert facts_and_bits(resumed) == facts_and_bits(never_stopped)


@pytest.mark.parametrize("key", [2, 5, 7, 11])
def test_a_snapshot_whose_parts_do_not_fit_is_none(bench: Bench, key: int) -> None:
    population = bench.population()
    population.add(crowd())
    bench.train(population, 1)
    whole = population.snapshot(next(m for m in population.members if m.key == key))
    whole.check()
    for name in whole.tensors:
        without = {other: tensor for other, tensor in whole.tensors.items() if other != name}
        with pytest.raises(ValueError, match="no snapshot"):
            Snapshot(whole.facts, without).check()
        if name != "0.dropout":
            cut = {**whole.tensors, name: whole.tensors[name][:-1]}
            with pytest.raises(ValueError, match="no snapshot"):
                Snapshot(whole.facts, cut).check()
    foreign: list[dict[str, Any]] = [
        *({"channels": []}, {"channels": [4, 0]}, {"family": "rnn"}, {"kernel": "3"})
    ]
    for wrong in foreign:
        facts = copy.deepcopy(whole.facts)
        facts["config"]["model"].update(wrong)
        with pytest.raises(ValueError, match="no snapshot"):
            Snapshot(facts, whole.tensors).check()


@pytest.mark.filterwarnings("error")
def test_a_network_in_numpy_that_diverges_says_why(bench: Bench) -> None:
    wild = config(NUMPY, "sgd", optimizer=OptimizerConfig(name="sgd", lr=1e200))
    sick, well = Member(0, wild, seed=1), Member(1, config(NUMPY), seed=1)
    population = bench.population()
    population.add([sick, well])
    records = population.run_epoch(bench.validation)
    assert [record.diverged for record in records] == [True, False]
    assert "a learning rate that is too high" in sick.trouble
    assert "initialization he" in sick.trouble
    assert well.trouble == ""
    assert sick.history.best is None


def test_their_share_of_the_time_grows_with_their_size() -> None:
    def of(model: ModelConfig) -> float:
        return cost(config(model), (1, 28, 28), 10)

    larger = [replace(CNN, channels=(8, 6)), replace(CNN, kernel=5), replace(CNN, hidden=99)]
    assert all(of(model) > of(CNN) for model in larger)
    assert of(replace(CNN, pool=1)) > of(CNN)
    shape: dict[str, Any] = {"channels": (4, 6), "hidden": 10}
    assert of(NumpyCnnConfig(**shape)) > of(CnnConfig(**shape))
    assert of(MLP) > 0


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_rough_precision_is_near_the_fine_one(precision: torch.dtype) -> None:
    bench = build_bench(torch.float32)
    bench = replace(bench, task=replace(bench.task, precision=precision))
    population = bench.alone(Member(0, config(CNN), seed=3), bench.stream(), EPOCHS)
    exact = build_bench(torch.float64)
    finer = exact.alone(Member(0, config(CNN), seed=3), exact.stream(), EPOCHS)
    mine, other = (one.members[0].history.records[-1] for one in (population, finer))
    assert mine.train_loss == pytest.approx(other.train_loss, rel=0.05)
    assert all(t.dtype == torch.float32 for t in population.state(population.members[0]).values())
