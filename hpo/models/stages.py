"""What the stages of a convolutional network make of an image's size; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.config import CnnConfig, NumpyCnnConfig
from hpo.definition import largest
from hpo.definition.families import ConvolutionalSection
from hpo.definition.networks import ModelSection
from hpo.definition.problems import Problem
from hpo.errors import UsageError

__all__ = [
    "MONOTONE",
    "Stage",
    "flattened",
    "image_shape",
    "largest_stages",
    "misfits",
    "stages",
]

MONOTONE = frozenset({"relu", "leaky_relu", "elu", "selu", "tanh"})
"""Activations that never fall: the largest of their values is the value of the largest, so they
may come after the pooling, which leaves them less to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a network.

    Attributes:
        inputs: channels of the images it reads.
        outputs: channels of those it gives.
        kernel: height and width of its convolution, which keeps the size of the images.
        size: height and width of the images it reads.
        pooled: height and width of those it gives.
    """

    inputs: int
    outputs: int
    kernel: int
    size: tuple[int, int]
    pooled: tuple[int, int]

    @property
    def weights(self) -> int:
        """Of the kernels."""
        return self.inputs * self.outputs * self.kernel**2

    @property
    def pixels(self) -> int:
        """Of an image that it reads, of one channel."""
        return self.size[0] * self.size[1]


def stages(config: CnnConfig | NumpyCnnConfig, shape: Sequence[int]) -> list[Stage]:
    """The stages of a network.

    Args:
        shape: of an image, `(channels, height, width)`.

    Raises:
        UsageError: a kernel is larger than the images it reads, or pooling leaves nothing.
    """
    return _stages(config.channels, config.kernel, config.pool, shape)


def flattened(found: Sequence[Stage]) -> int:
    """How many values a row has after the stages."""
    height, width = found[-1].pooled
    return found[-1].outputs * height * width


def largest_stages(section: ConvolutionalSection, shape: Sequence[int]) -> list[Stage]:
    """The stages of the network that asks most of an image, out of all that a study can draw.

    Raises:
        UsageError: as `stages`.
    """
    channels = (largest(section.channels),) * largest(section.stages)
    return _stages(channels, largest(section.kernel), largest(section.pool), shape)


def misfits(model: ModelSection, shape: Sequence[int], dataset: str) -> list[Problem]:
    """The families that could draw a network which a dataset's images are too small for.

    Args:
        shape: of a row: `(channels, height, width)`, `(height, width)`, or without images.
    """
    found = []
    for name, section in model.options.items():
        if isinstance(section, ConvolutionalSection):
            sentence = _misfit(section, shape, dataset)
            if sentence:
                found.append(Problem(("model", name), sentence))
    return found


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """`(channels, height, width)` of the shape of a row, which may leave out lengths of one."""
    channels, height, width = (*(1,) * (3 - len(shape)), *shape)
    return channels, height, width


def _misfit(section: ConvolutionalSection, shape: Sequence[int], dataset: str) -> str:
    if len(shape) < 2:
        return f"{dataset} has no images to convolve, a row of it is {shape[0]} numbers; take mlp"
    try:
        largest_stages(section, image_shape(shape))
    except UsageError as error:
        height, width = shape[-2:]
        return (
            f"{error}, as {dataset} has images of {height}x{width}; take fewer stages, smaller "
            "kernels or smaller windows of pooling"
        )
    return ""


def _stages(channels: Sequence[int], kernel: int, pool: int, shape: Sequence[int]) -> list[Stage]:
    found: list[Stage] = []
    inputs, height, width = shape
    for number, outputs in enumerate(channels, 1):
        if kernel > min(height, width):
            raise UsageError(
                f"stage {number} reads images of {height}x{width}, smaller than "
                f"its kernel of {kernel}x{kernel}"
            )
        pooled = (height // pool, width // pool)
        if min(pooled) < 1:
            raise UsageError(
                f"stage {number} pools images of {height}x{width} by {pool}, which leaves nothing"
            )
        found.append(Stage(inputs, outputs, kernel, (height, width), pooled))
        inputs, (height, width) = outputs, pooled
    return found
