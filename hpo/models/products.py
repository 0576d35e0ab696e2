"""The matrix products of members side by side, and what they need on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from hpo.models.layout import ProductLayout

__all__ = ["FirstProduct", "InnerProduct", "Layer", "Reading", "multiply"]


class Layer(Protocol):
    """A hidden layer that products read, rows are units.

    Attributes:
        operand: what they read, `[units, batch]`.
        grad: where the derivative by that is wanted.
    """

    operand: Tensor
    grad: Tensor


class Reading(Protocol):
    """What some members read of the batches of a stream; see `hpo.models.readings`.

    Attributes:
        stream: whose batches.
        rounds: whether `predict` takes weights rounded for products; else as they are.
    """

    stream: int
    rounds: bool

    def product(self, members: slice, weight: Tensor, out: Tensor) -> None:
        """The product of neighbours with what they read.

        Args:
            members: which of those with this reading.
            weight: of the product, `[count, units, inputs]`.
            out: `[count, units, batch]`.
        """

    def gradients(self, members: slice, weight: Tensor, grad: Tensor, out: Tensor) -> None:
        """Write the gradients by the weights of a product, and by all else that is trained here.

        Args:
            members: as `product` takes them; `weight` likewise.
            grad: by what `product` wrote, `[count, units, batch]`.
            out: by the weights, `[count, units, inputs]`.
        """

    def predict(self, features: Tensor, members: slice, weight: Tensor, out: Tensor) -> None:
        """The product of neighbours with what they read while they are scored.

        Args:
            features: `[rows, inputs]`, in the operand dtype.
            members: as `product` takes them.
            weight: of the product, `[count, units, inputs]`; rounded for products if it `rounds`.
            out: `[count, units, rows]`.
        """


class _Neighbours:
    """Equal products of neighbours, each of which writes rows of its own.

    Args:
        value: their weights, `[outputs of all, inputs of each]`; the other two are of that shape.
        operand: the same as an operand of products.
        gradient: where the derivative by them is wanted.
    """

    def __init__(
        self, layout: ProductLayout, value: Tensor, operand: Tensor, gradient: Tensor
    ) -> None:
        self._count, self._outputs = layout.count, layout.outputs
        self._value = self._each(value)
        self._weight = self._each(operand)
        self._gradient = self._each(gradient)

    def _own(self, rows: Tensor) -> Tensor:
        """Those that these products write."""
        return self._each(rows[self._outputs])

    def _each(self, rows: Tensor) -> Tensor:
        return rows.view(self._count, -1, rows.shape[1])


class InnerProduct(_Neighbours):
    """Products of neighbours with what a hidden layer gives; arguments as of `_Neighbours`."""

    def __init__(
        self, layout: ProductLayout, value: Tensor, operand: Tensor, gradient: Tensor
    ) -> None:
        super().__init__(layout, value, operand, gradient)
        self._below, self._inputs = layout.below, layout.inputs

    def forward(self, layers: Sequence[Layer], out: Tensor) -> None:
        """Write the products to their rows of `out`, `[rows, batch]`."""
        self._multiply(layers[self._below].operand, out)

    def predict(
        self,
        features: Sequence[Tensor],  # noqa: ARG002
        operands: Sequence[Tensor],
        out: Tensor,
    ) -> None:
        """As `forward`, of rows that are scored: what they read of each layer is given."""
        self._multiply(operands[self._below], out)

    def backward(self, layers: Sequence[Layer], grad: Tensor) -> None:
        """Write the derivatives by the weights and by what was read, given that by `out`."""
        below, own = layers[self._below], self._own(grad)
        read = self._each(below.operand[self._inputs])
        multiply(own, read.transpose(1, 2), self._gradient)
        multiply(self._weight.transpose(1, 2), own, self._each(below.grad[self._inputs]))

    def _multiply(self, read: Tensor, out: Tensor) -> None:
        multiply(self._weight, self._each(read[self._inputs]), self._own(out))


class FirstProduct(_Neighbours):
    """Products of neighbours with the inputs, as these members read them.

    Args:
        reading: what they read; other arguments as of `_Neighbours`.
    """

    def __init__(
        self,
        layout: ProductLayout,
        value: Tensor,
        operand: Tensor,
        gradient: Tensor,
        reading: Reading,
    ) -> None:
        super().__init__(layout, value, operand, gradient)
        inputs = value.shape[1]
        self._members = slice(layout.inputs.start // inputs, layout.inputs.stop // inputs)
        self._reading = reading

    def forward(self, layers: Sequence[Layer], out: Tensor) -> None:  # noqa: ARG002
        """As `InnerProduct.forward`."""
        self._reading.product(self._members, self._weight, self._own(out))

    def predict(
        self,
        features: Sequence[Tensor],
        operands: Sequence[Tensor],  # noqa: ARG002
        out: Tensor,
    ) -> None:
        """As `InnerProduct.predict`; `features` are of each stream."""
        read = features[self._reading.stream]
        weight = self._weight if self._reading.rounds else self._value
        self._reading.predict(read, self._members, weight, self._own(out))

    def backward(self, layers: Sequence[Layer], grad: Tensor) -> None:  # noqa: ARG002
        """As `InnerProduct.backward`; nothing is trained below but what belongs to the reading."""
        self._reading.gradients(self._members, self._weight, self._own(grad), self._gradient)


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """`left @ right` of batched matrices; `out` may have more digits than these."""
    if left.dtype == out.dtype:
        torch.bmm(left, right, out=out)
    else:
        out.copy_(left @ right)
