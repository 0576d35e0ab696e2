"""A search in this process, with somebody who looks over the training loop's shoulder."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.silence import Silent
from hpo.definition import StudyDefinition
from hpo.holder import holder_name
from hpo.search.objective import SearchCrew
from hpo.search.storage import open_storage
from hpo.search.study import create_or_resume
from hpo.search.worker import WorkerOptions, build_crew
from hpo.training.fit import fit
from hpo.training.population import Member, Population
from hpo.training.task import prepare

__all__ = ["Watched", "search_watched"]

_LEASE = 3_600.0  # nobody else is there to take anything over


@dataclass(frozen=True)
class Watched:
    """What the loop saw, averaged over time until the last trial was sent into training.

    Attributes:
        running: members in training; none are while others are drawn.
        company: members of a population, as a member sees it, itself included.
        populations: that train in turn.
    """

    running: float
    company: float
    populations: float


@dataclass
class _Round:
    """From the moment when the crew was asked for members to the end of the round's epochs."""

    asked: float
    sent: int = 0
    began: float = 0.0
    ended: float = 0.0
    sizes: tuple[int, ...] = ()


class _Observer:
    """A crew that passes everything on to another and keeps the time."""

    def __init__(self, crew: SearchCrew) -> None:
        self.rounds: list[_Round] = []
        self._crew = crew
        self._sizes: dict[Population, int] = {}

    def __getattr__(self, name: str) -> Any:
        """All that is not watched: `report`, `prunes`, `ended`, `failed`, `left`."""
        return getattr(self._crew, name)

    def admit(self, running: Sequence[Member]) -> Iterable[tuple[Population, Sequence[Member]]]:
        this = _Round(asked=time.perf_counter())
        sent = list(self._crew.admit(running))
        for population, members in sent:
            self._sizes[population] = len(population) + len(members)
        this.sent = sum(len(members) for _, members in sent)
        this.sizes = tuple(self._sizes.values())
        this.began = this.ended = time.perf_counter()
        self.rounds.append(this)
        return sent

    def rested(self, populations: Sequence[Population]) -> None:
        self.rounds[-1].ended = time.perf_counter()
        self._sizes = {population: len(population) for population in populations}
        self._crew.rested(populations)


def search_watched(
    url: str, definition: StudyDefinition, population: str, folder: Path
) -> Watched:
    """Search until the budget is met, as a worker does.

    Args:
        population: a number, or `auto`.
        folder: for the state of the search.
    """
    options = WorkerOptions(None if population == "auto" else int(population), _LEASE)
    with pytest.MonkeyPatch.context() as environment, open_storage(url) as storage:
        environment.setenv("HPO_STATE", str(folder / "state"))
        search = create_or_resume(storage, definition, definition.name)
        storage.ledger.set_budget(search._study_id, definition.search.trials)
        data = prepare(definition)
        torch.set_num_threads(1)  # as `hpo optimize` has in the benchmarks
        crew = build_crew(
            *(storage, search, definition, data, options, holder_name()),
            watcher=Silent(),
            lost=frozenset,
            stopping=lambda: False,
        )
        observer = _Observer(crew)
        fit(observer, data.validation)
        crew.close(hurry=False)
    return _average(observer.rounds)


def _average(rounds: Sequence[_Round]) -> Watched:
    last = max(place for place, one in enumerate(rounds) if one.sent)
    before = rounds[: max(last, 1)]
    seconds = rounds[len(before)].asked - before[0].asked
    trained = [(one.ended - one.began, one.sizes) for one in before]
    members = sum(length * sum(sizes) for length, sizes in trained)
    company = sum(length * size * size for length, sizes in trained for size in sizes)
    populations = sum(length * len(sizes) for length, sizes in trained)
    return Watched(
        running=members / seconds,
        company=company / members,
        populations=populations / sum(length for length, _ in trained),
    )
