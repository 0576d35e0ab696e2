"""Orders that follow from a seed, on every machine and with every NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.shuffling import shuffled


def test_an_order_is_what_it_was_when_studies_began() -> None:
    """A grid's cells and a study's held-out rows hang on it."""
    assert shuffled(8, 0, 1).tolist() == [1, 3, 6, 2, 0, 7, 5, 4]
    assert shuffled(8, 7, 1, 2).tolist() == [1, 3, 5, 4, 7, 0, 2, 6]


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_every_number_comes_once(n: int) -> None:
    assert np.array_equal(np.sort(shuffled(n, 3, 4)), np.arange(n))


def test_seeds_and_purposes_have_orders_of_their_own() -> None:
    found = [(0, 1), (1, 1), (0, 2), (0, 1, 1), (0, 1, 2), (0,)]
    orders = {tuple(shuffled(50, *of).tolist()) for of in found}
    assert len(orders) == len(found)
