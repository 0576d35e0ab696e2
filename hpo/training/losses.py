"""The loss of all members at once, with its derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["cross_entropy", "score"]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of every member against targets it may smooth, and the gradient.

    Args:
        logits: `[batch, members, classes]`.
        labels: `[batch, members]`, or `[batch, 1]` where all see the same rows; class indices.
        smoothing: `[members]`; the share of the target spread evenly over all classes
            (Szegedy et al. 2016, section 7).

    Returns:
        The losses `[members]` in nats, and their derivative by the logits, of their shape.
    """
    batch, _, classes = logits.shape
    targets = functional.one_hot(labels, classes).to(logits.dtype)
    targets = torch.lerp(targets, torch.full_like(targets, 1 / classes), smoothing[:, None])
    logarithms = torch.log_softmax(logits, -1)
    losses = (targets * logarithms).sum((0, 2)).div_(-batch)
    return losses, logarithms.exp_().sub_(targets).div_(batch)


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a pass over some rows adds to each member's score.

    Returns:
        Sums over the rows, `[members]` each: cross-entropy in nats, and rows classified rightly.
        Rows with a logit that is not a number count as wrong.
    """
    members = logits.shape[1]
    flat = labels[:, None].expand(-1, members)
    losses = functional.cross_entropy(logits.transpose(1, 2), flat, reduction="none").sum(0)
    right = (logits.argmax(-1) == flat) & logits.isfinite().all(-1)
    return losses, right.sum(0)
