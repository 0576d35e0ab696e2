"""The loop: populations train epoch by epoch while members join, report, and leave."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from hpo.training.history import EpochRecord
from hpo.training.population import Member, Population

__all__ = ["Crew", "Ending", "fit"]


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


def fit(crew: Crew, validation: Tensor, stopping: Callable[[], bool] = lambda: False) -> None:
    """Train all that the crew sends, until it sends nobody and nobody is left.

    Args:
        validation: int64 `[n]`, the rows that score an epoch.
        stopping: asked before every batch.

    Raises:
        Stopped: `stopping` said so; members in training are as they are.
    """
    populations: list[Population] = []
    while True:
        running = [member for population in populations for member in population.members]
        for population, members in crew.admit(running):
            population.add(members)
            if population not in populations:
                populations.append(population)
        if not populations:
            return
        for population in populations:
            records = population.run_epoch(validation, stopping)
            _part(crew, population, records)
        populations = [population for population in populations if len(population)]


def _part(crew: Crew, population: Population, records: Sequence[EpochRecord]) -> None:
    """Tell the crew of an epoch, and let those leave whose time has come."""
    # By key, so that nothing hangs on how the members lie.
    pairs = zip(population.members, records, strict=True)
    reported = sorted(pairs, key=lambda pair: pair[0].key)
    for member, record in reported:
        crew.report(member, record)
    staying = []
    for member, record in reported:
        ending = _ending(crew, member, record)
        if ending is None:
            staying.append(member)
        else:
            crew.ended(population, member, ending)
    population.keep(staying)


def _ending(crew: Crew, member: Member, record: EpochRecord) -> Ending | None:
    if record.diverged:
        return Ending.DIVERGED
    if record.epoch >= member.config.epochs:
        return Ending.FINISHED
    if member.history.stalled(member.config.patience):
        return Ending.STALLED
    return Ending.PRUNED if crew.prunes(member) else None
