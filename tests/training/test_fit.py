"""The loop, with crews that say who trains: who joins, who leaves and why, who hears it when."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.errors import FileError, HpoError, StorageError, TrainingError
from hpo.training.fit import Ending, fit
from hpo.training.history import EpochRecord
from hpo.training.mishaps import Mishap
from hpo.training.population import Member, Population, Stopped

from .conftest import BATCH, Bench

CONFIG = TrialConfig(
    model=MlpConfig(widths=(12,)),
    optimizer=OptimizerConfig(name="adam", lr=1e-3),
    batch_size=BATCH,
    epochs=4,
)


def member(key: int, **settings: object) -> Member:
    return Member(key, replace(CONFIG, **settings), seed=key)  # type: ignore[arg-type]


@dataclass
class Crew:
    """Sends a list of members at each round, and writes down what it hears."""

    rounds: list[list[tuple[Population, list[Member]]]]
    prune_at: dict[int, int] = field(default_factory=dict)
    running: list[list[int]] = field(default_factory=list)
    heard: list[tuple[str, int]] = field(default_factory=list)
    endings: dict[int, Ending] = field(default_factory=dict)
    mishaps: list[tuple[list[int], Mishap]] = field(default_factory=list)
    rests: list[list[int]] = field(default_factory=list)
    leaving: list[int] | None = None

    def admit(self, running: Sequence[Member]) -> Iterator[tuple[Population, list[Member]]]:
        self.running.append(sorted(one.key for one in running))
        yield from self.rounds.pop(0) if self.rounds else []

    def report(self, member: Member, record: EpochRecord) -> None:
        assert member.history.records[-1] is record
        self.heard.append(("report", member.key))

    def prunes(self, member: Member) -> bool:
        self.heard.append(("prunes", member.key))
        return self.prune_at.get(member.key) == len(member.history.records)

    def ended(self, population: Population, member: Member, ending: Ending) -> None:
        assert member in population.members
        assert all(t.numel() for t in population.state(member).values())  # can still be read
        assert member.key not in self.endings
        self.endings[member.key] = ending

    def failed(self, members: Sequence[Member], mishap: Mishap) -> None:
        self.mishaps.append((sorted(member.key for member in members), mishap))

    def rested(self, populations: Sequence[Population]) -> None:
        self.rests.append(sorted(m.key for population in populations for m in population.members))

    def left(self, populations: Sequence[Population]) -> None:
        self.leaving = [m.key for population in populations for m in population.members]


def test_everybody_trains_to_the_end_of_its_own_epochs(bench: Bench) -> None:
    population = bench.population()
    members = [member(3), member(1, epochs=2), member(2, epochs=1)]
    crew = Crew([[(population, members)]])
    fit(crew, bench.validation)
    assert crew.endings == dict.fromkeys((1, 2, 3), Ending.FINISHED)
    assert [len(one.history.records) for one in members] == [4, 2, 1]
    assert crew.running == [[], [1, 3], [3], [3], []]
    assert len(population) == 0


def test_reports_come_by_key_and_before_anybody_is_judged(bench: Bench) -> None:
    # Batch norm lies first in a population, so keys 5 and 2 change places there.
    normed = MlpConfig(widths=(6,), batch_norm=True)
    members = [member(2), member(9, epochs=1), member(5, model=normed), member(7)]
    crew = Crew([[(bench.population(), members)]])
    fit(crew, bench.validation)
    assert crew.heard[:7] == [
        *(("report", key) for key in (2, 5, 7, 9)),
        *(("prunes", key) for key in (2, 5, 7)),  # who is done is not judged
    ]


def test_pruned_members_leave_and_others_take_their_places(bench: Bench) -> None:
    population = bench.population()
    first, second, late = member(0), member(1), member(2, epochs=2)
    crew = Crew([[(population, [first, second])], [(population, [late])]], prune_at={1: 1})
    fit(crew, bench.validation)
    assert crew.endings == {1: Ending.PRUNED, 2: Ending.FINISHED, 0: Ending.FINISHED}
    assert len(second.history.records) == 1
    assert (first.joined, late.joined) == (0, 1)
    assert crew.running == [[], [0], [0, 2], [0], []]


def test_a_member_that_gets_no_better_stalls(bench: Bench) -> None:
    still = replace(CONFIG.optimizer, lr=0.0)
    stuck = member(0, optimizer=still, epochs=50, patience=3)
    patient = member(1, optimizer=still, epochs=6, patience=None)
    crew = Crew([[(bench.population(), [stuck, patient])]])
    fit(crew, bench.validation)
    assert crew.endings == {0: Ending.STALLED, 1: Ending.FINISHED}
    assert len(stuck.history.records) == 4
    assert stuck.history.best is not None
    assert stuck.history.best.epoch == 1
    assert len(patient.history.records) == 6


def test_a_diverged_member_ends_at_once_and_is_not_judged(
    make_bench: Callable[[torch.dtype], Bench],
) -> None:
    bench = make_bench(torch.float32)
    wild = OptimizerConfig(name="sgd", lr=1e30)
    sick = member(0, optimizer=wild, model=MlpConfig(widths=(12, 12)), epochs=1)
    well = member(1)
    crew = Crew([[(bench.population(), [sick, well])]], prune_at={0: 1})
    fit(crew, bench.validation)
    assert crew.endings == {0: Ending.DIVERGED, 1: Ending.FINISHED}
    assert crew.heard[:2] == [("report", 0), ("report", 1)]
    assert ("prunes", 0) not in crew.heard
    assert len(sick.history.records) == 1


def test_populations_on_different_streams_train_in_turns(bench: Bench) -> None:
    large, small = bench.population(), bench.population(bench.stream(1, batch_size=20))
    crew = Crew(
        [
            [(large, [member(0)]), (small, [member(1, batch_size=20)])],
            [(large, [member(2, epochs=1)])],
            [],
            [],
            [(small, [member(3, batch_size=20, epochs=1)])],
        ]
    )
    fit(crew, bench.validation)
    assert set(crew.endings) == {0, 1, 2, 3}
    assert (large.epoch, small.epoch) == (4, 5)  # a population comes back when it has somebody
    assert [key for what, key in crew.heard if what == "report"] == [
        *(0, 1),
        *(0, 2, 1),
        *(0, 1),
        *(0, 1),
        3,
    ]


def test_a_crew_that_joins_members_one_by_one_gives_the_same(bench: Bench) -> None:
    def run(grouped: bool) -> list[list[EpochRecord]]:
        population = bench.population()
        members = [member(key, epochs=2) for key in range(4)]
        pairs = [(population, members)] if grouped else [(population, [one]) for one in members]
        fit(Crew([pairs]), bench.validation)
        return [[replace(r, seconds=0) for r in one.history.records] for one in members]

    assert run(grouped=True) == run(grouped=False)


def test_a_crew_with_nobody_is_done_at_once(bench: Bench) -> None:
    crew = Crew([])
    fit(crew, bench.validation)
    assert crew.running == [[]]
    assert crew.heard == []


def test_a_stop_leaves_at_the_next_batch(bench: Bench) -> None:
    one = member(0)
    crew = Crew([[(bench.population(), [one])]])
    with pytest.raises(Stopped):
        fit(crew, bench.validation, stopping=lambda: one.networks[0].optimizer.steps == 8)
    assert one.networks[0].optimizer.steps == 8
    assert len(one.history.records) == 1
    assert crew.endings == {}
    assert crew.leaving == [0]  # it can still be read, as it is


@pytest.mark.parametrize("error", [StorageError("it is away"), FileError("it is full")])
def test_what_goes_wrong_with_asking_for_a_stop_is_nobodys_mishap(
    bench: Bench, error: HpoError
) -> None:
    one = member(0)

    def stopping() -> bool:
        if one.networks[0].optimizer.steps == 8:
            raise error
        return False

    crew = Crew([[(bench.population(), [one])]])
    with pytest.raises(type(error), match="it is"):
        fit(crew, bench.validation, stopping)
    assert crew.mishaps == []
    assert crew.leaving == [0]


class Breaking(Population):
    """Raises an error at one epoch, or as soon as a certain member joins."""

    def __init__(self, bench: Bench, error: Exception, epoch: int = -1, key: int = -1) -> None:
        super().__init__(bench.task, bench.stream())
        self.error, self.at_epoch, self.at_key = error, epoch, key

    def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
        if self.epoch == self.at_epoch:
            raise self.error
        return super().train_epoch(stopping)

    def add(self, members: Collection[Member]) -> None:
        super().add(members)
        if any(one.key == self.at_key for one in members):
            raise self.error


NO_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no\nmore"), "ValueError: no"),
        (KeyError(), "KeyError"),
        *((error, "out of memory") for error in NO_MEMORY),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_population_that_breaks_is_lost_and_the_others_go_on(
    bench: Bench, error: Exception, reason: str
) -> None:
    broken = Breaking(bench, error, epoch=1)
    crew = Crew([[(broken, [member(0), member(1)]), (bench.population(), [member(2)])]])
    fit(crew, bench.validation)
    assert crew.mishaps == [([0, 1], Mishap(reason, memory=reason == "out of memory"))]
    assert crew.endings == {2: Ending.FINISHED}
    assert len(broken) == 0
    assert crew.rests[:2] == [[0, 1, 2], [2]]


def test_who_breaks_a_population_by_joining_takes_it_along(bench: Bench) -> None:
    broken = Breaking(bench, MemoryError(), key=1)
    crew = Crew([[(broken, [member(0)])], [(broken, [member(1)])], [(broken, [member(2)])]])
    fit(crew, bench.validation)
    assert [keys for keys, _ in crew.mishaps] == [[0, 1]]
    assert crew.endings == {2: Ending.FINISHED}


def test_who_stays_is_lost_where_there_is_no_memory_to_lay_them_out_anew(bench: Bench) -> None:
    class Cramped(Population):
        def keep(self, staying: Collection[Member]) -> None:
            if len(staying) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            super().keep(staying)

    cramped = Cramped(bench.task, bench.stream())
    crew = Crew([[(cramped, [member(0, epochs=1), member(1)]), (bench.population(), [member(2)])]])
    fit(crew, bench.validation)
    assert crew.endings == {0: Ending.FINISHED, 2: Ending.FINISHED}
    assert crew.mishaps == [([1], Mishap("out of memory", memory=True))]
    assert len(cramped) == 0


def test_what_a_broken_population_held_is_free_again(bench: Bench) -> None:
    held = []

    class Holding(Population):
        def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
            assert not stopping()
            large = torch.zeros(1000)  # in a frame that the traceback would keep
            held.append(weakref.ref(large))
            raise MemoryError

    fit(Crew([[(Holding(bench.task, bench.stream()), [member(0)])]]), bench.validation)
    assert [reference() for reference in held] == [None]


def test_a_lost_device_ends_the_worker(bench: Bench) -> None:
    error = RuntimeError("CUDA error: device-side assert triggered\nCompile with ...")
    crew = Crew([[(Breaking(bench, error, epoch=1), [member(0)])]])
    with pytest.raises(TrainingError, match="device is lost"):
        fit(crew, bench.validation)
    assert crew.leaving == [0]
