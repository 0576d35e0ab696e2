"""Means and variances of a batch, row by row, as batch norm needs them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["centre", "unbiased"]


def centre(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Write the rows less their means to `out`, both `[units, batch]`.

    Returns:
        The means and the variances (over `batch`, not one less), `[units]`.
    """
    mean = rows.mean(1)
    torch.sub(rows, mean[:, None], out=out)
    # Squared after centring: sums of raw squares lose all digits when |mean| >> std.
    variance = torch.linalg.vector_norm(out, dim=1).square_().div_(rows.shape[1])
    return mean, variance


def unbiased(variance: Tensor, batch: int) -> Tensor:
    """The variance that goes into running statistics, in place."""
    return variance.mul_(batch / max(batch - 1, 1))
