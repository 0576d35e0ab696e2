"""One convolutional network in torch: its layers, its first weights.

The layers have the names that the NumPy library gives them, and weights the same shapes, so a
network that was trained in NumPy is a `Cnn` too: it loads its tensors and says the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hpo.config import CnnConfig, NumpyCnnConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.mlp import NORM_EPSILON, NORM_MOMENTUM, standard_deviation
from hpo.models.stages import MONOTONE, flattened, stages

__all__ = ["Cnn", "initial_state", "tensor_shapes"]


class Cnn(nn.Sequential):
    """A network that stands alone: normalised features `[batch, values]` to logits.

    Its parts are `conv1`, `norm1`, `pool1`, `conv2`, ..., `linear1` and so on, so its `state_dict`
    has names such as `conv1.weight`.

    Args:
        config: of either convolutional family.
        shape: of an image, `(channels, height, width)`.
        outputs: classes.

    Raises:
        UsageError: the images are too small for its stages.
    """

    def __init__(
        self, config: CnnConfig | NumpyCnnConfig, shape: Sequence[int], outputs: int
    ) -> None:
        values = flattened(stages(config, shape))
        super().__init__(OrderedDict(_parts(config, shape, values, outputs)))


def initial_state(
    config: CnnConfig, shape: Sequence[int], outputs: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the first weights of one network, on the CPU so that every device starts alike.

    The rules are those of `hpo.models.mlp.initial_state`; a kernel's fan-in is the values that it
    looks at, its fan-out the values of an output that it could write to.

    Returns:
        float32 tensors by their name in `Cnn.state_dict()`, without `num_batches_tracked`.

    Raises:
        UsageError: the images are too small for its stages.
    """
    values = flattened(stages(config, shape))
    state: dict[str, Tensor] = {}
    for name, part in _without_memory(config, shape[0], values, outputs):
        if isinstance(part, nn.Conv2d | nn.Linear):
            size = part.weight.shape
            places = size[2:].numel()
            std = standard_deviation(config.initialization, size[1] * places, size[0] * places)
            state[f"{name}.weight"] = torch.randn(size, generator=generator) * std
            if part.bias is not None:
                state[f"{name}.bias"] = torch.zeros(size[0])
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            state[f"{name}.weight"] = torch.ones(part.num_features)
            state[f"{name}.bias"] = torch.zeros(part.num_features)
            state[f"{name}.running_mean"] = torch.zeros(part.num_features)
            state[f"{name}.running_var"] = torch.ones(part.num_features)
    return state


def tensor_shapes(
    config: CnnConfig | NumpyCnnConfig, channels: int, values: int, outputs: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The shapes of parameters, and of running statistics, by their names.

    Args:
        channels: of an image.
        values: of a row where the stages end.
        outputs: classes.
    """
    parameters: dict[str, tuple[int, ...]] = {}
    statistics: dict[str, tuple[int, ...]] = {}
    for name, part in _without_memory(config, channels, values, outputs):
        for own, tensor in part.named_parameters():
            parameters[f"{name}.{own}"] = tuple(tensor.shape)
        for own, buffer in part.named_buffers():
            if own != "num_batches_tracked":
                statistics[f"{name}.{own}"] = tuple(buffer.shape)
    return parameters, statistics


def _without_memory(
    config: CnnConfig | NumpyCnnConfig, channels: int, values: int, outputs: int
) -> list[tuple[str, nn.Module]]:
    """The parts for their names and sizes alone; no memory is taken, and no number drawn."""
    with torch.device("meta"):
        return list(_parts(config, (channels, 1, 1), values, outputs))


def _parts(
    config: CnnConfig | NumpyCnnConfig, shape: Sequence[int], values: int, outputs: int
) -> Iterator[tuple[str, nn.Module]]:
    yield "images", nn.Unflatten(1, tuple(shape))
    for number, (inputs, channels) in enumerate(pairwise((shape[0], *config.channels)), 1):
        padding, bias = config.kernel // 2, not config.batch_norm
        convolution = nn.Conv2d(inputs, channels, config.kernel, padding=padding, bias=bias)
        yield f"conv{number}", convolution
        if config.batch_norm:
            norm = nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
            yield f"norm{number}", norm
        activation = (f"activation{number}", ACTIVATIONS[config.activation].module())
        pool = (f"pool{number}", nn.MaxPool2d(config.pool))
        if config.pool == 1:
            yield activation
        else:
            yield from (
                (pool, activation) if config.activation in MONOTONE else (activation, pool)
            )
    yield "flatten", nn.Flatten()
    yield from _head(config, len(config.channels) + 1, values, outputs)


def _head(
    config: CnnConfig | NumpyCnnConfig, number: int, values: int, outputs: int
) -> Iterator[tuple[str, nn.Module]]:
    last = 1
    if config.hidden:
        yield "linear1", nn.Linear(values, config.hidden, bias=not config.batch_norm)
        if config.batch_norm:
            norm = nn.BatchNorm1d(config.hidden, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
            yield f"norm{number}", norm
        yield f"activation{number}", ACTIVATIONS[config.activation].module()
        last, values = 2, config.hidden
    if config.dropout:
        yield "dropout", nn.Dropout(config.dropout)
    yield f"linear{last}", nn.Linear(values, outputs)
