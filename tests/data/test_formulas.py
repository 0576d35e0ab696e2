"""The datasets that are made from a formula: the same rows everywhere, and their truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hpo.data
from hpo.data import DatasetInfo, MeasuredRows
from hpo.data.formulas import FREEFALL, LINEAR, SINE, Formula
from hpo.errors import DataError, UsageError

NOWHERE = Path("nowhere")


def numbers(values: object) -> np.ndarray:
    return np.asarray(values, np.float64)


FIRST = {
    "linear": (
        (-1.2610487, 2.2214785, -5.2134218),
        (-1.3687009, 9.5408392, -10.692974),
        (6.2945609, 7.1522126, 0.0074413228),
    ),
    "freefall": (
        (0.083013467, 1.9929327, 4.6081281),
        (0.2440303, 37.643276, 210.0054),
        (1.0126181, 0.55063081, 1.4826872),
    ),
    "sine": (
        (-1.3827198, -4.509593, -5.5775476),
        (-0.98236567, 0.97950727, 0.64851922),
        (-5.0833793, 1.2212013, 3.7445283),
    ),
}
"""The first three inputs and targets of the training part, and inputs of the test part."""


@pytest.mark.parametrize("name", FIRST)
def test_the_first_rows_are_the_same_on_every_machine(name: str) -> None:
    train, test = (load(name, MeasuredRows) for load in (hpo.data.load_train, hpo.data.load_test))
    inputs, targets, of_test = FIRST[name]
    assert train.inputs[:3, 0].tolist() == pytest.approx(inputs, rel=1e-6)
    assert train.targets[:3, 0].tolist() == pytest.approx(targets, rel=1e-5)
    assert test.inputs[:3, 0].tolist() == pytest.approx(of_test, rel=1e-6)


@pytest.mark.parametrize(
    ("formula", "truth", "noise"),
    [
        (LINEAR, lambda x: 3 * x + 4, 1.0),
        (FREEFALL, lambda x: 9.8 * x**2, 2.0),
        (SINE, np.sin, 0.0),
    ],
)
def test_rows_follow_the_formula_up_to_their_noise(
    formula: Formula, truth: Callable[[np.ndarray], np.ndarray], noise: float
) -> None:
    for rows in (formula.load_train(NOWHERE), formula.load_test(NOWHERE)):
        rest = numbers(rows.targets) - truth(numbers(rows.inputs))
        # Six standard errors of the mean and of the standard deviation.
        assert rest.mean() == pytest.approx(0, abs=6 * noise / math.sqrt(len(rows)) + 1e-5)
        spread = 6 * noise / math.sqrt(2 * len(rows)) + 1e-5
        assert rest.std() == pytest.approx(noise, abs=spread)
    assert formula.missing(NOWHERE, "train") == []


def test_parts_and_datasets_are_independent_of_each_other() -> None:
    """The uniform places of all parts, put to one scale, are not correlated with one another."""
    places = [
        numbers(load(name, MeasuredRows).inputs[:1000, 0])
        for name in FIRST
        for load in (hpo.data.load_train, hpo.data.load_test)
    ]
    correlations = np.corrcoef(places)[np.triu_indices(len(places), 1)]
    assert np.abs(correlations).max() < 4 / math.sqrt(1000)
    assert len({tuple(place) for place in places}) == len(places)
    again = hpo.data.load_train("linear", MeasuredRows)
    assert np.array_equal(again.inputs, LINEAR.load_train(NOWHERE).inputs)


def test_they_are_described_and_always_here() -> None:
    for name in FIRST:
        info = hpo.data.describe(name)
        assert (info.classes, info.targets, info.outputs, info.shape) == (0, 1, 1, (1,))
        assert hpo.data.status(name).present
        assert not hpo.data.fetch(name).exists()


def test_rows_of_the_other_kind_are_refused_when_they_are_asked_for() -> None:
    with pytest.raises(UsageError, match="sine has MeasuredRows, not LabelledRows"):
        hpo.data.load_train("sine")
    with pytest.raises(UsageError, match="digits has LabelledRows, not MeasuredRows"):
        hpo.data.load_test("digits", MeasuredRows)


class Measured:
    """A dataset of another package, with two numbers to predict from and two to predict."""

    info = DatasetInfo("ours", 0, (2,), 4, 4, "this test", "CC0", targets=2)

    def __init__(self, rows: object) -> None:
        self.rows = rows

    def missing(self, _folder: Path, _part: str) -> list[str]:
        return []

    def fetch(self, _folder: Path) -> None:
        pass

    def load_train(self, _folder: Path) -> object:
        return self.rows

    load_test = load_train


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


INFINITE = zeros(4, 2)
INFINITE[3, 1] = np.inf


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (MeasuredRows(zeros(4, 2, dtype=np.float64), zeros(4, 2)), "inputs must be a float32"),
        (MeasuredRows(zeros(4, 3), zeros(4, 2)), "inputs must have the shape (4, 2), not (4, 3)"),
        (MeasuredRows(zeros(3, 2), zeros(3, 2)), "inputs must have the shape (4, 2), not (3, 2)"),
        (MeasuredRows(zeros(4, 2), zeros(4)), "targets must have the shape (4, 2), not (4,)"),
        (MeasuredRows(zeros(4, 2), zeros(4, 2, dtype=np.int64)), "targets must be a float32"),
        (MeasuredRows(INFINITE, zeros(4, 2)), "inputs hold values that are no finite numbers"),
        (MeasuredRows(zeros(4, 2), -INFINITE), "targets hold values that are no finite numbers"),
        ((1, 2), "a dataset must return MeasuredRows, not tuple"),
    ],
)
def test_measured_rows_that_do_not_fit_are_refused(
    offer: Callable[..., None], rows: object, message: str
) -> None:
    offer("ours", lambda: Measured(rows))
    with pytest.raises(DataError) as caught:
        hpo.data.load_train("ours", MeasuredRows)
    assert message in str(caught.value)
    assert "ours (train)" in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "targets", "shape", "message"),
    [
        (0, 0, (2,), "ours must have either classes or targets"),
        (2, 1, (2,), "ours must have either classes or targets"),
        (0, 1, (4, 4), "the rows of ours must be of the shape (features,)"),
    ],
)
def test_a_description_is_of_one_kind(
    classes: int, targets: int, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match="ours") as caught:
        DatasetInfo("ours", classes, shape, 4, 4, "", "", targets)
    assert message in str(caught.value)
