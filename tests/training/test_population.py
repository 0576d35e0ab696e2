"""The promise: what becomes of a member does not depend on who trains beside it."""

from __future__ import annotations

import contextlib
import gc
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.config import MlpConfig, OptimizerConfig, ScheduleConfig, TrialConfig
from hpo.data.tensors import ImageTensors
from hpo.models.activations import ACTIVATIONS
from hpo.models.alone import build_module
from hpo.training.optimizers import OPTIMIZERS, Optimizer
from hpo.training.population import Member, Population, Stopped
from hpo.training.schedules import rate_factor
from hpo.training.streams import Stream

from .conftest import BATCH, Bench

RATES = {"sgd": 0.1, "adam": 3e-3, "adamw": 3e-3, "nadam": 3e-3, "rmsprop": 1e-3}


def optimizer(name: str, **settings: float) -> OptimizerConfig:
    if name == "sgd":
        settings = {"momentum": 0.9, **settings}
    return replace(OptimizerConfig(name=name, lr=RATES[name], weight_decay=1e-3), **settings)  # type: ignore[arg-type]


def config(
    name: str = "adam",
    activation: str = "relu",
    batch_norm: bool = False,
    widths: tuple[int, ...] = (20, 12),
    dropout: float = 0.2,
    **settings: object,
) -> TrialConfig:
    model = MlpConfig(widths=widths, activation=activation, batch_norm=batch_norm, dropout=dropout)
    made = TrialConfig(
        model=model,
        optimizer=optimizer(name),
        schedule=ScheduleConfig(name="cosine", warmup=0.2),
        batch_size=BATCH,
        epochs=6,
        label_smoothing=0.1,
    )
    return replace(made, **settings)  # type: ignore[arg-type]


def prepared(own: TrialConfig) -> TrialConfig:
    """One that normalises its inputs and drops some of them."""
    assert isinstance(own.model, MlpConfig)
    return replace(own, model=replace(own.model, input_batch_norm=True, input_dropout=0.3))


def company(first: int) -> list[Member]:
    """Members that have nothing in common but their batches."""
    configs = [
        config("sgd", widths=(), dropout=0.0),
        config("adamw", "gelu", True, (16, 16, 16), 0.5, schedule=ScheduleConfig()),
        config("rmsprop", "tanh", False, (33,), 0.0, label_smoothing=0.0),
        config("nadam", "relu", True, (9, 30), 0.1),
        prepared(config("adam", "relu", False, (14,), 0.2)),
        config("adam", "selu", False, (8, 8), 0.3, schedule=ScheduleConfig(name="step", every=1)),
    ]
    return [Member(first + i, own, seed=first + i) for i, own in enumerate(configs)]


def train_in_company(bench: Bench, member: Member) -> Population:
    """Three epochs of a member, from the stream's second on, while others come and go."""
    early, late = company(100), company(200)
    population = bench.population()
    population.add(early)
    bench.train(population, 1)
    population.add([member, late[0]])
    bench.train(population, 1)
    population.keep([member, early[1], early[3], late[0]])
    population.add(late[1:3])
    bench.train(population, 1)
    population.keep([member, late[2]])
    population.add([*late[3:], Member(300, member.config, seed=300)])
    bench.train(population, 1)
    return population


def assert_same(
    found: tuple[Population, Member],
    expected: tuple[Population, Member],
    rtol: float = 1e-9,
    atol: float = 1e-9,
) -> None:
    states = [population.state(member) for population, member in (found, expected)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close({name: tensor}, {name: states[1][name]}, rtol=rtol, atol=atol)
    for one, other in zip(found[1].history.records, expected[1].history.records, strict=True):
        assert one.epoch == other.epoch
        assert one.train_loss == pytest.approx(other.train_loss, rel=rtol, abs=atol)
        assert one.loss == pytest.approx(other.loss, rel=rtol, abs=atol)
        assert one.scores == pytest.approx(other.scores, rel=rtol, abs=atol)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_member_alone_is_the_member_in_company(
    bench: Bench, name: str, activation: str, batch_norm: bool
) -> None:
    own = config(name, activation, batch_norm)
    mixed, alone = Member(1, own, seed=11), Member(1, own, seed=11)
    together = train_in_company(bench, mixed)
    by_itself = bench.alone(alone, bench.stream(), epochs=3, joined=1)
    assert mixed.joined == alone.joined == 1
    assert len(mixed.history.records) == 3
    assert_same((together, mixed), (by_itself, alone))
    assert mixed.history.records[-1].train_loss < mixed.history.records[0].train_loss


@pytest.mark.parametrize("widths", [(), (20, 12)], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
def test_so_it_is_with_prepared_inputs(
    bench: Bench, batch_norm: bool, dropout: float, widths: tuple[int, ...]
) -> None:
    model = MlpConfig(widths=widths, input_batch_norm=batch_norm, input_dropout=dropout)
    own = config(model=model)
    mixed, alone = Member(1, own, seed=11), Member(1, own, seed=11)
    together = train_in_company(bench, mixed)
    by_itself = bench.alone(alone, bench.stream(), epochs=3, joined=1)
    assert_same((together, mixed), (by_itself, alone))


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_so_it_is_in_float32(
    make_bench: Callable[[torch.dtype], Bench], name: str, batch_norm: bool
) -> None:
    bench = make_bench(torch.float32)
    own = config(name, "gelu", batch_norm)
    mixed, alone = Member(1, own, seed=11), Member(1, own, seed=11)
    train_in_company(bench, mixed)
    bench.alone(alone, bench.stream(), epochs=3, joined=1)
    for one, other in zip(mixed.history.records, alone.history.records, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        # Under batch norm a pixel that never changes has a gradient of rounding errors, which
        # Adam scales up to whole steps; a batch's own mean cancels them, the running one lags.
        assert one.loss == pytest.approx(other.loss, rel=1e-2 if batch_norm else 1e-4)
        assert one.scores == pytest.approx(other.scores, abs=0.013)  # one row of 80


def test_where_a_member_joined_matters_and_is_recorded(bench: Bench) -> None:
    first, later = Member(1, config(), seed=11), Member(1, config(), seed=11)
    bench.alone(first, bench.stream(), epochs=1)
    bench.alone(later, bench.stream(), epochs=1, joined=3)
    assert (first.joined, later.joined) == (0, 3)
    assert first.history.records[0].train_loss != later.history.records[0].train_loss


def test_a_seed_decides_the_first_weights_and_the_masks(bench: Bench) -> None:
    members = [Member(key, config(dropout=0.5), seed) for key, seed in enumerate((11, 11, 12))]
    population = bench.population()
    population.add(members)
    bench.train(population, 2)
    losses = [member.history.records[-1].train_loss for member in members]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
def test_a_member_on_one_of_several_streams_is_that_member_alone_on_it(
    bench: Bench, batch_norm: bool
) -> None:
    streams = [
        bench.stream(0),
        Stream(torch.arange(40, 300), BATCH, seed=7, number=1),  # five batches, not six
        bench.stream(2),
    ]
    population = bench.population(*streams)
    members = [
        Member(key, config("adam", "silu", batch_norm, widths), seed=key, stream=stream)
        for key, (stream, widths) in enumerate(
            [(1, (20, 12)), (0, (7,)), (2, ()), (1, (15,)), (0, (10, 10, 10))]
        )
    ]
    population.add(members)
    bench.train(population, 1)
    population.keep([member for member in members if member.key != 1])
    bench.train(population, 2)
    assert population.batches == 5
    for member in population.members:
        alone = Member(member.key, member.config, member.seed)
        # The shortest stream sets the pace, so it has to be there, though nobody reads it.
        expected = bench.population(streams[member.stream], streams[1])
        expected.add([alone])
        bench.train(expected, 3)
        assert_same((population, member), (expected, alone))
        if member.stream == 1:
            same = Member(member.key, member.config, member.seed)
            assert_same((bench.alone(same, streams[1], 3), same), (expected, alone))


def test_a_diverged_member_leaves_its_neighbours_alone(
    make_bench: Callable[[torch.dtype], Bench],
) -> None:
    bench = make_bench(torch.float32)
    sick_config = config("sgd", "relu", False, (20, 12))
    wild = replace(sick_config.optimizer, lr=1e30)

    def run(own: TrialConfig) -> list[Member]:
        members = [*company(0), Member(50, own, seed=50), *company(100)]
        population = bench.population()
        population.add(members)
        bench.train(population, 2)
        return members

    with_sick, healthy = run(replace(sick_config, optimizer=wild)), run(sick_config)
    for one, other in zip(with_sick, healthy, strict=True):
        if one.key == 50:
            assert one.history.records[0].diverged
            assert one.history.best is None
            assert not other.history.records[0].diverged
        else:
            for a, b in zip(one.history.records, other.history.records, strict=True):
                assert replace(a, seconds=0) == replace(b, seconds=0)  # to the last bit


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
def test_a_learning_rate_beyond_reason_is_reported_within_an_epoch(
    make_bench: Callable[[torch.dtype], Bench], name: str, batch_norm: bool
) -> None:
    bench = make_bench(torch.float32)
    own = config(name, batch_norm=batch_norm, schedule=ScheduleConfig())
    own = replace(own, optimizer=replace(own.optimizer, lr=1e30))
    member = Member(1, own, seed=1)
    bench.alone(member, bench.stream(), epochs=1)
    assert member.history.records[0].diverged


def test_everybody_may_leave_and_others_join(bench: Bench) -> None:
    population = bench.population()
    population.add(company(0))
    bench.train(population, 1)
    population.keep([])
    assert len(population) == 0
    assert population.members == []
    member = Member(1, config(), seed=11)
    population.add([member])
    bench.train(population, 2)
    assert member.joined == 1
    alone = Member(1, config(), seed=11)
    expected = bench.alone(alone, bench.stream(), epochs=2, joined=1)
    assert_same((population, member), (expected, alone), rtol=0, atol=0)


def test_who_could_not_be_laid_out_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[Optimizer] = []
    bind = Optimizer.bind

    def cramped(self: Optimizer, *tensors: Sequence[Tensor]) -> None:
        bound.append(self)
        if len(bound) == 2:
            raise MemoryError
        bind(self, *tensors)

    monkeypatch.setattr(Optimizer, "bind", cramped)
    population = bench.population()
    members = company(0)
    networks = [weakref.ref(network) for member in members for network in member.networks]
    with contextlib.suppress(MemoryError):
        population.add(members)
    assert len(bound) == 2
    population.keep(())
    bound.clear()
    members.clear()
    gc.collect()
    assert {reference() for reference in networks} == {None}


def test_a_stream_that_nobody_reads_any_more_is_not_drawn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    population = bench.population(*map(bench.stream, range(3)))
    members = [Member(key, config("adam"), seed=key, stream=key) for key in range(3)]
    population.add(members)
    drawn = []
    batch = ImageTensors.batch

    def noted(self: ImageTensors, index: Tensor, *rest: Any) -> Any:
        drawn.append(index)
        return batch(self, index, *rest)

    monkeypatch.setattr(ImageTensors, "batch", noted)
    population.train_epoch()
    everybody = len(drawn)
    drawn.clear()
    population.keep(members[2:])
    population.train_epoch()
    assert 3 * len(drawn) == everybody
    # Rows of each stream, as folds have them: those of the others are not drawn either.
    own, others = bench.validation, bench.validation[:7]
    scores = population.evaluate([others, others, own])
    torch.testing.assert_close(scores, population.evaluate(own))


def test_keeping_and_adding_nobody_changes_nothing(bench: Bench) -> None:
    population = bench.population()
    members = company(0)
    population.add(members)
    order = list(population.members)
    population.keep(members)
    population.add([])
    assert population.members == order
    assert population.epoch == 0


def test_a_run_epoch_fills_the_histories(bench: Bench) -> None:
    population = bench.population()
    members = company(0)
    population.add(members)
    records = population.run_epoch(bench.validation)
    assert population.epoch == 1
    assert population.batches == 6
    latecomer = Member(9, config(), seed=9)
    population.add([latecomer])
    records += population.run_epoch(bench.validation)
    assert [record.epoch for record in latecomer.history.records] == [1]
    assert latecomer.joined == 1
    for member in members:
        assert [record.epoch for record in member.history.records] == [1, 2]
        assert member.networks[0].optimizer.steps == 12
        assert all(record in records for record in member.history.records)
    # Records come in the order of `members`, whatever that is.
    for member, record in zip(population.members, records[len(members) :], strict=True):
        assert member.history.records[-1] is record


def test_seconds_are_shared_out_by_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 13.0, 20.0, 24.0])
    monkeypatch.setattr("hpo.training.population.time.perf_counter", lambda: next(clock))
    small = Member(0, config(widths=(4,)), 0)
    large = Member(1, config(widths=(200, 100)), 1)
    population = bench.population()
    population.add([small, large])
    bench.train(population, 2)
    spent = small.history.train_seconds, large.history.train_seconds
    assert sum(spent) == pytest.approx(7.0)
    assert 0 < spent[0] < spent[1] / 20
    assert sum(population.shares()) == pytest.approx(1)
    [share] = [
        own for own, m in zip(population.shares(), population.members, strict=True) if m is small
    ]
    assert share * 7.0 == pytest.approx(spent[0])


def test_stopping_is_asked_before_every_batch(bench: Bench) -> None:
    population = bench.population()
    member = Member(0, config(), 0)
    population.add([member])
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    with pytest.raises(Stopped):
        population.run_epoch(bench.validation, stopping)
    assert asked == 5
    assert member.networks[0].optimizer.steps == 4
    assert member.history.records == []
    assert population.epoch == 0


def test_members_of_another_batch_size_are_refused(bench: Bench) -> None:
    with pytest.raises(AssertionError):
        bench.population().add([Member(0, config(batch_size=BATCH + 1), 0)])


# Against a loop of plain torch


def torch_optimizer(module: nn.Module, own: OptimizerConfig) -> torch.optim.Optimizer:
    parameters, decay = list(module.parameters()), own.weight_decay
    if own.name == "sgd":
        return torch.optim.SGD(
            parameters, own.lr, own.momentum, weight_decay=decay, nesterov=own.nesterov
        )
    if own.name == "rmsprop":
        return torch.optim.RMSprop(parameters, own.lr, weight_decay=decay)
    if own.name == "nadam":
        return torch.optim.NAdam(parameters, own.lr, weight_decay=decay)
    kind = torch.optim.AdamW if own.name == "adamw" else torch.optim.Adam
    return kind(parameters, own.lr, weight_decay=decay)


def plain_loop(bench: Bench, module: nn.Module, own: TrialConfig) -> list[float]:
    """Two epochs as anybody would write them; returns the mean training losses."""
    assert isinstance(bench.task.examples, ImageTensors)
    optimizer = torch_optimizer(module, own.optimizer)
    stream, losses, step = bench.stream(), [], 0
    for epoch in range(2):
        total = 0.0
        for index in stream.epoch(epoch):
            images = bench.task.examples.images[index].float()
            mean, std = bench.task.normalization.mean, bench.task.normalization.std
            features = ((images - mean) / std).flatten(1).double()
            factor = rate_factor(own.schedule, step, stream.batches, own.epochs)
            optimizer.param_groups[0]["lr"] = own.optimizer.lr * factor
            loss = functional.cross_entropy(
                module(features),
                bench.task.examples.labels[index],
                label_smoothing=own.label_smoothing,
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.item()
            step += 1
        losses.append(total / stream.batches)
    return losses


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_two_epochs_are_those_of_a_plain_torch_loop(
    bench: Bench, name: str, batch_norm: bool
) -> None:
    own = config(name, "silu", batch_norm, (24, 16), dropout=0.0)
    member = Member(0, own, seed=5)
    population = bench.population()
    population.add([member, *company(10)])
    module = build_module(own.model, (1, 8, 8), 10).double()
    module.load_state_dict(population.state(member), strict=False)
    bench.train(population, 2)

    losses = plain_loop(bench, module, own)

    assert [r.train_loss for r in member.history.records] == pytest.approx(losses, rel=1e-9)
    expected = module.state_dict()
    for tensor_name, tensor in population.state(member).items():
        torch.testing.assert_close(tensor, expected[tensor_name], rtol=1e-8, atol=1e-9)
    assert_scores(bench, member, module)


@torch.no_grad()
def assert_scores(bench: Bench, member: Member, module: nn.Module) -> None:
    features, labels = bench.task.examples.batch(
        bench.validation, bench.task.normalization, torch.float64
    )
    logits: Tensor = module.eval()(features)
    last = member.history.records[-1]
    assert last.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-8)
    assert last.scores["accuracy"] == (logits.argmax(1) == labels).double().mean().item()


def test_scores_do_not_depend_on_how_many_rows_go_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    population = bench.population()
    population.add(company(0))
    bench.train(population, 1)
    at_once = population.evaluate(bench.validation)
    monkeypatch.setattr("hpo.training.population.EVALUATION_ROWS", 7)
    monkeypatch.setattr("hpo.training.population._FEW_ROWS", 1)
    torch.testing.assert_close(population.evaluate(bench.validation), dict(at_once))
    assert at_once.keys() == {"loss", "accuracy"}
    assert all(math.isfinite(loss) for loss in at_once["loss"].tolist())


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "norm"])
def test_training_in_bfloat16_follows_float32(
    make_bench: Callable[[torch.dtype], Bench], batch_norm: bool
) -> None:
    exact = make_bench(torch.float32)
    rough = replace(exact, task=replace(exact.task, precision=torch.bfloat16))
    own = config("adam", "gelu", batch_norm, (64, 32), dropout=0.1)
    histories = []
    for bench in (exact, rough):
        member = Member(1, own, seed=11)
        bench.alone(member, bench.stream(), epochs=6)
        histories.append([record.train_loss for record in member.history.records])
    assert histories[0] != histories[1]
    assert histories[1] == pytest.approx(histories[0], rel=0.05)
    assert histories[1][-1] < 0.7 * histories[1][0]
