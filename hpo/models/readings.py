"""What the first layers of members read: the batches of their streams, as they are or prepared.

Inputs are prepared by batch norm (Ioffe and Szegedy 2015), by dropout, or by both, in this order.
The statistics of a batch are the same for all who read it, and so are the random bytes of its
dropout. So a batch is normalised once a stream; members that only drop inputs read one tensor with
all others of their probability; and those with a batch norm differ by its scale and shift alone.
Their inputs are made a few members at a time, near the caches, and the derivative by them is never
made: with n the normal inputs and m the mask, a layer reads n m scale + m shift, so its gradients
follow from two products that all members share the right side of, by n m and by m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.models.layout import ReadingLayout
from hpo.models.mlp import NORM_EPSILON, NORM_MOMENTUM
from hpo.models.moments import centre, unbiased
from hpo.models.noise import scale, threshold
from hpo.models.products import multiply

__all__ = ["Readings"]

# So much of members' own inputs is made at once: on a CPU what its caches hold, on a GPU what
# takes few launches.
_AT_ONCE = {"cpu": 2**21}
_AT_ONCE_ELSEWHERE = 2**28


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
        self.each: list[_PlainInputs | _NormalisedInputs] = []
        for layout in layouts:
            shared = self._batches[layout.stream]
            self.each.append(
                _NormalisedInputs(layout, shared, parameters, gradients, statistics, operand_dtype)
                if layout.norm
                else _PlainInputs(layout, shared, operand_dtype)
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

    def forget(self) -> None:
        """Let go of the batch."""
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


class _PlainInputs:
    """The batch itself, or what dropout leaves of it; all members read the same."""

    rounds = True

    def __init__(self, layout: ReadingLayout, shared: _Batch, operand_dtype: torch.dtype) -> None:
        self.stream = layout.stream
        self._shared = shared
        self._mask = shared.masks.get(layout.dropout)
        self._dropped = shared.rows
        if self._mask is not None:
            self._dropped = torch.zeros_like(shared.rows, dtype=operand_dtype)

    def forward(self) -> None:
        """Take the batch."""
        if self._mask is not None:
            torch.mul(self._shared.rows, self._mask, out=self._dropped)

    def product(self, members: slice, weight: Tensor, out: Tensor) -> None:  # noqa: ARG002
        """As `Reading.product`; all members are one tall matrix."""
        multiply(weight, self._read()[None], out)

    def gradients(
        self,
        members: slice,  # noqa: ARG002
        weight: Tensor,  # noqa: ARG002
        grad: Tensor,
        out: Tensor,
    ) -> None:
        """As `Reading.gradients`."""
        multiply(grad, self._read().t()[None], out)

    def predict(
        self,
        features: Tensor,
        members: slice,  # noqa: ARG002
        weight: Tensor,
        out: Tensor,
    ) -> None:
        """As `Reading.predict`."""
        multiply(weight, features.t()[None], out)

    def _read(self) -> Tensor:
        return self._shared.given if self._mask is None else self._dropped


class _NormalisedInputs:
    """The batch of a stream by the batch norm, and dropout, of each of some members."""

    rounds = False  # the weights are scaled first

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
        # By the statistics of the batch alone, after dropout; and the same two for products.
        self._read = shared.normal if self._mask is None else torch.zeros_like(shared.normal)
        self._read_operand = self._read.to(operand_dtype)
        self._mask_operand = None if self._mask is None else self._mask.to(operand_dtype)
        most = _AT_ONCE.get(parameters.device.type, _AT_ONCE_ELSEWHERE)
        self._at_once = min(len(self._weight), max(1, most // shared.normal.nbytes))
        self._own = parameters.new_zeros(self._at_once, inputs, batch)
        self._operand = self._own.to(operand_dtype)
        self._scratch = parameters.new_zeros(0)

    def forward(self) -> None:
        """Take the batch, and move the running statistics."""
        if self._mask is not None:
            torch.mul(self._shared.normal, self._mask, out=self._read)
        for operand, value in (
            (self._read_operand, self._read),
            (self._mask_operand, self._mask),
        ):
            if operand is not None and value is not None and operand is not value:
                operand.copy_(value)
        self._mean.lerp_(self._shared.mean, NORM_MOMENTUM)
        self._variance.lerp_(self._shared.unbiased, NORM_MOMENTUM)

    def product(self, members: slice, weight: Tensor, out: Tensor) -> None:
        """As `Reading.product`."""
        count = members.stop - members.start
        for start in range(0, count, self._at_once):
            part = slice(start, min(start + self._at_once, count))
            scale, shift = self._weight[members][part, :, None], self._bias[members][part, :, None]
            own = self._own[: len(scale)]
            if self._mask is None:
                torch.addcmul(shift, self._read, scale, out=own)
            else:
                torch.mul(self._read, scale, out=own).addcmul_(self._mask, shift)
            operand = self._operand[: len(scale)]
            if operand.dtype != own.dtype:
                operand.copy_(own)
            multiply(weight[part], operand, out[part])

    def gradients(self, members: slice, weight: Tensor, grad: Tensor, out: Tensor) -> None:
        """As `Reading.gradients`: by the weights, and by scale and shift."""
        scale, shift = self._weight[members, None], self._bias[members, None]
        by_read, by_mask = self._room(*out.shape)
        _tall(grad, self._read_operand, by_read)
        torch.mul(by_read, scale, out=out)
        torch.sum(by_read.mul_(weight), 1, out=self._by_weight[members])
        if self._mask_operand is None:
            # Each row reads the shift as it is, so the product by the mask is one sum.
            sums = grad.sum(2, keepdim=True, dtype=out.dtype)
            out.addcmul_(sums, shift)
            torch.sum(torch.mul(weight, sums, out=by_mask), 1, out=self._by_bias[members])
        else:
            _tall(grad, self._mask_operand, by_mask)
            out.addcmul_(by_mask, shift)
            torch.sum(by_mask.mul_(weight), 1, out=self._by_bias[members])

    def predict(self, features: Tensor, members: slice, weight: Tensor, out: Tensor) -> None:
        """As `Reading.predict`, by running statistics."""
        inputs = features.shape[1]
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

    def _room(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Two tensors of that shape to write to; kept, as fresh memory is slow."""
        size = math.prod(shape)
        if len(self._scratch) < 2 * size:
            self._scratch = self._own.new_empty(2 * size)
        return self._scratch[:size].view(shape), self._scratch[size : 2 * size].view(shape)


def _tall(grad: Tensor, read: Tensor, out: Tensor) -> None:
    """The products of all members' `grad`, `[count, units, batch]`, with one `read`, as one."""
    count, units, batch = grad.shape
    tall = grad.reshape(1, count * units, batch)
    multiply(tall, read.t()[None], out.view(1, count * units, -1))
