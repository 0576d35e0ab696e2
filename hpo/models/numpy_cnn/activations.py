"""Activations: a function of every value, and its derivative for the way back.

With `z` what a layer computed and `a = f(z)` what it gives on, the chain rule turns the loss's
gradient by `a` into the one by `z`: `delta = gradient * f'(z)`. Most derivatives are said through
`a`, which is there already.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from hpo.errors import UsageError
from hpo.models.numpy_cnn.arrays import Array

__all__ = ["ACTIVATIONS", "Activation", "activation_named"]


Derivative = Array | NDArray[np.bool_] | float
"""f'(z) of every value, or one number for all; truth values stand for 0 and 1."""


class Activation(ABC):
    """A function applied to every value; one object serves any number of layers."""

    @abstractmethod
    def value(self, z: Array) -> Array:
        """f(z), of the shape and dtype of `z`."""

    @abstractmethod
    def derivative(self, z: Array, a: Array) -> Derivative:
        """f'(z), where `a` is f(z)."""

    def gradient(self, gradient: Array, z: Array, a: Array) -> Array:
        """The loss's gradient by `z`, from the one by `a`."""
        return gradient * self.derivative(z, a)


class Identity(Activation):
    """f(z) = z, for a layer that is to stay linear: the last one, pooling."""

    def value(self, z: Array) -> Array:
        """`z` itself."""
        return z

    def derivative(self, z: Array, a: Array) -> Derivative:  # noqa: ARG002 - it is constant
        """One."""
        return 1.0

    def gradient(self, gradient: Array, z: Array, a: Array) -> Array:  # noqa: ARG002 - as above
        """The gradient itself, not a copy."""
        return gradient


class LeakyReLU(Activation):
    """z where it is positive, `slope * z` elsewhere (Maas et al. 2013)."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def value(self, z: Array) -> Array:
        """The larger of the two lines."""
        larger: Array = np.maximum(z, self.slope * z)
        return larger

    def derivative(self, z: Array, a: Array) -> Derivative:  # noqa: ARG002 - z says it
        """One or the slope."""
        positive = (z > 0).astype(z.dtype)
        return self.slope + (1 - self.slope) * positive


class ReLU(Activation):
    """z where it is positive, else 0 (Nair and Hinton 2010); its derivative at 0 is taken as 0."""

    def value(self, z: Array) -> Array:
        """The positive part."""
        return np.maximum(z, 0)

    def derivative(self, z: Array, a: Array) -> Derivative:  # noqa: ARG002 - a says it
        """One where the value is positive; a product with truth values is NumPy's fastest way."""
        return a > 0


class ELU(Activation):
    """z where it is positive, else `alpha * (e^z - 1)` (Clevert et al. 2016), times `scale`."""

    def __init__(self, alpha: float = 1.0, scale: float = 1.0) -> None:
        self.alpha = alpha
        self.scale = scale

    def value(self, z: Array) -> Array:
        """The exponential is taken of the negative part alone: of a large z it would overflow."""
        negative = np.expm1(np.minimum(z, 0))
        return self.scale * np.maximum(z, 0) + (self.scale * self.alpha) * negative

    def derivative(self, z: Array, a: Array) -> Derivative:
        """Below 0, `scale * alpha * e^z`, which is `a + scale * alpha`."""
        positive = (z > 0).astype(z.dtype)
        return self.scale * positive + (a + self.scale * self.alpha) * (1 - positive)


class SiLU(Activation):
    """z times the logistic function of z (Hendrycks and Gimpel 2016); Swish with beta 1."""

    def value(self, z: Array) -> Array:
        """z * logistic(z)."""
        return z * _logistic(z)

    def derivative(self, z: Array, a: Array) -> Derivative:
        """logistic(z) * (1 + z - a), by the product rule."""
        return _logistic(z) * (1 + z - a)


class GELU(Activation):
    """z times the normal distribution function at z (Hendrycks and Gimpel 2016)."""

    def value(self, z: Array) -> Array:
        """z * Phi(z)."""
        return z * _normal_distribution(z)

    def derivative(self, z: Array, a: Array) -> Derivative:  # noqa: ARG002 - z says it
        """Phi(z) + z * phi(z), with phi the normal density."""
        density = np.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))
        return _normal_distribution(z) + z * density


class Tanh(Activation):
    """The hyperbolic tangent."""

    def value(self, z: Array) -> Array:
        """tanh(z)."""
        return np.tanh(z)

    def derivative(self, z: Array, a: Array) -> Derivative:  # noqa: ARG002 - a says it
        """1 - tanh(z)^2."""
        return 1 - a * a


def _logistic(z: Array) -> Array:
    """1 / (1 + e^-z), written with tanh, which cannot overflow."""
    result: Array = 0.5 * (1 + np.tanh(0.5 * z))
    return result


def _normal_distribution(z: Array) -> Array:
    result: Array = 0.5 * (1 + erf(z * math.sqrt(0.5)))
    return result


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(),
    "elu": ELU(),
    # Klambauer et al. 2017: with these two, normal values keep mean 0 and variance 1.
    "selu": ELU(alpha=1.6732632423543772, scale=1.0507009873554805),
    "silu": SiLU(),
    "gelu": GELU(),
    "tanh": Tanh(),
}


def activation_named(name: str) -> Activation:
    """The activation of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in ACTIVATIONS:
        raise UsageError(f"there is no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
