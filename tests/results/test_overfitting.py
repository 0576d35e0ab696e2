"""What a learning curve says of overfitting: by hand, with noise, and where there is no curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hpo.results.overfitting import fields, judge

FALLING = [1.0 - 0.04 * epoch for epoch in range(20)]


def curve(losses: Sequence[float], training: Sequence[float] = FALLING) -> list[dict[str, Any]]:
    pairs = zip(losses, training, strict=False)
    return [
        {"epoch": epoch, "train_loss": train, "loss": loss, "accuracy": 0.5, "seconds": 0.1}
        for epoch, (loss, train) in enumerate(pairs, 1)
    ]


def told(losses: Sequence[float], training: Sequence[float] = FALLING) -> str:
    verdict = judge(curve(losses, training))
    assert verdict is not None
    assert (verdict.overfitting_since is None) == verdict.learning.startswith(("no ", "too "))
    return verdict.learning


def test_a_rise_while_training_loss_falls_is_overfitting_since_the_least() -> None:
    losses = [1.0, 0.9, 0.85, 0.812, 0.83, 0.86, 0.9, 0.934]
    assert told(losses) == (
        "overfitting since epoch 4: validation loss rose from 0.812 to 0.934 while training loss "
        "fell from 0.88 to 0.72"
    )
    assert fields(curve(losses))["overfitting_since"] == 4


def test_a_fall_to_the_end_is_none() -> None:
    assert told([0.9, 0.8, 0.7, 0.65, 0.62]) == (
        "no overfitting: validation loss fell to its end, 0.62"
    )
    nearly = told([0.9, 0.8, 0.7, 0.65, 0.62, 0.9, 0.9])
    assert nearly == (
        "no overfitting: validation loss fell nearly to its end, 0.62 in epoch 5 of 7"
    )


def test_every_one_of_the_last_three_epochs_has_to_show_it() -> None:
    assert told([1.0, 0.5, 0.6, 0.7, 0.8]).startswith("overfitting since epoch 2")
    back = [1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.501, 0.8]
    assert told(back) == (
        "no overfitting: validation loss was least in epoch 2, 0.5, and has not clearly risen "
        "since, 0.8 in epoch 8"
    )


def test_a_slow_rise_counts_from_one_per_cent_on() -> None:
    assert told([0.6, 0.5, *[0.5049] * 7]).startswith("no overfitting")
    assert told([0.6, 0.5, *[0.5051] * 7]).startswith("overfitting since epoch 2")


def test_without_a_fall_of_training_loss_it_is_something_else() -> None:
    losses = [1.0, 0.5, 0.7, 0.9, 1.1]
    assert told(losses, [1.0, 0.6, 0.7, 0.9, 1.0]) == (
        "no overfitting, but no progress: since epoch 2 validation loss rose from 0.5 to 1.1, and "
        "training loss did not fall either"
    )
    assert told(losses, [1.0, 0.6, 0.5, 0.5, 0.6]).startswith("no overfitting, but no progress")
    assert told(losses, [1.0, 0.6, 0.5, 0.5, 0.5]).startswith("overfitting since epoch 2")


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_few_epochs_tell_nothing(epochs: int) -> None:
    assert told([0.1, 0.5, 0.9][:epochs]).endswith(f"4 epochs or more, and there are {epochs}")


def test_without_a_curve_there_is_no_sentence() -> None:
    assert judge([]) is None
    assert judge(curve([math.nan, math.inf])) is None
    assert fields([]) == {"learning": None, "overfitting_since": None}


def test_epochs_that_diverged_are_left_out() -> None:
    assert told([1.0, 0.5, 0.6, 0.7, 0.8, math.nan]).startswith("overfitting since epoch 2")
    assert told([0.9, 0.8, 0.7, 0.6], [1.0, math.inf, 0.9, 0.8]).startswith("too short")


def noisy(level: NDArray[np.float64], noise: float) -> list[int | None]:
    """The verdicts on 500 draws of noise about a level, as training loss falls in a line."""
    rng = np.random.default_rng(0)
    training = np.linspace(1.0, 0.2, len(level)).tolist()
    draws = level + rng.normal(0, noise, (500, len(level)))
    return [fields(curve(losses, training))["overfitting_since"] for losses in draws.tolist()]


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("epochs", [10, 15, 60])
def test_noise_alone_is_hardly_ever_taken_for_it(noise: float, epochs: int) -> None:
    level = 0.5 + 0.8 * np.exp(-np.arange(epochs) / 2)
    assert sum(since is not None for since in noisy(level, noise)) <= 5


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.02])
def test_a_rise_well_above_the_noise_is_found(noise: float) -> None:
    epochs = np.arange(40)
    level = 0.5 + 0.8 * np.exp(-epochs / 2) + 0.01 * np.clip(epochs - 15, 0, None)
    found = [since for since in noisy(level, noise) if since is not None]
    assert len(found) >= 490
    assert 8 <= np.median(found) <= 18
