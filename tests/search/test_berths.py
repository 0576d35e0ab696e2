"""Which population a newcomer joins, over the rounds of a worker."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.definition import StudyDefinition, load_definition
from hpo.search.berths import Berths
from hpo.search.entry import Entry, Place
from hpo.search.ledger import Slot
from hpo.training.population import Member, Population
from hpo.training.task import Split, prepare

STUDY = """
dataset: {name: digits}
model: {mlp: {layers: 1, width: 8}}
optimizer: {adam: {lr: {float: [1.0e-3, 1.0e-2]}}}
training: {batch_size: {choice: [32, 64]}, epochs: 8}
search: {trials: 20}
"""
QUARTER = 2
WAVE = 3


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> StudyDefinition:
    file = tmp_path_factory.mktemp("studies") / "digits.yaml"
    file.write_text(STUDY)
    return load_definition(file)


@pytest.fixture(scope="module")
def data(definition: StudyDefinition) -> Split:
    return prepare(definition)


class Worker:
    """A round after the other: who waits joins, and every population that has members trains."""

    def __init__(self, definition: StudyDefinition, data: Split) -> None:
        self.berths = Berths(definition, data, WAVE)
        self._definition = definition
        self._count = 0

    def join(self, batch_size: int, place: Place | None = None) -> tuple[Population, Member]:
        config = TrialConfig(
            model=MlpConfig(widths=(8,)),
            optimizer=OptimizerConfig(name="adam", lr=1e-3),
            batch_size=batch_size,
            epochs=8,
        )
        member = Member(self._count, config, seed=self._count)
        self._count += 1
        slot = cast("Slot", None)
        entry = Entry(slot, cast("Any", None), member, origin={}, started=0.0, place=place)
        population = self.berths.find(entry)
        population.add([member])
        return population, member

    def rounds(self, count: int, *populations: Population) -> None:
        for _ in range(count):
            for population in populations:
                if len(population):
                    population.train_epoch()
            self.berths.begin_round()


def test_a_stream_fixes_the_batch_size_for_a_quarter_of_a_run(
    definition: StudyDefinition, data: Split
) -> None:
    worker = Worker(definition, data)
    assert worker.berths.batch_size is None
    population, _ = worker.join(32)
    assert worker.berths.batch_size == 32
    worker.rounds(QUARTER - 1, population)
    assert worker.berths.batch_size == 32
    assert worker.join(32)[0] is population
    worker.rounds(1, population)
    assert worker.berths.batch_size is None


def test_a_stream_fixes_the_batch_size_of_as_many_as_train_side_by_side(
    definition: StudyDefinition, data: Split
) -> None:
    worker = Worker(definition, data)
    small, _ = worker.join(32)
    for _ in range(WAVE - 1):
        assert worker.berths.batch_size == 32
        worker.join(32)
    assert worker.berths.batch_size is None
    large, _ = worker.join(64)
    assert large is not small
    assert worker.berths.batch_size == 64
    worker.join(64)
    worker.join(64)
    assert worker.berths.batch_size is None
    # It joins them again, and the next wave is theirs.
    assert worker.join(32)[0] is small
    assert worker.berths.batch_size == 32


def test_a_free_trial_joins_those_who_still_train_with_its_batch_size(
    definition: StudyDefinition, data: Split
) -> None:
    worker = Worker(definition, data)
    small, _ = worker.join(32)
    worker.rounds(QUARTER, small)
    large, _ = worker.join(64)
    assert large is not small
    worker.rounds(QUARTER, small, large)
    again, member = worker.join(32)
    assert again is small
    assert member.joined == 2 * QUARTER
    # It is open again, and for a whole quarter.
    worker.rounds(QUARTER - 1, small, large)
    assert worker.berths.batch_size == 32
    worker.rounds(1, small, large)
    assert worker.berths.batch_size is None


def test_a_stream_that_was_empty_for_a_round_is_found_again(
    definition: StudyDefinition, data: Split
) -> None:
    """All members are pruned at once, as they are at a first rung, and others take their place."""
    worker = Worker(definition, data)
    first, _ = worker.join(32)
    worker.rounds(1, first)
    first.keep([])
    worker.rounds(1, first)
    assert worker.join(32)[0] is first
    worker.rounds(QUARTER, first)
    assert worker.berths.batch_size is None
    assert worker.join(32)[0] is first


def test_nobody_joins_a_population_that_all_have_left(
    definition: StudyDefinition, data: Split
) -> None:
    worker = Worker(definition, data)
    first, _ = worker.join(32)
    worker.rounds(QUARTER, first)
    first.keep([])
    worker.rounds(1)
    second, _ = worker.join(32)
    assert second is not first
    assert second.streams[0].number != first.streams[0].number


def test_a_trial_that_is_taken_over_goes_where_it_was(
    definition: StudyDefinition, data: Split
) -> None:
    worker = Worker(definition, data)
    population, _ = worker.join(32)
    worker.rounds(1, population)
    taken_over, _ = worker.join(32, Place(stream=7, epoch=3))
    assert (taken_over.streams[0].number, taken_over.epoch) == (7, 3)
    assert worker.join(32)[0] is population


def test_where_the_batch_size_is_a_constant_one_stream_is_open_to_the_end(
    definition: StudyDefinition, data: Split
) -> None:
    training = replace_batch_size(definition, 32)
    worker = Worker(training, data)
    population, _ = worker.join(32)
    worker.rounds(3 * QUARTER, population)
    assert worker.join(32)[0] is population
    assert worker.berths.batch_size is None


def replace_batch_size(definition: StudyDefinition, size: int) -> StudyDefinition:
    training = definition.training.model_copy(update={"batch_size": size})
    return definition.model_copy(update={"training": training})
