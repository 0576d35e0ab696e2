"""A member that goes on from a snapshot is, to the last bit, the member that never stopped."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from hpo.config import MlpConfig, OptimizerConfig, ScheduleConfig, TrialConfig
from hpo.data.augment import build_augmentations
from hpo.training.optimizers import OPTIMIZERS
from hpo.training.population import Member, Population, Stopped
from hpo.training.snapshot import Snapshot
from hpo.training.streams import Stream

from .conftest import BATCH, Bench, build_bench

BATCHES = 6
EPOCHS = 4
BETWEEN, AMIDST = 2 * BATCHES, 2 * BATCHES + 4
"""After how many batches a run is interrupted: at the end of an epoch, and within the third."""


def config(name: str = "adam", *, norm: bool = False, **settings: Any) -> TrialConfig:
    momentum = 0.9 if name in ("sgd", "rmsprop") else 0.0
    model = MlpConfig(widths=(20, 12), activation="gelu", batch_norm=norm, dropout=0.2)
    made = TrialConfig(
        model=replace(model, **settings.pop("model", {})),
        optimizer=OptimizerConfig(name=name, lr=3e-3, weight_decay=1e-3, momentum=momentum),
        schedule=ScheduleConfig(name="cosine", warmup=0.3),
        batch_size=BATCH,
        epochs=EPOCHS,
        label_smoothing=0.1,
    )
    return replace(made, **settings)


def crowd() -> list[Member]:
    """Members of every optimizer and schedule; their keys are not in the order of joining."""
    configs = [
        config("sgd", model={"widths": (), "dropout": 0.0}),
        config("adamw", norm=True, schedule=ScheduleConfig(), patience=3, stopping_metric="loss"),
        config("rmsprop", model={"widths": (33,), "activation": "tanh"}),
        config("nadam", norm=True, schedule=ScheduleConfig(name="step", every=1)),
        config("adam", model={"widths": (8, 8, 8)}, label_smoothing=0.0),
        config("adam", model={"activation": "gelu", "dropout": 0.5}),
        config("adam", model={"input_batch_norm": True, "input_dropout": 0.3}),
        config("sgd", norm=True, model={"input_dropout": 0.3}),
    ]
    keys = (7, 3, 11, 5, 2, 9, 4, 8)
    return [Member(key, own, seed=2**62 + key) for key, own in zip(keys, configs, strict=True)]


def rough(precision: torch.dtype, *, augmented: bool = False) -> Bench:
    """A bench in float32 whose products have operands of that dtype."""
    bench = build_bench(torch.float32)
    steps: list[tuple[str, dict[str, Any]]] = [("random_crop", {"padding": 1}), ("rotation", {})]
    augmentations = build_augmentations(steps if augmented else [])
    return replace(
        bench, task=replace(bench.task, precision=precision, augmentations=augmentations)
    )


def after(batches: int) -> Callable[[], bool]:
    """Stop when so many batches are trained on."""
    left = iter(range(batches))
    return lambda: next(left, None) is None


def go_on(
    bench: Bench, population: Population, stopping: Callable[[], bool] = lambda: False
) -> None:
    while population.epoch < EPOCHS:
        population.run_epoch(bench.validation, stopping)


def through_bytes(snapshot: Snapshot) -> Snapshot:
    facts = json.loads(json.dumps(snapshot.facts))
    copied = Snapshot(facts, load(save(snapshot.tensors)))
    copied.check()
    return copied


def restart(
    bench: Bench, snapshots: Sequence[tuple[int, Snapshot]], *streams: Stream
) -> Population:
    """All of them in a new population, where they were."""
    first = snapshots[0][1]
    streams = streams or (bench.stream(),)
    population = Population(bench.task, *streams, epoch=first.epoch, batch=first.batch)
    population.add([Member.restored(key, snapshot) for key, snapshot in snapshots])
    return population


def written(population: Population) -> list[tuple[int, Snapshot]]:
    """Snapshots of all, in the order in which they joined last comes first."""
    return [
        (member.key, through_bytes(population.snapshot(member)))
        for member in reversed(population.members)
    ]


def facts_and_bits(population: Population) -> list[tuple[int, dict[str, Any], dict[str, bytes]]]:
    """All that its members are, ready to be compared; but for the seconds."""
    found = []
    for member in sorted(population.members, key=lambda member: member.key):
        snapshot = population.snapshot(member)
        facts = copy.deepcopy(snapshot.facts)
        for record in [facts, *facts["history"]]:
            record["seconds"] = 0.0
        bits = {name: tensor.numpy().tobytes() for name, tensor in snapshot.tensors.items()}
        found.append((member.key, facts, bits))
    return found


@pytest.mark.parametrize("batches", [BETWEEN, AMIDST], ids=["between", "amidst"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_alone_it_goes_on_bit_for_bit(
    name: str, norm: bool, precision: torch.dtype, batches: int
) -> None:
    bench = rough(precision)
    never_stopped = bench.population()
    never_stopped.add([Member(1, config(name, norm=norm), seed=11)])
    go_on(bench, never_stopped)

    population = bench.population()
    population.add([Member(1, config(name, norm=norm), seed=11)])
    with pytest.raises(Stopped):
        go_on(bench, population, after(batches))
    resumed = restart(bench, written(population))
    go_on(bench, resumed)

    assert facts_and_bits(resumed) == facts_and_bits(never_stopped)
    assert len(resumed.members[0].history.records) == EPOCHS


@pytest.mark.parametrize("batches", [BETWEEN, AMIDST], ids=["between", "amidst"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_several_go_on_together_bit_for_bit(precision: torch.dtype, batches: int) -> None:
    """In whatever order they come back, after others have joined late and left."""
    bench = rough(precision, augmented=True)

    def begin() -> Population:
        population = bench.population()
        members = crowd()
        population.add(members[3:])
        population.run_epoch(bench.validation)
        population.add(members[:3])
        population.keep([member for member in population.members if member.key != 5])
        return population

    never_stopped, population = begin(), begin()
    go_on(bench, never_stopped)
    with pytest.raises(Stopped):
        go_on(bench, population, after(batches - BATCHES))
    resumed = restart(bench, written(population))
    go_on(bench, resumed)

    assert facts_and_bits(resumed) == facts_and_bits(never_stopped)
    joined = {member.key: member.joined for member in resumed.members}
    assert joined == {2: 0, 4: 0, 8: 0, 9: 0, 7: 1, 3: 1, 11: 1}


def test_it_may_be_interrupted_time_and_again() -> None:
    bench = rough(torch.float32, augmented=True)
    never_stopped, population = bench.population(), bench.population()
    never_stopped.add(crowd())
    population.add(crowd())
    go_on(bench, never_stopped)
    places = []
    while population.epoch < EPOCHS:
        try:
            go_on(bench, population, after(population.batch + 5))
        except Stopped:
            population = restart(bench, written(population))
            places.append((population.epoch, population.batch))
    assert places == [(0, 5), (1, 4), (2, 3), (3, 2)]
    assert facts_and_bits(population) == facts_and_bits(never_stopped)


def test_a_stopped_population_goes_on_itself(bench: Bench) -> None:
    never_stopped, population = bench.population(), bench.population()
    never_stopped.add(crowd())
    population.add(crowd())
    go_on(bench, never_stopped)
    with pytest.raises(Stopped):
        go_on(bench, population, after(AMIDST))
    assert (population.epoch, population.batch) == (2, 4)
    with pytest.raises(Stopped):  # asked also where batches are passed over
        population.run_epoch(bench.validation, lambda: True)
    assert (population.epoch, population.batch) == (2, 4)
    go_on(bench, population)
    assert facts_and_bits(population) == facts_and_bits(never_stopped)


def test_each_finds_its_stream_again(bench: Bench) -> None:
    streams = [bench.stream(4), bench.stream(9), bench.stream(2)]

    def begin() -> Population:
        population = bench.population(*streams)
        population.add(
            [Member(key, config(norm=key > 1), key, stream=key % 3) for key in range(4)]
        )
        return population

    never_stopped, population = begin(), begin()
    go_on(bench, never_stopped)
    with pytest.raises(Stopped):
        go_on(bench, population, after(AMIDST))
    resumed = restart(bench, written(population), *streams)
    go_on(bench, resumed)
    assert facts_and_bits(resumed) == facts_and_bits(never_stopped)
    # The number counts, wherever among its streams a population has it.
    elsewhere = restart(bench, written(population), *reversed(streams))
    go_on(bench, elsewhere)
    for member in elsewhere.members:
        (same,) = (other for other in never_stopped.members if other.key == member.key)
        assert member.stream == 2 - same.stream
        assert member.history.value(member.history.records[-1]) == pytest.approx(
            same.history.value(same.history.records[-1])
        )
        for name, tensor in elsewhere.state(member).items():
            torch.testing.assert_close(tensor, never_stopped.state(same)[name])


def test_a_snapshot_says_where_it_was_taken(bench: Bench) -> None:
    population = bench.population(bench.stream(8), epoch=3)
    member = Member(1, config(), seed=11)
    population.add([member])
    fresh = population.snapshot(member)
    assert (fresh.stream, fresh.epoch, fresh.batch, fresh.epochs_done) == (8, 3, 0, 0)
    population.run_epoch(bench.validation)
    with pytest.raises(Stopped):
        population.run_epoch(bench.validation, after(5))
    snapshot = population.snapshot(member)
    assert (snapshot.stream, snapshot.epoch, snapshot.batch) == (8, 4, 5)
    assert (snapshot.epochs_done, snapshot.networks[0].steps) == (1, BATCHES + 5)
    assert snapshot.facts["joined"] == 3
    assert snapshot.config == member.config
    for one in (fresh, snapshot):
        one.check()
        json.dumps(one.facts, allow_nan=False)


def test_a_snapshot_is_a_copy(bench: Bench) -> None:
    population = bench.population()
    member = Member(1, config("nadam", norm=True), seed=11)
    population.add([member])
    population.run_epoch(bench.validation)
    snapshot = population.snapshot(member)
    before = through_bytes(snapshot)
    population.run_epoch(bench.validation)
    assert snapshot.facts == before.facts
    for name, tensor in before.tensors.items():
        assert torch.equal(snapshot.tensors[name], tensor)
        assert not torch.equal(population.snapshot(member).tensors[name], tensor)
    # Nor does a member that goes on from it change it.
    resumed = restart(bench, [(1, snapshot)])
    resumed.run_epoch(bench.validation)
    for name, tensor in before.tensors.items():
        assert torch.equal(snapshot.tensors[name], tensor)


def test_nothing_of_a_snapshot_lives_on_in_those_who_took_it_up(bench: Bench) -> None:
    population = bench.population()
    population.add(crowd())
    snapshots = [population.snapshot(member) for member in population.members]
    members = [Member.restored(key, snapshot) for key, snapshot in enumerate(snapshots)]
    tensors = [weakref.ref(tensor) for one in snapshots for tensor in one.tensors.values()]
    again = bench.population()
    again.add(members)
    del snapshots
    gc.collect()
    assert tensors
    assert all(tensor() is None for tensor in tensors)
    assert all(member.snapshot is None for member in members)
    generators = [weakref.ref(one) for one in again._generators.values()]
    again.keep([])
    gc.collect()
    assert len(generators) == 8
    assert all(one() is None for one in generators)


def test_seconds_of_an_interrupted_epoch_add_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 13.0, 20.0, 24.0, 30.0, 31.0])
    monkeypatch.setattr("hpo.training.population.time.perf_counter", lambda: next(clock))
    population = bench.population()
    population.add([Member(1, config(), 11)])
    with pytest.raises(Stopped):
        population.run_epoch(bench.validation, after(2))
    assert written(population)[0][1].facts["seconds"] == pytest.approx(3.0)
    resumed = restart(bench, written(population))
    resumed.run_epoch(bench.validation)
    resumed.run_epoch(bench.validation)
    seconds = [record.seconds for record in resumed.members[0].history.records]
    assert seconds == pytest.approx([7.0, 1.0])


def test_it_joins_only_where_it_was_taken(bench: Bench) -> None:
    population = bench.population()
    population.add([Member(1, config(), 11)])
    with pytest.raises(Stopped):
        population.run_epoch(bench.validation, after(3))
    snapshot = population.snapshot(population.members[0])
    for epoch, batch in ((0, 0), (0, 2), (1, 3)):
        elsewhere = Population(bench.task, bench.stream(), epoch=epoch, batch=batch)
        with pytest.raises(AssertionError, match=r"taken at \(0, 3\)"):
            elsewhere.add([Member.restored(1, snapshot)])
    with pytest.raises(AssertionError, match="end of an epoch"):
        population.add([Member(2, config(), 12)])
    with pytest.raises(ValueError):
        Population(bench.task, bench.stream(5), batch=3).add([Member.restored(1, snapshot)])
    single = replace(bench.task, dtype=torch.float32)
    with pytest.raises(AssertionError, match="taken of"):
        Population(single, bench.stream(), batch=3).add([Member.restored(1, snapshot)])
    with pytest.raises(AssertionError):
        Population(bench.task, bench.stream(), batch=BATCHES)


def test_no_snapshot_is_taken_of_what_an_exception_has_left(bench: Bench) -> None:
    def fail() -> bool:
        raise MemoryError

    population = bench.population()
    member = Member(1, config(), 11)
    population.add([member])
    with pytest.raises(MemoryError):
        population.run_epoch(bench.validation, fail)
    with pytest.raises(AssertionError, match="half done"):
        population.snapshot(member)

    population = bench.population()
    population.add([Member(1, config(), 11)])
    with pytest.raises(IndexError):
        population.run_epoch(torch.tensor([10_000]))  # trained, but not scored
    with pytest.raises(AssertionError, match="half done"):
        population.snapshot(population.members[0])


def test_masks_from_another_kind_of_device_are_drawn_anew(bench: Bench) -> None:
    population = bench.population()
    population.add([Member(1, config(model={"dropout": 0.5}), 11)])
    population.run_epoch(bench.validation)
    snapshot = population.snapshot(population.members[0])
    foreign = replace(
        snapshot, tensors={**snapshot.tensors, "0.dropout": torch.zeros(16, dtype=torch.uint8)}
    )
    foreign.check()
    runs = [restart(bench, [(1, one)]) for one in (foreign, foreign, snapshot)]
    losses = [run.run_epoch(bench.validation)[0].train_loss for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == pytest.approx(losses[2], rel=0.2)


# What is no snapshot


def good(bench: Bench, name: str = "nadam") -> Snapshot:
    population = bench.population()
    population.add([Member(1, config(name, norm=True, patience=3), 11)])
    population.run_epoch(bench.validation)
    return through_bytes(population.snapshot(population.members[0]))


def paths(data: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value in nested data."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (key,)
            yield from ((key, *path) for path in paths(value))


def put(data: Any, path: tuple[Any, ...], value: object) -> Any:
    """A copy with another value there, or with none."""
    data = copy.deepcopy(data)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


MISSING = object()


def test_facts_of_another_kind_are_refused(bench: Bench) -> None:
    snapshot = good(bench)
    snapshot.check()
    whole = list(paths(snapshot.facts))
    assert len(whole) > 40
    for path in whole:
        wrongs: list[object] = [
            {"a": 1},
            [None],
            *([MISSING] if isinstance(path[-1], str) else []),
        ]
        for wrong in wrongs:
            with pytest.raises(ValueError, match="snapshot"):
                Snapshot(put(snapshot.facts, path, wrong), snapshot.tensors).check()
    others: list[Any] = [None, [], "x", {}, {**snapshot.facts, "more": 1}]
    for facts in others:
        with pytest.raises(ValueError, match="snapshot"):
            Snapshot(facts, snapshot.tensors).check()


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("epoch",), -1),
        (("batch",), -1),
        (("joined",), 2),
        (("seed",), -5),
        (("stream",), 1.0),
        (("batch",), True),
        (("seconds",), None),
        (("networks", 0, "loss"), "nan"),
        (("networks",), []),
        (("networks", 0, "optimizer", "steps"), -1),
        (("config", "model", "widths"), [20]),
        (("config", "model", "widths"), [20, -12]),
        (("config", "model", "widths"), [20, 10**12]),
        (("config", "model", "batch_norm"), False),
        (("config", "model", "activation"), "__class__"),
        (("config", "optimizer", "name"), "sgd"),
        (("config", "stopping_metric"), "speed"),
        (("metric",), "speed"),
        (("history", 0, "epoch"), 2),
    ],
    ids=str,
)
def test_facts_that_cannot_be_are_refused(
    bench: Bench, path: tuple[Any, ...], wrong: object
) -> None:
    snapshot = good(bench)
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot(put(snapshot.facts, path, wrong), snapshot.tensors).check()


def test_tensors_that_do_not_fit_are_refused(bench: Bench) -> None:
    snapshot = good(bench)
    for name, tensor in snapshot.tensors.items():
        others = {other: one for other, one in snapshot.tensors.items() if other != name}
        wrongs = [tensor[None], tensor.to(torch.int16)]
        if name != "0.dropout":  # there the length is the generator's to say
            wrongs += [tensor[:-1], tensor.float()]
        for tensors in (others, *({**others, name: wrong} for wrong in wrongs)):
            with pytest.raises(ValueError, match="snapshot"):
                Snapshot(snapshot.facts, tensors).check()
    more = {**snapshot.tensors, "0.model.layers.9.linear.weight": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot(snapshot.facts, more).check()
