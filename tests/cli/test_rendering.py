"""Numbers as people get them."""

from __future__ import annotations

import math

import pytest

from hpo.cli.rendering import metric


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.98765432, "0.9877"),
        (0.1, "0.1000"),
        (0.0, "0.0000"),
        (1234.56789, "1234.5679"),
        (-0.25, "-0.2500"),
        (0.0031415926, "0.003142"),
        (-0.05, "-0.05000"),
        (2.5e-8, "0.00000002500"),
        (1e-300, "0.000000000000"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_a_metric_has_four_digits_that_count(value: float, shown: str) -> None:
    assert metric(value) == shown


def test_a_spread_has_the_digits_of_its_mean() -> None:
    assert metric(0.0004, like=0.99) == "0.0004"
    assert metric(0.000421, like=0.0031) == "0.000421"
    assert metric(12.5, like=0.0031) == "12.500000"
