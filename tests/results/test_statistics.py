"""Means and intervals against SciPy's and by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpo.results.statistics import summarize

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20).filter(
    lambda values: max(values) - min(values) > 1e-6
)


@given(VALUES)
def test_the_interval_is_students(values: list[float]) -> None:
    summary = summarize(values)
    mean, sem = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, sem)
    assert summary.mean == pytest.approx(mean, abs=1e-9)
    assert summary.std == pytest.approx(sem * math.sqrt(len(values)))
    assert summary.ci95 == pytest.approx((low, high))
    assert summary.n == len(values)


def test_one_value_says_nothing_about_spread() -> None:
    summary = summarize([0.9])
    assert (summary.mean, summary.std, summary.ci95, summary.n) == (0.9, None, None, 1)
    assert summary.to_dict()["ci95"] is None
