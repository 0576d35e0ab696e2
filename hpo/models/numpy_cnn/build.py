"""From a config to layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import DTypeLike

from hpo.config import NumpyCnnConfig
from hpo.models.numpy_cnn.conv import Conv2d
from hpo.models.numpy_cnn.flatten import Flatten
from hpo.models.numpy_cnn.layer import Layer
from hpo.models.numpy_cnn.linear import Linear
from hpo.models.numpy_cnn.network import Network
from hpo.models.numpy_cnn.pool import MaxPool2d
from hpo.models.stages import MONOTONE, flattened, stages

__all__ = ["build_network"]


def build_network(
    config: NumpyCnnConfig,
    shape: Sequence[int],
    outputs: int,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
) -> Network:
    """The network that a config describes.

    Args:
        shape: of an image, `(channels, height, width)`.
        outputs: classes.
        seed: of the first weights.

    Raises:
        UsageError: the images are too small for its stages.
    """
    return Network(tuple(shape), list(_layers(config, shape, outputs)), seed, dtype)


def _layers(config: NumpyCnnConfig, shape: Sequence[int], outputs: int) -> Iterator[Layer]:
    activation, rule = config.activation, config.initialization
    pools = config.pool > 1
    later = pools and activation in MONOTONE
    found = stages(config, shape)
    for stage in found:
        yield Conv2d(
            stage.inputs,
            stage.outputs,
            stage.kernel,
            padding=stage.kernel // 2,
            activation="identity" if later else activation,
            initialization=rule,
        )
        if pools:
            yield MaxPool2d(config.pool, activation=activation if later else "identity")
    yield Flatten()
    values = flattened(found)
    if config.hidden:
        yield Linear(values, config.hidden, activation, rule)
        values = config.hidden
    yield Linear(values, outputs, initialization=rule)
