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
from hpo.models.moments import centre, unbiased
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
        of_stream: dict[int, list[ReadingLayout]] = {}
        for layout in layouts:
            of_stream.setdefault(layout.stream, []).append(layout)
        self._batches = {stream: _Batch(like, own) for stream, own in of_stream.items()}
        self.each: list[PlainInputs | NormalisedInputs] = []
        for layout in layouts:
            shared = self._batches[layout.stream]
            self.each.append(
                NormalisedInputs(layout, shared, parameters, gradients, statistics, operand_dtype)
                if layout.norm
                else PlainInputs(layout, shared, operand_dtype)
            )
        self.noisy = any(layout.dropout > 0 for layout in layouts)

    def forward(self, features: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        """Prepare a training batch.

        Args:
            features: of each stream, `[batch, inputs]` in the operand dtype.
            noise: of each stream random bytes, uint8 `[inputs, batch]`; none if not `noisy`.
        """
        for stream, batch in self._batches.items():
            batch.read(features[stream], noise[stream] if self.noisy else None)
        for reading in self.each:
            reading.forward()

    def backward(self) -> None:
        """Write the gradients of batch norm, and let go of the batch."""
        for reading in self.each:
            reading.backward()
        for batch in self._batches.values():
            batch.forget()


class _Batch:
    """A stream's batch and what several readings need of it, one row an input, each once.

    Attributes:
        given: the batch itself.
        rows: the same in memory of its own, in the dtype of parameters.
        normal: the rows by their own means and variances.
        mean: of the rows.
        unbiased: their variances, for running statistics.
        masks: by the probability of a zero, factors of dropout: 0 or 1 / keep.
    """

    def __init__(self, like: Tensor, layouts: Sequence[ReadingLayout]) -> None:
        self._prepared = any(layout.is_prepared for layout in layouts)
        self._normalised = any(layout.norm for layout in layouts)
        self.given = like
        self.rows = torch.zeros_like(like) if self._prepared else like
        self.normal = torch.zeros_like(like) if self._normalised else like
        self.mean = self.unbiased = like[:, 0]
        probabilities = {layout.dropout for layout in layouts if layout.dropout}
        self.masks = {probability: torch.ones_like(like) for probability in probabilities}

    def read(self, features: Tensor, noise: Tensor | None) -> None:
        """Take a batch `[batch, inputs]`, and its random bytes if there is dropout."""
        self.given = features.t()
        if self._prepared:
            self.rows.copy_(self.given)
        if self._normalised:
            self.mean, variance = centre(self.rows, self.normal)
            self.normal.mul_(torch.rsqrt(variance + NORM_EPSILON)[:, None])
            self.unbiased = unbiased(variance, self.rows.shape[1])
        for probability, mask in self.masks.items():
            assert noise is not None
            torch.ge(noise, threshold(probability), out=mask)
            mask.mul_(scale(probability))

    def forget(self) -> None:
        """Let go of the batch."""
        self.given = self.rows


class PlainInputs:
    """The batch itself, or what dropout leaves of it; all members read the same.

    Attributes:
        stream: whose batch.
        grad: nothing below is trained, so there is none.
    """

    grad: Tensor | None = None

    def __init__(self, layout: ReadingLayout, shared: _Batch, operand_dtype: torch.dtype) -> None:
        self.stream = layout.stream
        self._shared = shared
        self._mask = shared.masks.get(layout.dropout)
        self._dropped = shared.rows
        if self._mask is not None:
            self._dropped = torch.zeros_like(shared.rows, dtype=operand_dtype)

    @property
    def operand(self) -> Tensor:
        """What products read, `[inputs, batch]`."""
        return self._shared.given if self._mask is None else self._dropped

    def forward(self) -> None:
        """Take the batch."""
        if self._mask is not None:
            torch.mul(self._shared.rows, self._mask, out=self._dropped)

    def backward(self) -> None:
        """There is nothing to be learnt."""


class NormalisedInputs:
    """The batch of a stream by the batch norm, and dropout, of each of some members.

    Attributes:
        stream: whose batch.
        operand: what products read, `[members * inputs, batch]`.
        grad: the derivative of the loss by that; products write it.
    """

    grad: Tensor | None

    def __init__(
        self,
        layout: ReadingLayout,
        shared: _Batch,
        parameters: Tensor,
        gradients: Tensor,
        statistics: Tensor,
        operand_dtype: torch.dtype,
    ) -> None:
        norm = layout.norm
        assert norm is not None
        inputs, batch = shared.normal.shape
        self.stream = layout.stream
        self._shared = shared
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
        self._mask = shared.masks.get(layout.dropout)
        # By the statistics of the batch alone, after dropout.
        self._read = shared.normal if self._mask is None else torch.zeros_like(shared.normal)
        self._own = parameters.new_zeros(len(self._weight), inputs, batch)
        self.operand = self._own.view(-1, batch).to(operand_dtype)
        self.grad = torch.zeros_like(self._own).view(-1, batch)

    def forward(self) -> None:
        """Take the batch, and move the running statistics."""
        weight, bias = self._weight[:, :, None], self._bias[:, :, None]
        if self._mask is None:
            torch.addcmul(bias, self._read, weight, out=self._own)
        else:
            torch.mul(self._shared.normal, self._mask, out=self._read)
            torch.mul(self._read, weight, out=self._own).addcmul_(self._mask, bias)
        if self.operand.dtype != self._own.dtype:
            self.operand.copy_(self._own.view_as(self.operand))
        self._mean.lerp_(self._shared.mean, NORM_MOMENTUM)
        self._variance.lerp_(self._shared.unbiased, NORM_MOMENTUM)

    def backward(self) -> None:
        """Write the gradients of scale and shift, given `grad`."""
        assert self.grad is not None
        grad = self.grad.view_as(self._own)
        # By a batched product it takes three times as long.
        products = torch.mul(grad, self._read, out=self._own)
        torch.sum(products, 2, out=self._by_weight)
        if self._mask is not None:
            grad = grad.mul_(self._mask)
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
