"""What leaves there are, and the words that all families of networks share."""

from __future__ import annotations

from hpo.definition.ranges import Choice, FloatRange, IntRange

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "FlagLeaf",
    "FloatLeaf",
    "IntLeaf",
    "WordLeaf",
]

IntLeaf = int | IntRange | Choice[int]
FloatLeaf = float | FloatRange | Choice[float]
WordLeaf = str | Choice[str]
FlagLeaf = bool | Choice[bool]

ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "silu", "gelu", "tanh")
INITIALIZATIONS = ("he", "xavier", "lecun")
