"""Every draw that a finite space has, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hpo import space
from hpo.definition import FloatRange, StudyDefinition
from hpo.definition.problems import Problem
from hpo.shuffling import shuffled

__all__ = ["MOST_CELLS", "cells", "sized", "unsuitable"]

MOST_CELLS = 100_000  # every worker counts them all before its first trial, some seconds long
_ORDER = 0x67726964  # "grid": keeps this use of the seed apart from every other
_WAVE = 16  # cells in a row with one batch size: what two workers of eight train at once


def cells(definition: StudyDefinition) -> list[dict[str, Any]]:
    """The parameters of every draw, each once, in an order shuffled by the study's seed.

    A grid that is not visited to its end has so been visited everywhere. The batch size changes
    only now and then: trials that read the same batches train faster.
    """
    found = list(_walk(definition))
    seed = definition.search.seed
    of_size: dict[Any, list[dict[str, Any]]] = {}
    for place in shuffled(len(found), seed, _ORDER, 1):
        of_size.setdefault(found[place].get(space.BATCH_SIZE), []).append(found[place])
    waves = [
        own[start : start + _WAVE]
        for own in of_size.values()
        for start in range(0, len(own), _WAVE)
    ]
    return [cell for turn in shuffled(len(waves), seed, _ORDER, 2) for cell in waves[turn]]


def sized(definition: StudyDefinition) -> StudyDefinition:
    """The definition with as many trials as its grid has cells, where it does not say how many.

    A definition with another sampler comes back as it is.
    """
    search = definition.search
    if search.sampler.name != "grid" or "trials" in search.model_fields_set:
        return definition
    sized_search = search.model_copy(update={"trials": _count(definition)})
    return definition.model_copy(update={"search": sized_search})


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong with its grid, if it has one; for `load_definition` and others."""
    search = definition.search
    if search.sampler.name != "grid":
        return []
    count = _count(definition)
    if count > MOST_CELLS:
        sentence = (
            f"the grid has {count} cells, more than {MOST_CELLS}; make ranges smaller or their "
            "steps larger, or write `sampler: tpe`"
        )
        return [Problem(("search", "sampler"), sentence)]
    if "trials" in search.model_fields_set and search.trials > count:
        sentence = (
            f"{search.trials} trials are more than the {count} cells of the grid, each of which "
            "is visited once; leave `trials` out for all"
        )
        return [Problem(("search", "trials"), sentence)]
    return []


def _count(definition: StudyDefinition) -> int:
    count = space.cardinality(definition)
    assert count is not None, "a definition with a grid has no continuous range"
    return count


def _walk(definition: StudyDefinition) -> Iterator[dict[str, Any]]:
    """Draw again and again, each time with the last choice that has a next one moved on."""
    path: list[int] = []
    while True:
        odometer = _Odometer(path)
        space.draw(definition, odometer)
        yield odometer.values
        path = odometer.path
        while path and path[-1] + 1 == odometer.sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


class _Odometer:
    """Suggests what a path says, and first options beyond its end; the path grows by these."""

    def __init__(self, path: Sequence[int]) -> None:
        self.path = list(path)
        self.sizes: list[int] = []
        self.values: dict[str, Any] = {}

    def suggest_int(
        self,
        name: str,
        low: int,
        high: int,
        *,
        step: int = 1,
        log: bool = False,  # noqa: ARG002
    ) -> int:
        return int(self._next(name, range(low, high + 1, step)))

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,  # noqa: ARG002
    ) -> float:
        return float(self._next(name, FloatRange(low, high, step=step).values()))

    def suggest_categorical(self, name: str, choices: Sequence[bool | int | float | str]) -> Any:
        return self._next(name, choices)

    def _next(self, name: str, options: Sequence[Any]) -> Any:
        depth = len(self.sizes)
        if depth == len(self.path):
            self.path.append(0)
        self.sizes.append(len(options))
        value = self.values[name] = options[self.path[depth]]
        return value
