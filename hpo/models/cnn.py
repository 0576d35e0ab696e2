"""One convolutional network in torch: its layers, its first weights.

The layers have the names that the NumPy library gives them, and weights the same shapes, so a
network that was trained in NumPy is a `Cnn` too: it loads its tensors and says the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hpo.config import CnnConfig, NumpyCnnConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.mlp import NORM_EPSILON, NORM_MOMENTUM, standard_deviation
from hpo.models.stages import flattened, stages

__all__ = ["MONOTONE", "Cnn", "initial_state"]

MONOTONE = frozenset({"relu", "leaky_relu", "elu", "selu", "tanh"})
"""Activations that never fall: the largest of their values is the value of the largest, so they
may come after the pooling, which leaves them less to do."""


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
        super().__init__(OrderedDict(_parts(config, shape, outputs)))


def initial_state(
    config: CnnConfig, shape: Sequence[int], outputs: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the first weights of one network, on the CPU so that every device starts alike.

    The rules are those of `hpo.models.mlp.initial_state`; a kernel's fan-in is the values that it
    looks at, its fan-out the values of an output that it could write to.

    Returns:
        float32 tensors by their name in `Cnn.state_dict()`, without `num_batches_tracked`.
    """
    with torch.device("meta"):
        parts = Cnn(config, shape, outputs)
    state: dict[str, Tensor] = {}
    for name, part in parts.named_children():
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


def _parts(
    config: CnnConfig | NumpyCnnConfig, shape: Sequence[int], outputs: int
) -> Iterator[tuple[str, nn.Module]]:
    found = stages(config, shape)
    yield "images", nn.Unflatten(1, tuple(shape))
    for number, stage in enumerate(found, 1):
        yield (
            f"conv{number}",
            nn.Conv2d(
                stage.inputs,
                stage.outputs,
                stage.kernel,
                padding=stage.kernel // 2,
                bias=not config.batch_norm,
            ),
        )
        if config.batch_norm:
            norm = nn.BatchNorm2d(stage.outputs, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
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
    yield from _head(config, len(found) + 1, flattened(found), outputs)


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
