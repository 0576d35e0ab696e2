"""The tensors of a network by name, whatever its family: first ones, and which there must be.

The names are those of the module of `hpo.models.alone`, without batch norm's counter of batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hpo.config import CnnConfig, MlpConfig, ModelConfig
from hpo.models import cnn, mlp
from hpo.models.layout import Layout
from hpo.models.numpy_cnn import build_network
from hpo.models.stages import flattened, stages

__all__ = ["Shapes", "first_tensors", "sizes_for", "sizes_of", "tensor_shapes"]

Shapes = dict[str, tuple[int, ...]]
"""Of tensors, by name."""


def first_tensors(
    config: ModelConfig, shape: Sequence[int], outputs: int, seed: int
) -> dict[str, Tensor]:
    """The tensors that a network begins with, in float32 on the CPU.

    Args:
        shape: of an image, `(channels, height, width)`.
        outputs: classes.
    """
    if isinstance(config, MlpConfig):
        generator = torch.Generator().manual_seed(seed)
        return mlp.initial_state(config, math.prod(shape), outputs, generator)
    if isinstance(config, CnnConfig):
        generator = torch.Generator().manual_seed(seed)
        return cnn.initial_state(config, shape, outputs, generator)
    arrays = build_network(config, shape, outputs, seed).state()
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def sizes_for(config: ModelConfig, shape: Sequence[int], outputs: int) -> tuple[int, ...]:
    """The numbers that tie a network to its data.

    Of a perceptron these are the values of a row, of a convolutional network an image's channels
    and the values where its stages end; in both, the classes come last.
    """
    if isinstance(config, MlpConfig):
        return math.prod(shape), outputs
    return shape[0], flattened(stages(config, shape)), outputs


def sizes_of(config: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The numbers of `sizes_for`, read off a network's tensors.

    Raises:
        KeyError, IndexError: they are not of such a network.
    """
    if isinstance(config, MlpConfig):
        first = "layers.0.linear.weight" if config.widths else "output.weight"
        return tensors[first].shape[1], tensors["output.bias"].shape[0]
    last = "linear2.bias" if config.hidden else "linear1.bias"
    values = tensors["linear1.weight"].shape[1]
    return tensors["conv1.weight"].shape[1], values, tensors[last].shape[0]


def tensor_shapes(config: ModelConfig, sizes: Sequence[int]) -> tuple[Shapes, Shapes]:
    """The shapes of parameters, in the order of the module, and of running statistics.

    Args:
        sizes: as `sizes_for` gives them.
    """
    if isinstance(config, MlpConfig):
        inputs, outputs = sizes
        layout = Layout([config], inputs, outputs, [0])
        parameters, statistics = (
            {name: span.shape for name, span in spans.items()}
            for spans in (layout.parameters[0], layout.statistics[0])
        )
        return parameters, statistics
    channels, values, outputs = sizes
    return cnn.tensor_shapes(config, channels, values, outputs)
