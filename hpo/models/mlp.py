"""One multilayer perceptron: its first weights, and the torch module that a user ends with."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from hpo.config import MlpConfig
from hpo.models.activations import ACTIVATIONS

__all__ = [
    "NORM_EPSILON",
    "NORM_MOMENTUM",
    "HiddenLayer",
    "InputLayer",
    "Mlp",
    "initial_state",
    "standard_deviation",
]

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1


class HiddenLayer(nn.Module):
    """Linear, batch norm (if any), activation, dropout; no bias where batch norm cancels it."""

    def __init__(self, inputs: int, width: int, config: MlpConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width, bias=not config.batch_norm)
        if config.batch_norm:
            self.norm = nn.BatchNorm1d(width, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.activation = ACTIVATIONS[config.activation].module()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, inputs]` to `[batch, width]`."""
        hidden = self.linear(features)
        if hasattr(self, "norm"):
            hidden = self.norm(hidden)
        result: Tensor = self.dropout(self.activation(hidden))
        return result


class InputLayer(nn.Module):
    """Batch norm of the inputs (if any), then dropout."""

    def __init__(self, inputs: int, config: MlpConfig) -> None:
        super().__init__()
        if config.input_batch_norm:
            self.norm = nn.BatchNorm1d(inputs, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.dropout = nn.Dropout(config.input_dropout)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, inputs]` to the same."""
        if hasattr(self, "norm"):
            features = self.norm(features)
        result: Tensor = self.dropout(features)
        return result


class Mlp(nn.Module):
    """A network that stands alone.

    Its `state_dict` has the names and shapes of `initial_state` and of `WideMlp.state`, so a
    member of a population becomes a module by loading its tensors.

    Args:
        config: the hidden layers.
        inputs: features of a row.
        outputs: classes.
    """

    def __init__(self, config: MlpConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        sizes = [inputs, *config.widths]
        if config.prepares_input:
            self.input = InputLayer(inputs, config)
        self.layers = nn.ModuleList(
            HiddenLayer(below, width, config) for below, width in pairwise(sizes)
        )
        self.output = nn.Linear(sizes[-1], outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features `[batch, inputs]` to logits `[batch, outputs]`."""
        if hasattr(self, "input"):
            features = self.input(features)
        for layer in self.layers:
            features = layer(features)
        logits: Tensor = self.output(features)
        return logits


def initial_state(
    config: MlpConfig, inputs: int, outputs: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the first weights of one network, on the CPU so that every device starts alike.

    Weights are normal with the variance of He et al. (2015), `2 / fan_in`, of Glorot and Bengio
    (2010), `2 / (fan_in + fan_out)`, or of LeCun et al. (1998), `1 / fan_in`; biases are zero.

    Returns:
        float32 tensors by their name in `Mlp.state_dict()`, without `num_batches_tracked`.
    """
    state = _norm_state("input.norm", inputs) if config.input_batch_norm else {}
    sizes = [inputs, *config.widths, outputs]
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        hidden = index < len(config.widths)
        linear = f"layers.{index}.linear" if hidden else "output"
        std = standard_deviation(config.initialization, fan_in, fan_out)
        state[f"{linear}.weight"] = torch.randn(fan_out, fan_in, generator=generator) * std
        if not (hidden and config.batch_norm):
            state[f"{linear}.bias"] = torch.zeros(fan_out)
        else:
            state |= _norm_state(f"layers.{index}.norm", fan_out)
    return state


def _norm_state(name: str, units: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.ones(units),
        f"{name}.bias": torch.zeros(units),
        f"{name}.running_mean": torch.zeros(units),
        f"{name}.running_var": torch.ones(units),
    }


def standard_deviation(rule: str, fan_in: int, fan_out: int) -> float:
    """Of first weights by the rules of `initial_state`."""
    variance = {
        "he": 2 / fan_in,
        "xavier": 2 / (fan_in + fan_out),
        "lecun": 1 / fan_in,
    }[rule]
    return math.sqrt(variance)
