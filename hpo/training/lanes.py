"""Threads that train side by side: each has members of its own, all read the same batches.

Torch shares one small product among its threads at a loss; two threads that each do half of the
products gain nearly twice. Torch's operations let go of the interpreter's lock, so threads do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

__all__ = ["SharedIterator", "divide", "run_lanes"]

_Item = TypeVar("_Item")
_GAIN = 0.7  # a product on n of torch's threads is about n ** 0.7 as fast: 1.6 measured for two
_AHEAD = 8  # batches that the fastest lane may be ahead of the slowest


def divide(costs: Sequence[float], threads: int) -> list[list[int]]:
    """Which items each lane does, so that the last lane is done as early as can be told.

    Longest first, each to the lane with the least to do (Graham 1969). Where one item outweighs
    all others, fewer lanes with more of torch's threads each are faster, down to a single lane.

    Args:
        costs: of the items, in any unit.
        threads: that may run at once.

    Returns:
        The lanes, each with the places of its items in ascending order; none is empty.
    """
    best: list[list[int]] = []
    shortest = float("inf")
    for count in range(min(threads, len(costs)), 0, -1):
        lanes: list[list[int]] = [[] for _ in range(count)]
        loads = [0.0] * count
        for item in sorted(range(len(costs)), key=lambda place: -costs[place]):
            lightest = loads.index(min(loads))
            lanes[lightest].append(item)
            loads[lightest] += costs[item]
        duration = max(loads) / (threads // count) ** _GAIN
        if duration < shortest:
            best, shortest = lanes, duration
    return [sorted(lane) for lane in best]


def run_lanes(lanes: Sequence[Callable[[], None]]) -> None:
    """Run the lanes at once, the first in this thread, and wait for all of them.

    Torch's threads are divided among them.

    Raises:
        BaseException: what the first of the lanes that failed has raised.
    """
    threads = torch.get_num_threads()
    share = max(1, threads // max(1, len(lanes)))
    if len(lanes) == 1:
        lanes[0]()
        return
    errors: dict[int, BaseException] = {}

    def run(place: int) -> None:
        torch.set_num_threads(share)  # each thread has a number of its own
        try:
            lanes[place]()
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            errors[place] = error

    others = [
        threading.Thread(target=run, args=(place,), name=f"hpo-lane-{place}", daemon=True)
        for place in range(1, len(lanes))
    ]
    for thread in others:
        thread.start()
    try:
        run(0)
        for thread in others:
            thread.join()
    finally:
        torch.set_num_threads(threads)
    for _, error in sorted(errors.items()):
        raise error


class SharedIterator(Generic[_Item]):
    """One iterator that several lanes read to its end; whoever is ahead draws for all.

    A lane that fails must say so by `give_up`, or the others wait for it.

    Args:
        items: drawn once each, by one lane at a time, while the others go on with what is drawn.
            What it raises, every lane raises once it has read all that was drawn before.
        lanes: how many read.
    """

    def __init__(self, items: Iterator[_Item], lanes: int) -> None:
        self._items = items
        self._changed = threading.Condition()
        self._drawn: deque[_Item] = deque()  # what the slowest lane has still to read
        self._count = 0
        self._read = [0] * lanes
        self._drawing = False
        self._end: BaseException | None = None
        self._failure: BaseException | None = None

    def read(self, lane: int) -> Iterator[_Item]:
        """All items, for one of the lanes."""
        while self._wait(lane):
            yield self._take(lane)

    def give_up(self, error: BaseException) -> None:
        """Let every lane raise that, wherever it stands."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _wait(self, lane: int) -> bool:
        """Wait for the next item, or draw it; returns whether there is one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_ready(lane) or self._may_draw())
                if self._failure is not None:
                    raise self._failure
                if self._read[lane] < self._count:
                    return True
                if isinstance(self._end, StopIteration):
                    return False
                if self._end is not None:
                    raise self._end
                self._drawing = True
            self._draw()

    def _is_ready(self, lane: int) -> bool:
        over = self._end is not None or self._failure is not None
        return self._read[lane] < self._count or over

    def _may_draw(self) -> bool:
        return not self._drawing and self._count - min(self._read) < _AHEAD

    def _draw(self) -> None:
        try:
            item = next(self._items)
        except BaseException as error:  # noqa: BLE001 (every lane raises it)
            with self._changed:
                self._end = error
                self._changed.notify_all()
            return
        with self._changed:
            self._drawing = False
            self._drawn.append(item)
            self._count += 1
            self._changed.notify_all()

    def _take(self, lane: int) -> _Item:
        with self._changed:
            first = self._count - len(self._drawn)
            item = self._drawn[self._read[lane] - first]
            self._read[lane] += 1
            if min(self._read) > first:
                self._drawn.popleft()
                self._changed.notify_all()
            return item
