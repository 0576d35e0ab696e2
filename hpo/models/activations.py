"""Activations as pairs of functions on column ranges of a wide tensor: forward, and its gradient.

A member is a range of columns, so an activation reads and writes strided views in place of
allocating. The gradients are torch's own kernels, given their output buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Activation"]

_aten = torch.ops.aten
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_LEAKY_SLOPE = 0.01


@dataclass(frozen=True)
class Activation:
    """One activation.

    Attributes:
        forward: `(z, out)` writes f(z) to `out`; both `[rows, columns]`, possibly strided.
        backward: `(grad, z, out)` writes `grad * f'(z)` to `out`, which may be `grad` itself.
        module: the same function as a torch module, for a network that stands alone.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]
    module: Callable[[], nn.Module]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        lambda z, out: torch.clamp(z, min=0, out=out),
        lambda grad, z, out: _aten.threshold_backward.grad_input(grad, z, 0, grad_input=out),
        nn.ReLU,
    ),
    "leaky_relu": Activation(
        lambda z, out: _aten.leaky_relu.out(z, _LEAKY_SLOPE, out=out),
        lambda grad, z, out: _aten.leaky_relu_backward.grad_input(
            grad, z, _LEAKY_SLOPE, False, grad_input=out
        ),
        lambda: nn.LeakyReLU(_LEAKY_SLOPE),
    ),
    "elu": Activation(
        lambda z, out: _aten.elu.out(z, out=out),
        lambda grad, z, out: _aten.elu_backward.grad_input(
            grad, 1.0, 1.0, 1.0, False, z, grad_input=out
        ),
        nn.ELU,
    ),
    "selu": Activation(
        lambda z, out: _aten.elu.out(z, _SELU_ALPHA, _SELU_SCALE, 1.0, out=out),
        lambda grad, z, out: _aten.elu_backward.grad_input(
            grad, _SELU_ALPHA, _SELU_SCALE, 1.0, False, z, grad_input=out
        ),
        nn.SELU,
    ),
    "silu": Activation(
        lambda z, out: _aten.silu.out(z, out=out),
        lambda grad, z, out: _aten.silu_backward.grad_input(grad, z, grad_input=out),
        nn.SiLU,
    ),
    "gelu": Activation(
        lambda z, out: _aten.gelu.out(z, out=out),
        lambda grad, z, out: _aten.gelu_backward.grad_input(grad, z, grad_input=out),
        nn.GELU,
    ),
    "tanh": Activation(
        lambda z, out: torch.tanh(z, out=out),
        lambda grad, z, out: _aten.tanh_backward.grad_input(grad, torch.tanh(z), grad_input=out),
        nn.Tanh,
    ),
}
