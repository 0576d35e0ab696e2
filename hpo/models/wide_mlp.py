"""Multilayer perceptrons side by side: many networks, one forward and one backward pass.

The hidden units of all members lie next to each other, one row a unit, in one tensor
`[sum of widths, batch]` a layer, so members of any depth and width need no padding and each is one
block of memory. What is per unit (batch norm, activation) is done for all of them at once; the
first layers of members that read the same inputs are one matrix product; the inner products are a
member's own, in one batched product for neighbours of one shape. No product needs a transposed
copy. The backward pass is written out by hand over buffers that are allocated once: with
autograd, half of the time goes into allocations and copies.

Nothing here knows seeds, optimizers or data. `tests/models/test_wide_mlp.py` holds every member
against the torch module of `hpo.models.mlp` in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hpo.config import MlpConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.layout import LayerLayout, Layout, NormLayout, ProductLayout, Span
from hpo.models.mlp import NORM_EPSILON, NORM_MOMENTUM
from hpo.models.moments import centre, unbiased
from hpo.models.products import FirstProduct, InnerProduct
from hpo.models.readings import Readings

__all__ = ["WideMlp"]

_aten = torch.ops.aten


class WideMlp:
    """Networks side by side.

    Args:
        configs: one for each member, in the order of `layout.arrange`.
        inputs: features of a row.
        outputs: classes.
        batch: rows of a training batch.
        streams: for each member, which of the batches given to a pass it reads; by default all
            read the first.
        dtype: of parameters, gradients and everything by columns.
        operand_dtype: of the operands of matrix products; `bfloat16` keeps the master weights in
            `dtype` and multiplies copies of them.

    Attributes:
        parameters: all trained numbers of all members, flat.
        gradients: their gradients after `backward`, in the same places.
        statistics: batch norm's running means and variances, flat.
        noisy: whether a training pass needs random bytes of the batches.
        masks: for each layer with dropout, by its depth: the factors `[units, batch]` by which a
            training pass multiplies, ones at first, and of each member that has some its units
            and the probability.
    """

    def __init__(
        self,
        configs: Sequence[MlpConfig],
        inputs: int,
        outputs: int,
        *,
        batch: int,
        device: torch.device,
        streams: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        operand_dtype: torch.dtype | None = None,
    ) -> None:
        self.configs = list(configs)
        self.outputs = outputs
        self.batch = batch
        self.device = device
        self.dtype = dtype
        self.operand_dtype = operand_dtype or dtype
        self._streams = list(streams or [0] * len(configs))
        self._layout = Layout(configs, inputs, outputs, self._streams)
        self.parameters = self._zeros(self._layout.trained)
        self.gradients = self._zeros(self._layout.trained)
        self.statistics = self._zeros(self._layout.tracked)
        self._operands = self.parameters
        if self.operand_dtype != dtype:
            self._operands = self.parameters.to(self.operand_dtype)
        self._readings = Readings(
            self._layout.readings,
            *(inputs, batch, self.parameters, self.gradients, self.statistics),
            self.operand_dtype,
        )
        self.noisy = self._readings.noisy
        self._layers = [_Layer(self, layer) for layer in self._layout.layers]
        self._output = [_product(self, product) for product in self._layout.output]
        self._output_bias = _Parameter(self, self._layout.output_bias)
        self._logits = self._zeros(len(configs) * outputs, batch)
        self.masks = {
            depth: (layer.mask, layer.dropped)
            for depth, layer in enumerate(self._layers)
            if layer.dropped
        }

    @property
    def layers(self) -> int:
        """How many hidden ones there are."""
        return len(self._layers)

    def rows_of(self, depth: int) -> dict[int, slice]:
        """Which units of a layer are whose, as they lie; those of the logits for -1."""
        if depth >= 0:
            return dict(self._layout.layers[depth].rows_of)
        size = self.outputs
        return {m: slice(m * size, (m + 1) * size) for m in range(len(self.configs))}

    # What a member is made of

    def member_parameters(self, member: int) -> dict[str, Tensor]:
        """Views of one member's trained tensors, by the names of `Mlp.state_dict()`."""
        return _views(self._layout.parameters[member], self.parameters)

    def member_gradients(self, member: int) -> dict[str, Tensor]:
        """Views of the gradients of `member_parameters`."""
        return _views(self._layout.parameters[member], self.gradients)

    def state(self, member: int) -> dict[str, Tensor]:
        """Copies of all of a member's tensors: parameters and running statistics."""
        return {name: view.clone() for name, view in self._state_views(member).items()}

    def load(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Write a member's tensors; `parameters_changed` must follow the last one."""
        for name, view in self._state_views(member).items():
            view.copy_(state[name])

    def parameters_changed(self) -> None:
        """Renew what is derived from the parameters; to be called after every optimizer step."""
        if self._operands is not self.parameters:
            self._operands.copy_(self.parameters)

    # Passes

    def forward(
        self,
        features: Sequence[Tensor],
        fill_mask: Callable[[int], None],
        noise: Sequence[Tensor] = (),
    ) -> Tensor:
        """A training pass: batch statistics, dropout, and all that `backward` needs is kept.

        Args:
            features: a batch of each stream, `[batch, inputs]` in the operand dtype.
            fill_mask: given the depth of a layer with dropout, renews its `masks`.
            noise: for dropout of inputs: random bytes of each stream, uint8 `[inputs, batch]`.

        Returns:
            Logits `[members, outputs, batch]`; overwritten by the next pass.
        """
        self._readings.forward(features, noise)
        for depth, layer in enumerate(self._layers):
            for product in layer.products:
                product.forward(self._layers, layer.pre)
            if layer.norm:
                layer.norm.forward(layer.pre)
            if layer.bias:
                layer.pre[layer.normed :].add_(layer.bias.value[:, None])
            for function, rows in layer.runs:
                function.forward(layer.pre[rows], layer.hidden[rows])
            if layer.dropped:
                fill_mask(depth)
                layer.hidden.mul_(layer.mask)
            if layer.operand is not layer.hidden:
                layer.operand.copy_(layer.hidden)
        for product in self._output:
            product.forward(self._layers, self._logits)
        self._logits.add_(self._output_bias.value[:, None])
        return self._logits.view(-1, self.outputs, self.batch)

    def backward(
        self, grad_logits: Tensor, observe: Callable[[int, Tensor], None] | None = None
    ) -> None:
        """Write the gradients of the last training pass to `self.gradients`.

        Args:
            grad_logits: `[members, outputs, batch]`, the derivative of the loss by the logits.
            observe: is given the derivative by what the linear layers of one depth have written,
                `[units, batch]`, and that depth; the last one, -1, is that of the logits. What
                it is given changes afterwards.
        """
        grad = grad_logits.reshape(-1, self.batch)
        if observe is not None:
            observe(-1, grad)
        torch.sum(grad, 1, out=self._output_bias.gradient)
        self._backward_products(self._output, grad)
        for depth, layer in reversed(list(enumerate(self._layers))):
            if layer.dropped:
                layer.grad.mul_(layer.mask)
            for function, rows in layer.runs:
                function.backward(layer.grad[rows], layer.pre[rows], layer.grad[rows])
            if layer.norm:
                layer.norm.backward(layer.grad)
            if layer.bias:
                torch.sum(layer.grad[layer.normed :], 1, out=layer.bias.gradient)
            if observe is not None:
                observe(depth, layer.grad)
            self._backward_products(layer.products, layer.grad)
        self._readings.forget()

    def predict(self, features: Sequence[Tensor]) -> Tensor:
        """A pass for evaluation: running statistics, no dropout, any number of rows.

        Args:
            features: of each stream, or of one for all, `[rows, inputs]` in the operand dtype.

        Returns:
            Logits `[members, outputs, rows]`.
        """
        rows = features[self._streams[0] if len(features) > 1 else 0].shape[0]
        if len(features) == 1:
            features = [*features] * (max(self._streams) + 1)
        operands: list[Tensor] = []
        for layer in self._layers:
            pre = self._empty(layer.width, rows)
            for product in layer.products:
                product.predict(features, operands, pre)
            if layer.norm:
                layer.norm.predict(pre)
            if layer.bias:
                pre[layer.normed :].add_(layer.bias.value[:, None])
            for function, units in layer.runs:
                function.forward(pre[units], pre[units])
            operands.append(pre.to(self.operand_dtype))
        logits = self._empty(len(self.configs) * self.outputs, rows)
        for product in self._output:
            product.predict(features, operands, logits)
        logits.add_(self._output_bias.value[:, None])
        return logits.view(-1, self.outputs, rows)

    def _backward_products(
        self, products: Sequence[InnerProduct | FirstProduct], grad: Tensor
    ) -> None:
        """From the derivative by what products wrote to those by their weights and operands."""
        operand = grad.to(self.operand_dtype)
        for product in products:
            product.backward(self._layers, operand)

    def _state_views(self, member: int) -> dict[str, Tensor]:
        statistics = _views(self._layout.statistics[member], self.statistics)
        return {**self.member_parameters(member), **statistics}

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, device=self.device, dtype=self.dtype)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(*shape, device=self.device, dtype=self.dtype)


def _views(spans: Mapping[str, Span], flat: Tensor) -> dict[str, Tensor]:
    return {name: span.view(flat) for name, span in spans.items()}


class _Parameter:
    """One span's value, its gradient, and its value as an operand of products."""

    def __init__(self, model: WideMlp, span: Span) -> None:
        self.value = span.view(model.parameters)
        self.gradient = span.view(model.gradients)
        self.operand = span.view(model._operands)


def _product(model: WideMlp, layout: ProductLayout) -> InnerProduct | FirstProduct:
    weight = _Parameter(model, layout.weights)
    given = (layout, weight.value, weight.operand, weight.gradient)
    if layout.below >= 0:
        return InnerProduct(*given)
    return FirstProduct(*given, model._readings.each[layout.reading])


class _Norm:
    """Batch norm (Ioffe and Szegedy 2015) of the first rows of a layer.

    While it trains, with the statistics of the batch; `centred` keeps the rows less their means.
    """

    def __init__(self, model: WideMlp, layout: NormLayout) -> None:
        self._weight = _Parameter(model, layout.weight)
        self._bias = _Parameter(model, layout.bias)
        self._running_mean = layout.mean.view(model.statistics)
        self._running_variance = layout.variance.view(model.statistics)
        (self._units,) = layout.weight.shape
        self._batch = model.batch
        self._centred = model._zeros(self._units, model.batch)
        self._inverse_std = model._zeros(self._units)
        self._zero = model._zeros(self._units)

    def forward(self, rows: Tensor) -> None:
        """Normalise the first of `rows` in place, and move the running statistics."""
        rows = rows[: self._units]
        mean, variance = centre(rows, self._centred)
        torch.add(variance, NORM_EPSILON, out=self._inverse_std).rsqrt_()
        scale = self._weight.value * self._inverse_std
        torch.mul(self._centred, scale[:, None], out=rows).add_(self._bias.value[:, None])
        self._running_mean.lerp_(mean, NORM_MOMENTUM)
        self._running_variance.lerp_(unbiased(variance, self._batch), NORM_MOMENTUM)

    def backward(self, grad: Tensor) -> None:
        """From the derivative by what `forward` wrote to that by what it read, in place."""
        # torch's kernel does section 3 of the paper in two passes; it sees one image a channel.
        by_input, by_weight, by_bias = _aten.native_batch_norm_backward(
            grad[: self._units][None],
            self._centred[None],
            self._weight.value,
            None,
            None,
            self._zero,  # the mean of what is centred
            self._inverse_std,
            True,
            NORM_EPSILON,
            [True, True, True],
        )
        grad[: self._units] = by_input[0]
        self._weight.gradient.copy_(by_weight)
        self._bias.gradient.copy_(by_bias)

    def predict(self, rows: Tensor) -> None:
        """Normalise the first of `rows` with the running statistics, in place."""
        scale = self._weight.value * torch.rsqrt(self._running_variance + NORM_EPSILON)
        shift = self._bias.value - self._running_mean * scale
        rows[: self._units].mul_(scale[:, None]).add_(shift[:, None])


class _Layer:
    """A layer's parameters and the buffers of a training pass, `[width, batch]` each.

    `pre` is the input of the activation, `hidden` what comes out after dropout, `operand` the
    same in the dtype of products (the same tensor where they agree), `grad` the derivative of
    the loss by whatever the backward pass has reached.
    """

    def __init__(self, model: WideMlp, layout: LayerLayout) -> None:
        self.width = layout.width
        self.normed = layout.normed
        self.runs = [(ACTIVATIONS[name], rows) for name, rows in layout.runs]
        self.products = [_product(model, product) for product in layout.products]
        self.bias = layout.bias and _Parameter(model, layout.bias)
        self.norm = layout.norm and _Norm(model, layout.norm)
        self.pre = model._zeros(layout.width, model.batch)
        self.hidden = model._zeros(layout.width, model.batch)
        self.grad = model._zeros(layout.width, model.batch)
        self.operand = self.hidden
        if model.operand_dtype != model.dtype:
            self.operand = self.hidden.to(model.operand_dtype)
        self.dropped = layout.dropped
        self.mask = torch.ones_like(self.hidden) if self.dropped else self.hidden
