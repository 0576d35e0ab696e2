"""The convolutional families of networks, and what the one in NumPy cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from hpo.definition.kinds import (
    ACTIVATIONS,
    INITIALIZATIONS,
    FlagLeaf,
    FloatLeaf,
    IntLeaf,
    WordLeaf,
)
from hpo.definition.leaves import Flag, Number, Word, detail, invalid
from hpo.definition.ranges import Choice, FloatRange, IntRange, largest, values
from hpo.definition.sections import ChoiceOfOne, Section

__all__ = [
    "CnnSection",
    "ConvolutionalSection",
    "FamilySection",
    "NumpyCnnSection",
    "beyond_numpy",
]

MAX_STAGES = 16
MAX_CHANNELS = 4096
MAX_KERNEL = 31
MAX_POOL = 16
MAX_UNITS = 65536

_CHANNELS = f"a convolution gives 1 to {MAX_CHANNELS} channels"
_NUMPY_OPTIMIZERS = ("sgd", "adam")


class FamilySection(Section):
    """A family of networks, which repeat a part: a layer, a stage.

    Attributes:
        family: its name.
        part: what is repeated.
        repeated: the keys of how many there are, of what is drawn for each, and of the constant
            list that takes the place of both.
        of_repeated: keys that change nothing where there is none.
    """

    family: ClassVar[str]
    part: ClassVar[str]
    repeated: ClassVar[tuple[str, str, str]]
    of_repeated: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:
        """The shape is given once: by the list, or by the other two."""
        *drawn, fixed = cls.repeated
        given = [key for key in cls.repeated if data.get(key) is not None]
        if fixed in given:
            sentence = f"`{fixed}` fixes every {cls.part}, so `{{}}` cannot be given too"
            return [detail(sentence.format(key), key) for key in given if key != fixed]
        missing = [key for key in drawn if key not in given]
        if not missing:
            return []
        names = " and ".join(f"`{key}`" for key in missing)
        count, each = drawn
        return [detail(f"{names} missing; give `{count}` and `{each}`, or `{fixed}`")]


class ConvolutionalSection(FamilySection):
    """Convolutional networks: `stages`, with `channels` drawn for each, or a list of them."""

    part: ClassVar[str] = "stage"
    repeated: ClassVar[tuple[str, str, str]] = ("stages", "channels", "stage_channels")

    stages: (
        Annotated[
            IntLeaf,
            Number("a network has 1 to 16 convolutions", low=1, high=MAX_STAGES, whole=True),
        ]
        | None
    ) = None
    channels: (
        Annotated[IntLeaf, Number(_CHANNELS, low=1, high=MAX_CHANNELS, whole=True)] | None
    ) = None
    stage_channels: (
        Annotated[
            tuple[
                Annotated[
                    int, Number(_CHANNELS, low=1, high=MAX_CHANNELS, whole=True, ranged=False)
                ],
                ...,
            ],
            Field(min_length=1, max_length=MAX_STAGES),
        ]
        | None
    ) = None
    kernel: Annotated[
        IntLeaf,
        Number("a kernel is 1 to 31 pixels wide", low=1, high=MAX_KERNEL, whole=True),
    ] = 3
    pool: Annotated[
        IntLeaf,
        Number("a window of pooling is 1 to 16 pixels wide", low=1, high=MAX_POOL, whole=True),
    ] = 2
    hidden: Annotated[
        IntLeaf, Number("the head has 0 to 65536 hidden units", high=MAX_UNITS, whole=True)
    ] = 0
    activation: Annotated[
        WordLeaf, Word("an activation", ACTIVATIONS, aliases=(("swish", "silu"),))
    ] = "relu"
    initialization: Annotated[
        WordLeaf, Word("an initialization", INITIALIZATIONS, aliases=(("glorot", "xavier"),))
    ] = "he"

    @property
    def largest_channels(self) -> tuple[int, ...]:
        """Of the deepest network with the most channels that can be drawn."""
        if self.stage_channels is not None:
            return self.stage_channels
        assert self.stages is not None
        assert self.channels is not None
        return (largest(self.channels),) * largest(self.stages)

    @model_validator(mode="after")
    def _kernels_are_odd(self) -> Self:
        even = next((size for size in values(self.kernel) if size % 2 == 0), None)
        if even is None:
            return self
        sentence = (
            f"a kernel of {even} is even; odd ones keep the size of an image, "
            "as in `kernel: {choice: [3, 5]}` or `kernel: {int: [3, 7], step: 2}`"
        )
        raise invalid([detail(sentence, "kernel")])


class NumpyCnnSection(ConvolutionalSection):
    """Convolutional networks in NumPy alone."""

    family: ClassVar[str] = "numpy_cnn"


class CnnSection(ConvolutionalSection):
    """Convolutional networks in torch, with batch norm, and dropout in the head."""

    family: ClassVar[str] = "cnn"

    batch_norm: Annotated[FlagLeaf, Flag()] = False
    dropout: Annotated[FloatLeaf, Number("a dropout is a probability", high=1, open_high=True)] = (
        0.0
    )


def beyond_numpy(
    optimizer: ChoiceOfOne, precision: str, *, gradient_reset: bool
) -> Iterator[InitErrorDetails]:
    """What a study asks for that the networks in NumPy do not have, each with its place."""
    for name, section in optimizer.options.items():
        if name not in _NUMPY_OPTIMIZERS:
            yield detail(
                f"numpy_cnn has no {name}; there are {' and '.join(_NUMPY_OPTIMIZERS)}, "
                "and the family cnn has all",
                *("optimizer", name),
            )
            continue
        for key in ("nesterov", "weight_decay"):
            if any(_possible(getattr(section, key, 0))):
                yield detail(
                    f"numpy_cnn has no {key}; leave it out, or take the family cnn",
                    *("optimizer", name, key),
                )
    if precision == "bfloat16":
        yield detail(
            "numpy_cnn calculates in float32; leave the precision out",
            *("training", "precision"),
        )
    if not gradient_reset:
        yield detail(
            "numpy_cnn always resets its gradients; leave this out, or take the family cnn",
            *("training", "gradient_reset"),
        )


def _possible(leaf: Any) -> tuple[Any, ...]:
    """The ends of a leaf, or its choices."""
    if isinstance(leaf, IntRange | FloatRange):
        return (leaf.low, leaf.high)
    return leaf.choices if isinstance(leaf, Choice) else (leaf,)
