"""What networks are trained for: classes or targets, each with its loss and its scores.

A goal adds up what some rows come to, so that rows can be scored batch by batch and on a device
that nobody waits for; scores are made of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from hpo.definition.metrics import CLASSIFICATION, REGRESSION
from hpo.training.losses import NO_ROW, cross_entropy, score, squared_error

__all__ = ["CLASSES", "TARGETS", "Classes", "Goal", "Targets"]

_FLAT = 1e-12  # of a sum of squares: a float32 cannot tell less from no spread at all


class Goal(Protocol):
    """What networks are trained for.

    Attributes:
        metrics: what a network can be judged by.
        filler: the label or target of what fills a batch up, which adds nothing to a sum.
    """

    metrics: tuple[str, ...]
    filler: float

    def loss(self, outputs: Tensor, wanted: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of every network over a batch, and its derivative.

        Args:
            outputs: `[networks, outputs, batch]`.
            wanted: labels or targets of a batch for each network, or of one for all.
            smoothing: `[networks]`, of labels.

        Returns:
            The losses `[networks]`, and their derivative by the outputs, of their shape.
        """

    def sums(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """What some rows add to each network's scores.

        Args:
            outputs: `[networks, outputs, rows]`.
            wanted: as of `loss`, or `filler` where there is no row.

        Returns:
            float64 `[networks, sums]`, which may be added up over rows.
        """

    def scores(self, sums: Tensor, scale: Tensor | None) -> Mapping[str, Tensor]:
        """The metrics, `[networks]` each, out of the sums over all rows.

        Args:
            scale: `[networks, targets]`, one standard deviation of each target in units of its
                own; None where there are classes.
        """


class Classes:
    """Rows are to be classified; `wanted` are labels, int64 `[networks or 1, batch]`.

    Scores are `loss`, mean cross-entropy in nats, and `accuracy`, a share of one.
    """

    metrics = tuple(CLASSIFICATION)
    filler: float = NO_ROW

    def loss(self, outputs: Tensor, wanted: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
        """As `Goal.loss`: cross-entropy in nats."""
        return cross_entropy(outputs, wanted, smoothing)

    def sums(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """As `Goal.sums`: the losses, the rows classified rightly, and the rows."""
        losses, right = score(outputs, wanted)
        rows = (wanted != NO_ROW).sum(1).expand_as(right)
        return torch.stack([losses.double(), right.double(), rows.double()], 1)

    def scores(self, sums: Tensor, scale: Tensor | None) -> Mapping[str, Tensor]:
        """As `Goal.scores`."""
        del scale
        losses, right, rows = sums.unbind(1)
        return {"loss": losses / rows, "accuracy": right / rows}


class Targets:
    """Numbers are to be predicted; `wanted` are standardised, `[networks or 1, batch, targets]`.

    Scores are `loss`, the mean squared error of standardised targets, without a unit; and in the
    targets' own units `mse`, its root `rmse`, the mean absolute error `mae`, and `r2`, the share
    of the scored rows' variance that is explained. Each target has its own, and their mean counts.
    """

    metrics = tuple(REGRESSION)
    filler: float = math.nan

    def loss(self, outputs: Tensor, wanted: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
        """As `Goal.loss`: mean squared error over rows and targets."""
        del smoothing
        return squared_error(outputs, wanted.transpose(1, 2).to(outputs.dtype))

    def sums(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """As `Goal.sums`: errors, their squares, targets, their squares, and rows, a target each.

        In float64, as the variance is a small difference of large sums where the mean of the
        scored rows is far from that of the training rows.
        """
        expected = wanted.transpose(1, 2).double()
        missing = expected.isnan()
        errors = (outputs.double() - expected).masked_fill(missing, 0.0)
        expected = expected.masked_fill(missing, 0.0).expand_as(errors)
        parts = [errors.abs(), errors**2, expected, expected**2, (~missing).expand_as(errors)]
        return torch.cat([part.sum(2, dtype=torch.float64) for part in parts], 1)

    def scores(self, sums: Tensor, scale: Tensor | None) -> Mapping[str, Tensor]:
        """As `Goal.scores`; several targets count alike.

        Where a target never changes `r2` is 1 if it is met and 0 if it is not, as in scikit-learn.
        """
        assert scale is not None
        scale = scale.double()  # its square may be beyond float32
        sizes, squares, values, values_squared, rows = sums.chunk(5, 1)
        spread = values_squared - values**2 / rows
        flat = spread <= _FLAT * values_squared
        explained = 1 - squares / spread.masked_fill(flat, 1.0)
        met = torch.where(squares.isnan(), squares, (squares == 0).double())
        mse = squares / rows
        return {
            "loss": mse.mean(1),
            "mse": (mse * scale**2).mean(1),
            "rmse": (mse.sqrt() * scale).mean(1),
            "mae": (sizes / rows * scale).mean(1),
            "r2": torch.where(flat, met, explained).mean(1),
        }


CLASSES, TARGETS = Classes(), Targets()
