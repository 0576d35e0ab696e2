"""A convolutional network written from scratch in NumPy, to be read.

Start with `layer` (what every layer does), then `linear`, `activations`, `loss` and `network`
(which is all of back-propagation), then `windows`, `conv` and `pool`; `arrays` says how values
lie. `build` makes one of a study's configs. torch is not needed to use it.
"""

from hpo.models.numpy_cnn.activations import ACTIVATIONS
from hpo.models.numpy_cnn.build import build_network
from hpo.models.numpy_cnn.conv import Conv2d
from hpo.models.numpy_cnn.flatten import Flatten
from hpo.models.numpy_cnn.initializers import INITIALIZERS
from hpo.models.numpy_cnn.layer import Layer
from hpo.models.numpy_cnn.linear import Linear
from hpo.models.numpy_cnn.loss import softmax_cross_entropy
from hpo.models.numpy_cnn.network import Diverged, Network
from hpo.models.numpy_cnn.optimizers import SGD, Adam, Optimizer
from hpo.models.numpy_cnn.pool import MaxPool2d

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "SGD",
    "Adam",
    "Conv2d",
    "Diverged",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Network",
    "Optimizer",
    "build_network",
    "softmax_cross_entropy",
]
