"""The loss of all members at once, with its derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["NO_ROW", "cross_entropy", "score"]

NO_ROW = -1
"""The label of what fills a batch up; it adds nothing to a score."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of every member against targets it may smooth, and the gradient.

    Args:
        logits: `[members, classes, batch]`.
        labels: `[members, batch]`, or `[1, batch]` where all see the same rows; class indices.
        smoothing: `[members]`; the share of the target spread evenly over all classes
            (Szegedy et al. 2016, section 7).

    Returns:
        The losses `[members]` in nats, and their derivative by the logits, of their shape.
    """
    members, classes, batch = logits.shape
    spread = (smoothing / classes)[:, None, None]
    kept = (1 - smoothing)[:, None, None]
    right = labels[:, None].expand(members, 1, batch)
    logarithms = torch.log_softmax(logits, 1)
    losses = kept * logarithms.gather(1, right)
    losses.addcmul_(spread, logarithms.sum(1, keepdim=True))
    gradient = logarithms.exp_().sub_(spread)
    gradient.scatter_add_(1, right, -kept.expand(members, 1, batch))
    return losses.sum((1, 2)).div_(-batch), gradient.div_(batch)


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a pass over some rows adds to each member's score.

    Args:
        logits: `[members, classes, rows]`.
        labels: `[members, rows]`, or `[1, rows]` where all see the same rows; class indices, or
            `NO_ROW` where there is none.

    Returns:
        Sums over the rows, `[members]` each: cross-entropy in nats, and rows classified rightly.
        Rows with a logit that is not a number count as wrong.
    """
    expected = labels.expand(len(logits), -1)
    losses = functional.cross_entropy(logits, expected, reduction="none", ignore_index=NO_ROW).sum(
        1
    )
    right = (logits.argmax(1) == expected) & logits.isfinite().all(1)
    return losses, right.sum(1)
