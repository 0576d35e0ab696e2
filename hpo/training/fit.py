"""The loop: populations train epoch by epoch while members join, report, and leave."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from hpo.training.history import EpochRecord
from hpo.training.mishaps import Mishap, attempt, give_memory_back
from hpo.training.population import Member, Population

__all__ = ["Crew", "Ending", "ending_of", "fit"]


class Ending(enum.Enum):
    """Why a member left."""

    FINISHED = "all epochs trained"
    STALLED = "stopped early"
    PRUNED = "pruned"
    DIVERGED = "diverged"


class Crew(Protocol):
    """Whoever sends members into training and hears what becomes of them."""

    def admit(self, running: Sequence[Member]) -> Iterable[tuple[Population, Sequence[Member]]]:
        """Who joins before the next round of epochs; called again after each.

        Args:
            running: who trains already.
        """

    def report(self, member: Member, record: EpochRecord) -> None:
        """A member has trained an epoch."""

    def prunes(self, member: Member) -> bool:
        """Whether a member should leave early; asked when all of its population have reported."""

    def ended(self, population: Population, member: Member, ending: Ending) -> None:
        """A member leaves; its tensors can still be read from the population."""

    def failed(self, members: Sequence[Member], mishap: Mishap) -> None:
        """Members are lost with their population; `admit` may send others in their place."""

    def rested(self, populations: Sequence[Population]) -> None:
        """A round of epochs is over: everybody is between two epochs."""

    def left(self, populations: Sequence[Population]) -> None:
        """The loop ends with members in training, who can be read as they are."""


def fit(
    crew: Crew,
    validation: Tensor | Sequence[Tensor],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train all that the crew sends, until it sends nobody and nobody is left.

    Args:
        validation: int64 `[n]`, the rows that score an epoch; or such rows of each fold.
        stopping: asked before every batch.

    Raises:
        Stopped: `stopping` said so; members in training are as they are.
    """
    populations: list[Population] = []
    try:
        while _take_in(crew, populations):
            for population in tuple(populations):
                _train(crew, population, validation, stopping)
            populations[:] = [population for population in populations if len(population)]
            crew.rested(populations)
    except BaseException:
        crew.left(populations)
        raise


def ending_of(member: Member, record: EpochRecord) -> Ending | None:
    """Why a member leaves after an epoch of its own accord; None if it may go on."""
    if record.diverged:
        return Ending.DIVERGED
    if record.epoch >= member.config.epochs:
        return Ending.FINISHED
    config = member.config
    stalled = member.history.stalled(config.patience, config.stopping_metric)
    return Ending.STALLED if stalled else None


def _take_in(crew: Crew, populations: list[Population]) -> bool:
    """Let join whom the crew sends; returns whether anybody is to be trained or sent again."""
    running = [member for population in populations for member in population.members]
    sent = False
    for population, members in crew.admit(running):
        sent = True
        crowd = [*population.members, *members]
        mishap = attempt(partial(population.add, members))
        if mishap is not None:
            _lose(crew, population, crowd, mishap)
        if population not in populations:
            populations.append(population)
    return sent or bool(populations)


def _train(
    crew: Crew,
    population: Population,
    validation: Tensor | Sequence[Tensor],
    stopping: Callable[[], bool],
) -> None:
    """One epoch of a population, and what comes of it."""
    if not len(population):
        return
    records: list[EpochRecord] = []
    mishap = attempt(lambda: records.extend(population.run_epoch(validation, stopping)))
    if mishap is None:
        _part(crew, population, records)
    else:
        _lose(crew, population, list(population.members), mishap)


def _lose(crew: Crew, population: Population, members: list[Member], mishap: Mishap) -> None:
    population.keep(())
    give_memory_back()
    crew.failed(members, mishap)


def _part(crew: Crew, population: Population, records: Sequence[EpochRecord]) -> None:
    """Tell the crew of an epoch, and let those leave whose time has come."""
    # By key, so that nothing hangs on how the members lie.
    pairs = zip(population.members, records, strict=True)
    reported = sorted(pairs, key=lambda pair: pair[0].key)
    for member, record in reported:
        crew.report(member, record)
    staying = []
    for member, record in reported:
        ending = ending_of(member, record)
        if ending is None and crew.prunes(member):
            ending = Ending.PRUNED
        if ending is None:
            staying.append(member)
        else:
            crew.ended(population, member, ending)
    mishap = attempt(partial(population.keep, staying))  # which lays the others out anew
    if mishap is not None:
        _lose(crew, population, staying, mishap)
