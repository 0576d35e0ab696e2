"""What the first layers of members read: the batches of their streams, as they are or prepared.

Inputs are prepared by batch norm (Ioffe and Szegedy 2015), by dropout, or by both, in this order.
The statistics of a batch are the same for all who read it, and so are the random bytes of its
dropout. So a batch is normalised once a stream; members that only drop inputs read one tensor with
all others of their probability; and those with a batch norm have inputs of their own by its scale
and shift alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.models.layout import ReadingLayout
from hpo.models.mlp import NORM_EPSILON, NORM_MOMENTUM
from hpo.models.noise import scale, threshold

__all__ = ["NormalisedInputs", "PlainInputs", "Readings", "multiply"]


class Readings:
    """All that is read in a training pass.

    Args:
        layouts: what is read.
        inputs: numbers of a row.
        batch: rows of a training batch.
        parameters: of all members, flat; `gradients` and `statistics` likewise.
        operand_dtype: of the operands of products.
    """

    def __init__(
        self,
        layouts: Sequence[ReadingLayout],
        inputs: int,
        batch: int,
        parameters: Tensor,
        gradients: Tensor,
        statistics: Tensor,
        operand_dtype: torch.dtype,
    ) -> None:
        like = parameters.new_zeros(inputs, batch)
        self._streams = {
            layout.stream: _StreamRows(like) for layout in layouts if layout.is_prepared
        }
        self._normalised = {layout.stream for layout in layouts if layout.norm}
        self.each: list[PlainInputs | NormalisedInputs] = [
            NormalisedInputs(layout, like, parameters, gradients, statistics, operand_dtype)
            if layout.norm
            else PlainInputs(layout, like, operand_dtype)
            for layout in layouts
        ]
        self.noisy = any(layout.dropout > 0 for layout in layouts)

    def forward(self, features: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        """Prepare a training batch.

        Args:
            features: of each stream, `[batch, inputs]` in the operand dtype.
            noise: of each stream random bytes, uint8 `[inputs, batch]`; none if not `noisy`.
        """
        for stream, rows in self._streams.items():
            rows.read(features[stream], normalise=stream in self._normalised)
        for reading in self.each:
            drawn = noise[reading.stream] if reading.dropout else None
            reading.forward(features[reading.stream], self._streams.get(reading.stream), drawn)

    def backward(self) -> None:
        """Write the gradients of batch norm, and let go of the batch."""
        for reading in self.each:
            reading.backward()


class _StreamRows:
    """A stream's batch with one row an input, and its statistics."""

    def __init__(self, like: Tensor) -> None:
        self.rows = torch.zeros_like(like)
        self.normal = torch.zeros_like(like)
        self.mean = self.unbiased = like[:, 0]

    def read(self, features: Tensor, *, normalise: bool) -> None:
        """Take a batch `[batch, inputs]`."""
        self.rows.copy_(features.t())
        if not normalise:
            return
        batch = self.rows.shape[1]
        self.mean = self.rows.mean(1)
        torch.sub(self.rows, self.mean[:, None], out=self.normal)
        # Squared after centring: sums of raw squares lose all digits when |mean| >> std.
        variance = torch.linalg.vector_norm(self.normal, dim=1).square_().div_(batch)
        self.normal.mul_(torch.rsqrt(variance + NORM_EPSILON)[:, None])
        self.unbiased = variance.mul_(batch / max(batch - 1, 1))


class _Dropout:
    """The factors by which inputs are multiplied, `[inputs, batch]`: 0 or 1 / keep."""

    def __init__(self, probability: float, like: Tensor) -> None:
        self._threshold, self._scale = threshold(probability), scale(probability)
        self.mask = torch.ones_like(like)

    def fill(self, noise: Tensor) -> Tensor:
        torch.ge(noise, self._threshold, out=self.mask)
        return self.mask.mul_(self._scale)


class PlainInputs:
    """The batch itself, or what dropout leaves of it; all members read the same.

    Attributes:
        stream: whose batch.
        dropout: what makes zeros of it, if anything does.
        operand: what products read, `[inputs, batch]`.
        grad: nothing below is trained, so there is none.
    """

    grad: Tensor | None = None

    def __init__(self, layout: ReadingLayout, like: Tensor, operand_dtype: torch.dtype) -> None:
        self.stream = layout.stream
        self.dropout = _Dropout(layout.dropout, like) if layout.dropout else None
        self._dropped = torch.zeros_like(like, dtype=operand_dtype) if layout.dropout else like
        self.operand = self._dropped

    def forward(self, features: Tensor, shared: _StreamRows | None, noise: Tensor | None) -> None:
        """Take a batch `[batch, inputs]`."""
        self.operand = features.t()
        if self.dropout is not None:
            assert shared is not None
            assert noise is not None
            mask = self.dropout.fill(noise)
            self.operand = torch.mul(shared.rows, mask, out=self._dropped)

    def backward(self) -> None:
        """Let go of the batch."""
        self.operand = self._dropped


class NormalisedInputs:
    """The batch of a stream by the batch norm, and dropout, of each of some members.

    Attributes:
        stream: whose batch.
        dropout: what makes zeros of it, if anything does.
        operand: what products read, `[members * inputs, batch]`.
        grad: the derivative of the loss by that; products write it.
    """

    grad: Tensor | None

    def __init__(
        self,
        layout: ReadingLayout,
        like: Tensor,
        parameters: Tensor,
        gradients: Tensor,
        statistics: Tensor,
        operand_dtype: torch.dtype,
    ) -> None:
        norm = layout.norm
        assert norm is not None
        inputs, batch = like.shape
        self.stream = layout.stream
        self.dropout = _Dropout(layout.dropout, like) if layout.dropout else None
        self._weight, self._bias, self._by_weight, self._by_bias, self._mean, self._variance = (
            span.view(flat).view(-1, inputs)
            for span, flat in (
                (norm.weight, parameters),
                (norm.bias, parameters),
                (norm.weight, gradients),
                (norm.bias, gradients),
                (norm.mean, statistics),
                (norm.variance, statistics),
            )
        )
        self._read = like  # by the statistics of the batch alone, after dropout
        self._dropped = torch.zeros_like(like) if layout.dropout else like
        self._own = like.new_zeros(len(self._weight), inputs, batch)
        self.operand = self._own.view(-1, batch).to(operand_dtype)
        self.grad = torch.zeros_like(self._own).view(-1, batch)

    def forward(self, features: Tensor, shared: _StreamRows | None, noise: Tensor | None) -> None:  # noqa: ARG002
        """Take a batch, and move the running statistics."""
        assert shared is not None
        weight, bias = self._weight[:, :, None], self._bias[:, :, None]
        if self.dropout is None:
            self._read = shared.normal
            torch.addcmul(bias, self._read, weight, out=self._own)
        else:
            assert noise is not None
            mask = self.dropout.fill(noise)
            self._read = torch.mul(shared.normal, mask, out=self._dropped)
            torch.mul(self._read, weight, out=self._own).addcmul_(mask, bias)
        if self.operand.dtype != self._own.dtype:
            self.operand.copy_(self._own.view_as(self.operand))
        self._mean.lerp_(shared.mean, NORM_MOMENTUM)
        self._variance.lerp_(shared.unbiased, NORM_MOMENTUM)

    def backward(self) -> None:
        """Write the gradients of scale and shift, given `grad`."""
        assert self.grad is not None
        grad = self.grad.view_as(self._own)
        # By a batched product it takes three times as long.
        products = torch.mul(grad, self._read, out=self._own)
        torch.sum(products, 2, out=self._by_weight)
        if self.dropout is not None:
            grad = grad.mul_(self.dropout.mask)
        torch.sum(grad, 2, out=self._by_bias)

    def predict(self, features: Tensor, weight: Tensor, rows: slice, out: Tensor) -> None:
        """The product of neighbours with what they read, by running statistics.

        Args:
            features: `[rows, inputs]`, in the operand dtype.
            weight: of the product, `[count, units, inputs]`, not rounded for products.
            rows: which of `operand` they read in training.
            out: `[count, units, rows]`.
        """
        inputs = features.shape[1]
        members = slice(rows.start // inputs, rows.stop // inputs)
        slope = self._weight[members] * torch.rsqrt(self._variance[members] + NORM_EPSILON)
        # The rows less their mean, not the rows: pixels that hardly change have a scale in the
        # hundreds, and their digits would be lost where two large numbers meet.
        mean = features.mean(0, dtype=weight.dtype)
        shift = self._bias[members] + (mean - self._mean[members]) * slope
        folded = (weight * slope[:, None]).to(features.dtype)
        centred = (features - mean).to(features.dtype)
        count, units, _ = weight.shape
        tall = folded.view(1, count * units, inputs)
        multiply(tall, centred.t()[None], out.view(1, count * units, -1))
        out.add_(torch.bmm(weight, shift[:, :, None]))


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """`left @ right` of batched matrices; `out` may have more digits than these."""
    if left.dtype == out.dtype:
        torch.bmm(left, right, out=out)
    else:
        out.copy_(left @ right)
