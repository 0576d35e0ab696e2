"""Which population a trial joins: that of the open stream, or one where it has to go on."""

from __future__ import annotations

from hpo.definition import StudyDefinition
from hpo.definition.ranges import is_range
from hpo.search.entry import Entry, Place
from hpo.training.population import Population
from hpo.training.task import Split

__all__ = ["Berths"]


class Berths:
    """The populations of one worker.

    Newcomers are drawn for the open stream, with its batch size, until it has taken as many as
    train side by side, or for a quarter of a run. Then the next trial is free in its batch size.
    Where members of that size still train, it joins them, and theirs is the open stream again;
    else it opens another. So a worker has few populations with many members each, which is what
    makes them fast, and a search still sees every batch size: one stream that stayed open kept
    85 trials of `fashion_mnist` at one. A trial that is taken over goes on where it was put by,
    or begins again where it began before, so it comes to the same values.

    Args:
        wave: how many newcomers in a row have the same batch size.
    """

    def __init__(self, definition: StudyDefinition, data: Split, wave: int) -> None:
        self._definition = definition
        self._data = data
        self._wave = wave
        self._chooses_batch_size = is_range(definition.training.batch_size)
        self._open: Population | None = None
        self._opened = 0
        self._newcomers = 0
        self._shared: dict[int, Population] = {}
        self._places: dict[Place, Population] = {}

    @property
    def batch_size(self) -> int | None:
        """What a fresh trial has to draw to join the open stream; None leaves it free."""
        if self._open is None or not self._chooses_batch_size or self._newcomers >= self._wave:
            return None
        return self._open.batch_size

    def begin_round(self) -> None:
        """All populations have moved on; the open stream may have taken its last newcomers."""
        self._places.clear()
        if self._open is not None:
            quarter = max(1, self._definition.training.epochs // 4)
            over = self._open.epoch - self._opened >= quarter and self._chooses_batch_size
            broken = self._open.batch > 0  # it was lost in the middle of an epoch
            if over or broken:
                self._open = None
        # The open one may be empty for a round; another that is, nobody has to go on with.
        self._shared = {
            size: population
            for size, population in self._shared.items()
            if population is self._open or (len(population) and population.batch == 0)
        }

    def find(self, entry: Entry) -> Population:
        """The population that a trial joins before the next round of epochs."""
        number, batch_size = entry.member.key, entry.member.config.batch_size
        if entry.place is not None:
            return self._at(entry.place, batch_size, shared=entry.company)
        if not entry.company:
            return self._population(Place(number, 0), batch_size)
        if self._open is None or self.batch_size != batch_size:
            if batch_size not in self._shared:
                self._shared[batch_size] = self._population(Place(number, 0), batch_size)
            self._open = self._shared[batch_size]
            self._opened, self._newcomers = self._open.epoch, 0
        self._newcomers += 1
        return self._open

    def _at(self, place: Place, batch_size: int, *, shared: bool) -> Population:
        """A population at that place; those that go on from there together share it."""
        if not shared:
            return self._population(place, batch_size)
        if place not in self._places:
            self._places[place] = self._population(place, batch_size)
        return self._places[place]

    def _population(self, place: Place, batch_size: int) -> Population:
        streams = self._data.streams(batch_size, self._definition.search.seed, place.stream)
        return Population(self._data.task, *streams, epoch=place.epoch, batch=place.batch)
