"""Streams: full batches, every row at most once an epoch, and an order that a seed fixes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.errors import UsageError
from hpo.training.streams import Stream, derive_seed


def order(stream: Stream, epoch: int) -> Tensor:
    return torch.cat(list(stream.epoch(epoch)))


@settings(deadline=None)
@given(
    n=st.integers(1, 300),
    part=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    number=st.integers(0, 1000),
    epoch=st.integers(0, 1000),
)
def test_batches_are_full_and_no_row_comes_twice(
    n: int, part: float, seed: int, number: int, epoch: int
) -> None:
    rows = 3 * torch.arange(n) + 5
    batch_size = 1 + int(part * (n - 1))
    stream = Stream(rows, batch_size, seed, number)
    batches = list(stream.epoch(epoch))
    assert len(batches) == stream.batches == n // batch_size
    assert all(len(batch) == batch_size for batch in batches)
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == len(seen) > n - batch_size
    assert set(seen) <= set(rows.tolist())


def test_the_order_follows_from_seed_number_and_epoch_alone() -> None:
    rows = torch.arange(200)
    first = order(Stream(rows, 10, 3, 4), 5)
    torch.rand(100)  # nobody else's draws matter
    again = Stream(rows, 10, 3, 4)
    order(again, 0)
    assert torch.equal(order(again, 5), first)
    # Another batch size cuts the same order elsewhere.
    assert torch.equal(order(Stream(rows, 40, 3, 4), 5), first)
    others = [
        order(Stream(rows, 10, 2, 4), 5),
        order(Stream(rows, 10, 3, 5), 5),
        order(Stream(rows, 10, 3, 4), 6),
        order(Stream(rows, 10, 4, 3), 5),
        order(Stream(rows, 10, 3, 5), 4),
    ]
    for index, other in enumerate(others):
        assert (other == first).float().mean() < 0.1
        assert all((other == later).float().mean() < 0.1 for later in others[index + 1 :])


def test_what_an_epoch_leaves_out_changes() -> None:
    stream = Stream(torch.arange(25), 10, 0)
    left_out = [set(range(25)) - set(order(stream, epoch).tolist()) for epoch in range(80)]
    assert all(len(rows) == 5 for rows in left_out)
    assert len(set.union(*left_out)) == 25


def test_augmentation_has_draws_of_its_own() -> None:
    stream = Stream(torch.arange(50), 5, 1, 2)

    def drawn(stream: Stream, epoch: int) -> list[float]:
        values: list[float] = torch.rand(8, generator=stream.augmentation(epoch)).tolist()
        return values

    assert drawn(stream, 3) == drawn(stream, 3)
    assert drawn(stream, 3) != drawn(stream, 4)
    assert drawn(stream, 3) != drawn(Stream(torch.arange(50), 5, 1, 3), 3)
    shuffled = torch.randperm(50, generator=stream.augmentation(3))
    assert not torch.equal(shuffled, order(stream, 3))


def test_a_batch_larger_than_the_rows_is_refused() -> None:
    with pytest.raises(UsageError) as raised:
        Stream(torch.arange(7), 8, 0)
    assert str(raised.value) == (
        "training.batch_size: a batch of 8 is larger than the 7 training rows; "
        "choose a smaller batch"
    )
    assert Stream(torch.arange(8), 8, 0).batches == 1


PARTS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4)


@settings(deadline=None)
@given(PARTS)
def test_a_seed_has_63_bits_and_is_always_the_same(parts: list[int]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert seed == derive_seed(*parts)
    torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(PARTS, PARTS)
def test_other_parts_give_another_seed(left: list[int], right: list[int]) -> None:
    assert (derive_seed(*left) == derive_seed(*right)) == (left == right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5,), (5, 0)),
        ((2**32,), (0, 1)),
        ((1, 2, 3), (3, 2, 1)),
        ((2**32 + 1, 2), (1, 1, 2)),
    ],
)
def test_seeds_of_parts_that_look_alike_differ(
    left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    assert derive_seed(*left) != derive_seed(*right)


def test_seeds_are_well_mixed() -> None:
    seeds = [derive_seed(0, number) for number in range(4000)]
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 4000  # all that a CPU generator uses
    for bit in range(63):
        share = sum(seed >> bit & 1 for seed in seeds) / len(seeds)
        assert 0.45 < share < 0.55
