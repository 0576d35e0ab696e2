"""Multilayer perceptrons side by side: many networks, one forward and one backward pass.

The hidden units of all members lie next to each other in one tensor `[batch, sum of widths]` a
layer, so members of any depth and width need no padding. What is per column (batch norm,
activation, dropout) is done for all of them at once; the first layers of members that read the
same batch are one matrix product; the inner products are a member's own. The backward pass
is written out by hand over buffers that are allocated once: with autograd, half of the time goes
into allocations and copies.

Nothing here knows seeds, optimizers or data. `tests/models/test_wide_mlp.py` holds every member
against the torch module of `hpo.models.mlp` in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hpo.config import MlpConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.layout import LayerLayout, Layout, NormLayout, Span
from hpo.models.mlp import NORM_EPSILON, NORM_MOMENTUM

__all__ = ["FillMask", "WideMlp"]

FillMask = Callable[[int, Tensor], None]
"""`(member, mask)`: writes a member's dropout factors, 0 or 1 / keep, to `mask[batch, width]`."""


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
        self._layers = [_Layer(self, layer) for layer in self._layout.layers]
        self._output_weights = [_Parameter(self, span) for span in self._layout.output_weights]
        self._output_bias = _Parameter(self, self._layout.output_bias)
        self._output_columns = [
            slice(member * outputs, (member + 1) * outputs) for member in range(len(configs))
        ]
        self._logits = self._zeros(batch, len(configs) * outputs)
        self._ones = torch.ones(1, batch, device=device, dtype=dtype)
        self._features: Sequence[Tensor] = ()

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

    def forward(self, features: Sequence[Tensor], fill_mask: FillMask) -> Tensor:
        """A training pass: batch statistics, dropout, and all that `backward` needs is kept.

        Args:
            features: a batch of each stream, `[batch, inputs]` in the operand dtype.
            fill_mask: draws the dropout of members that have some.

        Returns:
            Logits `[batch, members, outputs]`; overwritten by the next pass.
        """
        self._features = features
        below = features[0]
        for layer in self._layers:
            self._products(layer, features, below, layer.pre)
            if layer.norm:
                self._normalise(layer, layer.norm)
            if layer.bias:
                layer.pre[:, layer.normed :].add_(layer.bias.value)
            for function, columns in layer.runs:
                function.forward(layer.pre[:, columns], layer.hidden[:, columns])
            if layer.dropped:
                for member, mask in layer.dropped.items():
                    fill_mask(member, mask)
                layer.hidden.mul_(layer.mask)
            if layer.operand is not layer.hidden:
                layer.operand.copy_(layer.hidden)
            below = layer.operand
        self._output(features, [layer.operand for layer in self._layers], self._logits)
        return self._logits.view(self.batch, -1, self.outputs)

    def backward(self, grad_logits: Tensor) -> None:
        """Write the gradients of the last training pass to `self.gradients`.

        Args:
            grad_logits: `[batch, members, outputs]`, the derivative of the loss by the logits.
        """
        flat = grad_logits.view(self.batch, -1)
        operand = flat.to(self.operand_dtype)
        for member, config in enumerate(self.configs):
            own, weight = operand[:, self._output_columns[member]], self._output_weights[member]
            if config.widths:
                layer = self._layers[len(config.widths) - 1]
                columns = layer.columns_of[member]
                _multiply(own.t(), layer.operand[:, columns], weight.gradient)
                _multiply(own, weight.operand, layer.grad[:, columns])
            else:
                _multiply(own.t(), self._features[self._streams[member]], weight.gradient)
        self._column_sums(flat, self._output_bias.gradient)
        for index in reversed(range(len(self._layers))):
            self._backward_layer(index)

    def predict(self, features: Tensor) -> Tensor:
        """A pass for evaluation: running statistics, no dropout, any number of rows.

        Args:
            features: `[rows, inputs]` in the operand dtype, the same for every member.

        Returns:
            Logits `[rows, members, outputs]`.
        """
        rows = features.shape[0]
        everywhere = [features] * (max(self._streams) + 1)
        below, operands = features, []
        for layer in self._layers:
            pre = torch.empty(rows, layer.width, device=self.device, dtype=self.dtype)
            self._products(layer, everywhere, below, pre)
            if layer.norm:
                scale, shift = layer.norm.folded()
                normed = pre[:, : layer.normed]
                torch.addcmul(shift, normed, scale, out=normed)
            if layer.bias:
                pre[:, layer.normed :].add_(layer.bias.value)
            for function, columns in layer.runs:
                function.forward(pre[:, columns], pre[:, columns])
            below = pre.to(self.operand_dtype)
            operands.append(below)
        width = len(self.configs) * self.outputs
        logits = torch.empty(rows, width, device=self.device, dtype=self.dtype)
        self._output(everywhere, operands, logits)
        return logits.view(rows, -1, self.outputs)

    # The steps of a pass

    def _products(
        self, layer: _Layer, features: Sequence[Tensor], below: Tensor, out: Tensor
    ) -> None:
        for stream, columns, weights in layer.shared:
            _multiply(features[stream], weights.operand.t(), out[:, columns])
        if layer.shared:
            return
        for member, columns in layer.columns_of.items():
            weight = layer.weights[member].operand
            _multiply(below[:, layer.inputs_of[member]], weight.t(), out[:, columns])

    def _normalise(self, layer: _Layer, norm: _Norm) -> None:
        """Batch norm (Ioffe and Szegedy 2015) with the statistics of the batch."""
        pre, normal = layer.pre[:, : layer.normed], norm.normal
        mean = (self._ones @ pre).div_(self.batch)
        torch.sub(pre, mean, out=normal)
        # Squared after centring: sums of raw squares lose all digits when |mean| >> std.
        variance = (self._ones @ torch.mul(normal, normal, out=pre)).div_(self.batch)
        torch.rsqrt(variance + NORM_EPSILON, out=norm.inverse_std)
        normal.mul_(norm.inverse_std)
        torch.addcmul(norm.bias.value, normal, norm.weight.value, out=pre)
        norm.mean.lerp_(mean[0], NORM_MOMENTUM)
        norm.variance.lerp_(variance[0] * (self.batch / max(self.batch - 1, 1)), NORM_MOMENTUM)

    def _output(self, features: Sequence[Tensor], hidden: Sequence[Tensor], out: Tensor) -> None:
        for member, config in enumerate(self.configs):
            below, depth = features[self._streams[member]], len(config.widths)
            if depth:
                below = hidden[depth - 1][:, self._layers[depth - 1].columns_of[member]]
            weight = self._output_weights[member].operand
            _multiply(below, weight.t(), out[:, self._output_columns[member]])
        out.add_(self._output_bias.value)

    def _backward_layer(self, index: int) -> None:
        layer = self._layers[index]
        grad = layer.grad
        if layer.dropped:
            grad.mul_(layer.mask)
        for function, columns in layer.runs:
            function.backward(grad[:, columns], layer.pre[:, columns], grad[:, columns])
        if layer.norm:
            self._backward_norm(layer, layer.norm)
        if layer.bias:
            self._column_sums(grad[:, layer.normed :], layer.bias.gradient)
        operand = grad.to(self.operand_dtype)
        for stream, columns, weights in layer.shared:
            _multiply(operand[:, columns].t(), self._features[stream], weights.gradient)
        if layer.shared:
            return
        below = self._layers[index - 1]
        for member, columns in layer.columns_of.items():
            own, inputs, weight = (
                operand[:, columns],
                layer.inputs_of[member],
                layer.weights[member],
            )
            _multiply(own.t(), below.operand[:, inputs], weight.gradient)
            _multiply(own, weight.operand, below.grad[:, inputs])

    def _backward_norm(self, layer: _Layer, norm: _Norm) -> None:
        """Ioffe and Szegedy (2015), section 3: the parts along 1 and along `normal` fall away."""
        grad, scratch = layer.grad[:, : layer.normed], layer.pre[:, : layer.normed]
        self._column_sums(grad, norm.bias.gradient)
        self._column_sums(torch.mul(grad, norm.normal, out=scratch), norm.weight.gradient)
        grad.sub_(norm.bias.gradient / self.batch)
        grad.addcmul_(norm.normal, norm.weight.gradient / -self.batch)
        grad.mul_(norm.weight.value * norm.inverse_std)

    def _column_sums(self, matrix: Tensor, out: Tensor) -> None:
        # A product with ones: several times faster than sum(0) on a CPU.
        torch.mm(self._ones, matrix, out=out.view(1, -1))

    def _state_views(self, member: int) -> dict[str, Tensor]:
        statistics = _views(self._layout.statistics[member], self.statistics)
        return {**self.member_parameters(member), **statistics}

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, device=self.device, dtype=self.dtype)


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _views(spans: Mapping[str, Span], flat: Tensor) -> dict[str, Tensor]:
    return {name: span.view(flat) for name, span in spans.items()}


class _Parameter:
    """One span's value, its gradient, and its value as an operand of products."""

    def __init__(self, model: WideMlp, span: Span) -> None:
        self.value = span.view(model.parameters)
        self.gradient = span.view(model.gradients)
        self.operand = span.view(model._operands)


class _Norm:
    """Batch norm of a layer; `normal` holds the normalised columns before scale and shift."""

    def __init__(self, model: WideMlp, layout: NormLayout) -> None:
        self.weight = _Parameter(model, layout.weight)
        self.bias = _Parameter(model, layout.bias)
        self.mean = layout.mean.view(model.statistics)
        self.variance = layout.variance.view(model.statistics)
        self.normal = model._zeros(model.batch, *layout.weight.shape)
        self.inverse_std = model._zeros(1, *layout.weight.shape)

    def folded(self) -> tuple[Tensor, Tensor]:
        """With running statistics, as one scale and one shift a column."""
        scale = self.weight.value * torch.rsqrt(self.variance + NORM_EPSILON)
        return scale, self.bias.value - self.mean * scale


class _Layer:
    """A layer's parameters and the buffers of a training pass, `[batch, width]` each.

    `pre` is the input of the activation, `hidden` what comes out after dropout, `operand` the
    same in the dtype of products (the same tensor where they agree), `grad` the derivative of
    the loss by whatever the backward pass has reached.
    """

    def __init__(self, model: WideMlp, layout: LayerLayout) -> None:
        self.width, self.normed = layout.width, layout.normed
        self.columns_of, self.inputs_of = layout.columns_of, layout.inputs_of
        self.runs = [(ACTIVATIONS[name], columns) for name, columns in layout.runs]
        self.weights = {m: _Parameter(model, span) for m, span in layout.weights.items()}
        self.shared = [
            (stream, columns, _Parameter(model, span)) for stream, columns, span in layout.shared
        ]
        self.bias = layout.bias and _Parameter(model, layout.bias)
        self.norm = layout.norm and _Norm(model, layout.norm)
        self.pre = model._zeros(model.batch, layout.width)
        self.hidden = model._zeros(model.batch, layout.width)
        self.grad = model._zeros(model.batch, layout.width)
        self.operand = self.hidden
        if model.operand_dtype != model.dtype:
            self.operand = self.hidden.to(model.operand_dtype)
        dropped = [m for m in self.columns_of if model.configs[m].dropout > 0]
        self.mask = torch.ones_like(self.hidden) if dropped else self.hidden
        self.dropped = {m: self.mask[:, self.columns_of[m]] for m in dropped}
