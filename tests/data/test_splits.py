from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.data import folds, split
from hpo.errors import UsageError


@given(n=st.integers(2, 5000), share=st.floats(1e-6, 0.999), seed=st.integers(0, 2**128))
def test_every_row_lands_on_exactly_one_side(n: int, share: float, seed: int) -> None:
    held_out = max(1, round(share * n))
    if held_out >= n:
        with pytest.raises(UsageError, match="leaves none for training"):
            split(n, share, seed)
        return
    train, validation = split(n, share, seed)
    assert train.dtype == validation.dtype == np.int64
    assert len(validation) == held_out
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(n))


@given(n=st.integers(2, 500), seed=st.integers(0, 2**64))
def test_the_same_seed_gives_the_same_rows(n: int, seed: int) -> None:
    for once, again in zip(split(n, 0.3, seed), split(n, 0.3, seed), strict=True):
        assert np.array_equal(once, again)


def test_the_rows_of_a_seed_are_fixed_for_all_time() -> None:
    train, validation = split(60_000, 0.15, 0)
    assert (len(train), len(validation)) == (51_000, 9_000)
    digest = hashlib.sha256(train.astype("<i8").tobytes() + validation.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "b0f9300700dd5a6d"


def test_another_seed_gives_other_rows_and_the_order_is_shuffled() -> None:
    train, validation = split(1000, 0.2, 0)
    assert set(validation) != set(split(1000, 0.2, 1)[1])
    assert not np.array_equal(train, np.sort(train))
    # About a fifth of every stretch of rows is held out.
    per_fifth = np.histogram(validation, bins=5, range=(0, 1000))[0]
    assert per_fifth.min() > 20
    assert per_fifth.max() < 60


@pytest.mark.parametrize(
    ("n", "share", "seed", "message"),
    [
        (1, 0.5, 0, "1 rows cannot be split"),
        (0, 0.5, 0, "0 rows"),
        (10, 0.0, 0, "share 0.0"),
        (10, 1.0, 0, "share 1.0"),
        (10, -0.1, 0, "share -0.1"),
        (10, float("nan"), 0, "share nan"),
        (10, float("inf"), 0, "share inf"),
        (10, 0.97, 0, "leaves none for training"),
        (10, 0.5, -1, "seed -1"),
    ],
)
def test_what_cannot_be_split_is_a_usage_error(
    n: int, share: float, seed: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        split(n, share, seed)


@given(n=st.integers(2, 500), count=st.integers(2, 20), seed=st.integers(0, 2**64))
def test_every_row_validates_in_exactly_one_fold(n: int, count: int, seed: int) -> None:
    if count > n:
        with pytest.raises(UsageError, match=f"{n} rows cannot be cut into {count} folds"):
            folds(n, count, seed)
        return
    parts = folds(n, count, seed)
    assert len(parts) == count
    held_out = np.concatenate([validation for _, validation in parts])
    assert np.array_equal(np.sort(held_out), np.arange(n))
    sizes = [len(validation) for _, validation in parts]
    assert max(sizes) - min(sizes) <= 1
    for train, validation in parts:
        assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(n))
    for one, other in zip(parts, folds(n, count, seed), strict=True):
        assert np.array_equal(one[1], other[1])


def test_one_fold_is_none() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        folds(10, 1, 0)
