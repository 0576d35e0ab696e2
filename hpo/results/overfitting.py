"""Whether a network overfits, by its learning curve, in one plain sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Verdict", "fields", "judge"]

_LAST = 3  # epochs at the end, each of which has to show it
_LEAST = _LAST + 1  # epochs of a curve of which anything can be said
_NOISES = 4.0  # standard deviations of the noise that a rise has to exceed
_SHARE = 0.01  # of the least validation loss, where there is no noise
# The median of a normal variable's size, times the spread of a - 2 b + c of independent ones.
_SECOND_DIFFERENCE = 0.6745 * math.sqrt(6)

Curve = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What a learning curve says of overfitting.

    Attributes:
        overfitting_since: the epoch of the least validation loss, if the network overfits since;
            None if it does not.
        learning: the same in a sentence.
    """

    overfitting_since: int | None
    learning: str


def judge(curve: Curve) -> Verdict | None:
    """Whether validation loss has been rising while training loss falls.

    Args:
        curve: one mapping an epoch, with `epoch`, `loss` (of the validation rows) and
            `train_loss`; epochs of which a loss is not finite are left out.

    Returns:
        None for a curve without epochs.

    It is so if each of the last three epochs lies after the least validation loss, lies above it
    by a margin, and has a lower training loss than that epoch. One epoch by chance, up or down,
    decides nothing. The margin is four standard deviations of the noise from epoch to epoch, or
    one per cent where that is more. The noise is estimated from second differences, which a slow
    trend leaves near zero (Gasser, Sroka and Jennen-Steinmetz 1986), and by their median, which
    the steep first epochs do not move.
    """
    epochs = [epoch for epoch in curve if _is_finite(epoch)]
    if not epochs:
        return None
    if len(epochs) < _LEAST:
        return Verdict(
            None,
            f"too short to tell: overfitting shows over {_LEAST} epochs or more, "
            f"and there are {len(epochs)}",
        )
    losses = [epoch["loss"] for epoch in epochs]
    place = losses.index(min(losses))
    least, end, last = epochs[place], epochs[-1], epochs[-_LAST:]
    if len(epochs) - place <= _LAST:
        return Verdict(None, _fell(least, end))
    margin = max(_NOISES * _noise(losses), _SHARE * least["loss"])
    if any(epoch["loss"] <= least["loss"] + margin for epoch in last):
        return Verdict(
            None,
            f"no overfitting: validation loss was least in epoch {least['epoch']}, "
            f"{_shown(least['loss'])}, and has not clearly risen since, "
            f"{_shown(end['loss'])} in epoch {end['epoch']}",
        )
    rise = f"validation loss rose from {_shown(least['loss'])} to {_shown(end['loss'])}"
    if any(epoch["train_loss"] >= least["train_loss"] for epoch in last):
        return Verdict(
            None,
            f"no overfitting, but no progress: since epoch {least['epoch']} {rise}, and training "
            "loss did not fall either",
        )
    return Verdict(
        least["epoch"],
        f"overfitting since epoch {least['epoch']}: {rise} while training loss fell from "
        f"{_shown(least['train_loss'])} to {_shown(end['train_loss'])}",
    )


def fields(curve: Curve) -> dict[str, Any]:
    """The verdict as JSON-ready data, `learning` and `overfitting_since`; None for no curve."""
    verdict = judge(curve)
    return {
        "learning": verdict and verdict.learning,
        "overfitting_since": verdict and verdict.overfitting_since,
    }


def _fell(least: Mapping[str, Any], end: Mapping[str, Any]) -> str:
    if least is end:
        return f"no overfitting: validation loss fell to its end, {_shown(end['loss'])}"
    return (
        f"no overfitting: validation loss fell nearly to its end, {_shown(least['loss'])} in "
        f"epoch {least['epoch']} of {end['epoch']}"
    )


def _noise(losses: Sequence[float]) -> float:
    """The standard deviation of what is no trend in a curve."""
    triples = zip(losses, losses[1:], losses[2:], strict=False)
    return median(abs(a - 2 * b + c) for a, b, c in triples) / _SECOND_DIFFERENCE


def _is_finite(epoch: Mapping[str, Any]) -> bool:
    return math.isfinite(epoch["loss"]) and math.isfinite(epoch["train_loss"])


def _shown(loss: float) -> str:
    return f"{loss:.4g}"
