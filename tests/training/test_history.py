"""What a history says of a member: its best epoch, whether it has stalled or diverged."""

from __future__ import annotations

import json
import math

import pytest

from hpo.training.history import EpochRecord, History


def history(metric: str, values: list[float]) -> History:
    made = History(metric)
    for epoch, value in enumerate(values, start=1):
        add(made, epoch, value)
    return made


def add(to: History, epoch: int, value: float, train_loss: float = 1.0) -> None:
    loss, accuracy = (value, 0.5) if to.metric == "loss" else (0.5, value)
    to.add(EpochRecord(epoch, train_loss, loss, {"accuracy": accuracy}, seconds=0.25))


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy", [0.1, 0.7, 0.7, 0.3], 2),
        ("accuracy", [0.9, 0.7, 0.8], 1),
        ("accuracy", [0.0], 1),
        ("loss", [3.0, 1.0, 1.0, 2.0], 2),
        ("loss", [0.2, 0.1, 0.05], 3),
    ],
)
def test_best_is_the_first_of_the_best_epochs(metric: str, values: list[float], best: int) -> None:
    made = history(metric, values)
    assert made.best is not None
    assert made.best.epoch == best
    assert made.value(made.best) == values[best - 1]


def test_patience_counts_epochs_since_the_best() -> None:
    made = history("accuracy", [0.5, 0.6])
    assert not made.stalled(1)
    add(made, 3, 0.6)
    assert made.stalled(1)
    assert not made.stalled(2)
    add(made, 4, 0.55)
    assert made.stalled(2)
    assert not made.stalled(3)
    assert not made.stalled(None)
    add(made, 5, 0.61)
    assert not made.stalled(1)
    assert not History("loss").stalled(1)


def test_patience_may_wait_for_another_metric_than_the_value_is_of() -> None:
    made = History("accuracy")
    for epoch, (loss, accuracy) in enumerate([(0.9, 0.5), (0.6, 0.7), (0.7, 0.6), (0.8, 0.9)], 1):
        made.add(EpochRecord(epoch, 1.0, loss, {"accuracy": accuracy}, seconds=0.25))
    assert not made.stalled(1)
    assert not made.stalled(1, "accuracy")
    assert made.stalled(2, "loss")
    assert not made.stalled(3, "loss")
    assert made.best is not None
    assert (made.best.epoch, made.value(made.best)) == (4, 0.9)
    made.add(EpochRecord(5, 1.0, math.nan, {"accuracy": 0.1}, seconds=0.25))
    assert made.stalled(3, "loss")
    assert not History("accuracy").stalled(1, "loss")


def test_what_another_metric_says_is_kept_as_epochs_come() -> None:
    losses = [0.5, 0.4, 0.6, 0.3, 0.3]
    made = History("accuracy")
    for epoch, loss in enumerate(losses, 1):
        made.add(EpochRecord(epoch, 1.0, loss, {"accuracy": 0.1 * epoch}, seconds=0.25))
        asked_late = History.from_curve("loss", made.curve())
        assert made.judged_by("loss").best == asked_late.best
        assert made.judged_by("loss") is made.judged_by("loss")
    assert made == History.from_curve("accuracy", made.curve())


@pytest.mark.parametrize("sick", [math.nan, math.inf])
def test_a_diverged_epoch_is_never_the_best(sick: float) -> None:
    of_loss = EpochRecord(1, 1.0, sick, {"accuracy": 0.99}, 0.0)
    of_training = EpochRecord(1, sick, 0.01, {"accuracy": 0.99}, 0.0)
    assert of_loss.diverged
    assert EpochRecord(1, 1.0, 1.0, {"rmse": 1.0, "mse": sick}, 0.0).diverged
    assert of_training.diverged
    assert not EpochRecord(1, 1.0, 1e30, {"accuracy": 0.1}, 0.0).diverged
    for metric in ("accuracy", "loss"):
        made = History(metric)
        made.add(of_training)
        made.add(of_loss)
        assert made.best is None
        assert len(made.records) == 2
        made.add(EpochRecord(3, 2.0, 2.0, {"accuracy": 0.1}, 0.0))
        assert made.best is not None
        assert made.best.epoch == 3


def test_seconds_add_up_and_the_curve_is_json() -> None:
    made = history("accuracy", [0.1, 0.2, 0.3])
    assert made.train_seconds == 0.75
    curve = json.loads(json.dumps(made.curve()))
    assert [epoch["accuracy"] for epoch in curve] == [0.1, 0.2, 0.3]
    assert set(curve[0]) == {"epoch", "train_loss", "loss", "accuracy", "seconds"}
