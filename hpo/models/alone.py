"""The torch module of a config, whatever its family: what a user ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hpo.config import MlpConfig, ModelConfig
from hpo.models.cnn import Cnn
from hpo.models.mlp import Mlp

__all__ = ["build_module"]


def build_module(config: ModelConfig, shape: Sequence[int], outputs: int) -> nn.Module:
    """A network that takes normalised features `[batch, values]` and gives logits.

    A network that was trained in NumPy is one in torch here: it has the same weights by the same
    names, and says the same to rounding.

    Args:
        shape: of an image, `(channels, height, width)`.
        outputs: classes.

    Raises:
        UsageError: the images are too small for its stages.
    """
    if isinstance(config, MlpConfig):
        return Mlp(config, math.prod(shape), outputs)
    return Cnn(config, shape, outputs)
