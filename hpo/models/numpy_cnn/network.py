"""A network: layers in a row, trained by back-propagation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hpo.errors import TrainingError, UsageError
from hpo.models.numpy_cnn.arrays import Array, Shape, at_least_one, size_of, told, told_with_size
from hpo.models.numpy_cnn.flatten import Flatten
from hpo.models.numpy_cnn.layer import Layer
from hpo.models.numpy_cnn.linear import Linear
from hpo.models.numpy_cnn.loss import softmax_cross_entropy
from hpo.models.numpy_cnn.optimizers import Optimizer

__all__ = ["Diverged", "Network"]

_SILENT: Any = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
"""What overflows shows in the loss, and is told of there."""


class Diverged(TrainingError):  # noqa: N818 (named as what happened)
    """The loss is not a finite number any more; the weights are those of the step before."""


class Network:
    """Layers in a row, ending in one logit a class.

        network = Network(
            (1, 28, 28),
            [
                Conv2d(1, 20, kernel=5, activation="relu"),
                MaxPool2d(2),
                Flatten(),
                Linear(20 * 12 * 12, 10),
            ],
        )
        adam = Adam(0.001)
        for images, labels in batches:
            loss = network.train_step(images, labels, adam)

    Args:
        input_shape: of one image, `(channels, height, width)`; or `(values,)`.
        layers: from the images to the logits; they become this network's own.
        seed: of the first weights.
        dtype: of all values: float32, or float64 where gradients are to be checked.

    Attributes:
        layers: the layers, with names of their own (`conv1`, `conv2`, `linear1`).
        shapes: what goes into the first layer, and what each gives.
        outputs: logits of a row.

    Raises:
        UsageError: a layer does not take what the one before it gives; the last gives images;
            or a layer is there twice.
    """

    def __init__(
        self,
        input_shape: Shape,
        layers: Sequence[Layer],
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.layers = list(layers)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        _name(self.layers)
        self.shapes = _shapes(tuple(input_shape), self.layers)
        self.outputs = self.shapes[-1][0]
        generator = np.random.default_rng(seed)
        for layer in self.layers:
            layer.start(self.dtype, generator)
        self._last_loss: float | None = None

    # --- forward

    def logits(self, images: NDArray[Any], batch: int = 256) -> Array:
        """What the last layer says of each class.

        Args:
            images: `[rows, *input_shape]`.
            batch: how many rows go through at once; memory grows with it.

        Returns:
            `[rows, classes]`.

        Raises:
            UsageError: the images have another shape.
        """
        self._check_images(images)
        result = np.empty((len(images), self.outputs), self.dtype)
        with np.errstate(**_SILENT):
            for start in range(0, len(images), batch):
                result[start : start + batch] = self._forward(images[start : start + batch]).T
        return result

    def predict(self, images: NDArray[Any], batch: int = 256) -> NDArray[np.intp]:
        """The likeliest class of every row, `[rows]`; arguments and errors as for `logits`."""
        classes: NDArray[np.intp] = self.logits(images, batch).argmax(axis=1)
        return classes

    # --- training

    def train_step(
        self,
        images: NDArray[Any],
        labels: NDArray[np.integer[Any]],
        optimizer: Optimizer,
        smoothing: float = 0.0,
    ) -> float:
        """Let all weights follow the gradient of one batch.

        Args:
            images: `[batch, *input_shape]`.
            labels: `[batch]`, from 0 to classes - 1.
            optimizer: the same one in every step.
            smoothing: of the labels, as in `softmax_cross_entropy`.

        Returns:
            The batch's loss in nats, from before the step.

        Raises:
            UsageError: images or labels have the wrong shape, or a label is no class.
            Diverged: the loss is not a finite number.
        """
        with np.errstate(**_SILENT):
            loss = self.gradients(images, labels, smoothing)
            if not math.isfinite(loss):
                raise Diverged(self._why(loss, optimizer))
            self._last_loss = loss
            optimizer.begin_step()
            for layer in self.layers:
                layer.update(optimizer)
        return loss

    def gradients(
        self, images: NDArray[Any], labels: NDArray[np.integer[Any]], smoothing: float = 0.0
    ) -> float:
        """Put the gradient of a batch's loss into every layer, and leave the weights alone.

        Arguments, result and errors are those of `train_step`, but for `Diverged`.
        """
        self._check_images(images)
        self._check_labels(labels, len(images))
        loss, gradient = softmax_cross_entropy(self._forward(images), labels, smoothing)
        for layer in reversed(self.layers):
            delta = layer.activation_gradient(gradient)
            layer.weight_gradient(delta)
            if layer is not self.layers[0]:  # nobody asks for the gradient by the images
                gradient = layer.backward(delta)
        return loss

    # --- weights by name

    def state(self) -> dict[str, Array]:
        """The weights themselves, by name (`conv1.weight`), with the shapes torch gives them."""
        return {
            f"{layer.name}.{name}": weight
            for layer in self.layers
            for name, weight in layer.weights.items()
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the values of weights that `state` gave, or another network of these layers.

        Raises:
            UsageError: names or shapes are not those of this network.
        """
        own = self.state()
        if own.keys() != state.keys():
            raise UsageError(
                f"the network's weights are {', '.join(own)}; given were {', '.join(state)}"
            )
        for name, weight in own.items():
            if weight.shape != state[name].shape:
                raise UsageError(f"{name} is {weight.shape}; given was {state[name].shape}")
        for name, weight in own.items():
            weight[...] = state[name]

    # --- within

    def _forward(self, images: NDArray[Any]) -> Array:
        """`[batch, *input_shape]` to logits `[classes, batch]`."""
        values: Array = np.ascontiguousarray(np.moveaxis(images, 0, -1), self.dtype)
        for layer in self.layers:
            values = layer.forward(values)
        return values

    def _check_images(self, images: NDArray[Any]) -> None:
        if images.shape[1:] != self.shapes[0]:
            raise UsageError(
                f"the network takes images of shape {self.shapes[0]}, "
                f"and was given {images.shape[1:]}"
            )

    def _check_labels(self, labels: NDArray[np.integer[Any]], rows: int) -> None:
        if labels.shape != (rows,) or rows == 0:
            raise UsageError(f"{rows} images need {rows} labels, not an array {labels.shape}")
        if labels.dtype.kind not in "iu":
            raise UsageError(f"labels are whole numbers, not {labels.dtype}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.outputs:
            raise UsageError(
                f"labels are from {low} to {high}; {self.layers[-1].name} gives "
                f"{self.outputs} values, one for each class from 0 to {self.outputs - 1}"
            )

    def _why(self, loss: float, optimizer: Optimizer) -> str:
        """Why a loss may not be finite; what is likelier comes first."""
        rules = {getattr(layer, "initialization", "") for layer in self.layers} - {""}
        start = (
            f"first weights that are too large (initialization {', '.join(sorted(rules))}) or "
            "images that are not scaled"
        )
        if optimizer.steps == 0:
            return f"the loss is {loss} in the first step; likely causes are {start}"
        before = "" if self._last_loss is None else f", after {self._last_loss:.4g}"
        return (
            f"the loss is {loss} in step {optimizer.steps + 1}{before}; likely causes are a "
            f"learning rate that is too high ({optimizer.learning_rate:g}), and {start}"
        )


def _name(layers: Sequence[Layer]) -> None:
    """Number the layers of each kind, from 1."""
    if len({id(layer) for layer in layers}) < len(layers):
        raise UsageError("a layer stands in the network twice; make two of them")
    seen: Counter[str] = Counter()
    for layer in layers:
        seen[layer.kind] += 1
        layer.name = f"{layer.kind}{seen[layer.kind]}"


def _shapes(shape: Shape, layers: Sequence[Layer]) -> list[Shape]:
    """What goes into the first layer, and what each gives."""
    for length in shape:
        at_least_one(f"a length of the input {shape}", length)
    shapes = [shape]
    giver, given = "the input", shape
    before: Layer | None = None
    for layer in layers:
        takes = layer.takes(shapes[-1])
        if takes:
            if isinstance(before, Flatten) and not isinstance(layer, Linear):
                giver, given = before.name, shapes[-1]
            raise UsageError(f"{giver} gives {told_with_size(given)}, {layer.name} takes {takes}")
        shapes.append(layer.output_shape(shapes[-1]))
        if not isinstance(layer, Flatten):  # it changes no size: what came before says more
            giver, given = layer.name, shapes[-1]
        before = layer
    if len(shapes[-1]) != 1:
        raise UsageError(
            f"{giver} gives {told(given)}, and a network ends in one value a class: "
            f"after it come Flatten() and Linear({size_of(given)}, classes)"
        )
    return shapes
