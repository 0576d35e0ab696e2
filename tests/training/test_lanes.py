"""Lanes: who does what, and one iterator for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo.training.lanes import SharedIterator, divide, run_lanes


@given(
    costs=st.lists(st.floats(1, 1e6), min_size=1, max_size=20),
    threads=st.integers(1, 8),
)
def test_every_item_is_in_one_lane_and_no_lane_is_empty(costs: list[float], threads: int) -> None:
    lanes = divide(costs, threads)
    assert all(lanes)
    assert len(lanes) <= threads
    assert sorted(item for lane in lanes for item in lane) == list(range(len(costs)))
    assert all(lane == sorted(lane) for lane in lanes)
    assert divide(costs, threads) == lanes


def test_lanes_carry_equal_loads_where_they_can() -> None:
    assert divide([3, 3, 2, 2, 2], 2) in ([[0, 1], [2, 3, 4]], [[0, 2, 4], [1, 3]])
    assert divide([1] * 8, 4) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert divide([], 4) == []


def test_one_that_outweighs_all_others_is_not_left_to_one_thread() -> None:
    assert divide([100, 1, 1], 2) == [[0, 1, 2]]
    assert len(divide([100, 90], 2)) == 2


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_every_lane_reads_every_item_and_each_is_drawn_once(lanes: int) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(200):
            drawn.append(item)
            yield item

    shared = SharedIterator(items(), lanes)
    read: dict[int, list[int]] = {}

    def work(lane: int) -> None:
        read[lane] = []
        for item in shared.read(lane):
            time.sleep(0.0002 * (lane + item) % 0.001)  # another lane is behind at every turn
            read[lane].append(item)

    run_lanes([lambda lane=lane: work(lane) for lane in range(lanes)])  # type: ignore[misc]
    assert drawn == list(range(200))
    assert all(read[lane] == drawn for lane in range(lanes))


def test_nobody_runs_far_ahead_of_the_slowest() -> None:
    """What is drawn and not yet read by all is held in memory."""
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for item in range(100):
            drawn += 1
            yield item

    shared = SharedIterator(items(), 2)
    reading = threading.Event()

    def fast() -> None:
        for item in shared.read(0):
            if item == 5:
                reading.set()

    def slow() -> None:
        assert reading.wait(30)
        time.sleep(0.1)
        assert drawn < 20
        assert len(list(shared.read(1))) == 100

    run_lanes([fast, slow])
    assert drawn == 100


def test_what_the_iterator_raises_all_lanes_raise_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    shared = SharedIterator(items(), 2)
    read: list[list[int]] = [[], []]

    def work(lane: int) -> None:
        for item in shared.read(lane):
            read[lane].append(item)

    with pytest.raises(ValueError, match="broken"):
        run_lanes([lambda: work(0), lambda: work(1)])
    assert read == [[1, 2], [1, 2]]


def test_a_lane_that_fails_ends_the_others_and_its_error_is_raised() -> None:
    shared = SharedIterator(iter(range(10**9)), 2)

    def good() -> None:
        for _ in shared.read(0):
            pass

    def bad() -> None:
        for item in shared.read(1):
            if item == 50:
                error = MemoryError("enough")
                shared.give_up(error)
                raise error

    with pytest.raises(MemoryError, match="enough"):
        run_lanes([good, bad])


def test_torchs_threads_are_divided_and_given_back() -> None:
    before = torch.get_num_threads()
    seen: dict[int, int] = {}

    def note(lane: int) -> None:
        seen[lane] = torch.get_num_threads()

    torch.set_num_threads(4)
    try:
        run_lanes([lambda: note(0), lambda: note(1)])
        assert seen == {0: 2, 1: 2}
        run_lanes([lambda: note(0)])
        assert seen[0] == 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
