"""The space's sections of a study file: families of networks, optimizers, schedules.

A field of type `IntLeaf`, `FloatLeaf`, `FlagLeaf` or `WordLeaf` is a constant or a range.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from hpo.definition.families import CnnSection, FamilySection, NumpyCnnSection
from hpo.definition.kinds import (
    ACTIVATIONS,
    INITIALIZATIONS,
    FlagLeaf,
    FloatLeaf,
    IntLeaf,
    WordLeaf,
)
from hpo.definition.leaves import Flag, Number, Word, detail, invalid
from hpo.definition.ranges import Choice, FloatRange, largest
from hpo.definition.sections import ChoiceOfOne, Section

__all__ = ["MlpSection", "ModelSection", "OptimizerSection", "ScheduleSection"]

MAX_LAYERS = 32
MAX_WIDTH = 65536

_WIDTH = f"a layer has 1 to {MAX_WIDTH} units"
_BETA = "a decay rate of Adam lies in [0, 1)"
_MOMENTUM = "a momentum lies in [0, 1)"

_FixedWidth = Annotated[int, Number(_WIDTH, low=1, high=MAX_WIDTH, whole=True, ranged=False)]
_Lr = Annotated[FloatLeaf, Number("a learning rate is above 0", open_low=True)]
_Decay = Annotated[FloatLeaf, Number("a weight decay is at least 0")]
_Epsilon = Annotated[FloatLeaf, Number("an epsilon is above 0", open_low=True)]
_Beta = Annotated[FloatLeaf, Number(_BETA, high=1, open_high=True)]
_Momentum = Annotated[FloatLeaf, Number(_MOMENTUM, high=1, open_high=True)]


def _least(leaf: FloatLeaf) -> float:
    """The least value that a leaf can have."""
    if isinstance(leaf, FloatRange):
        return leaf.low
    return min(leaf.choices) if isinstance(leaf, Choice) else leaf


# --- model


class MlpSection(FamilySection):
    """Multilayer perceptrons: `layers` and `width`, drawn for each layer, or fixed `widths`."""

    repeated: ClassVar[tuple[str, str, str | None]] = ("layers", "width", "widths")
    of_repeated: ClassVar[tuple[str, ...]] = ("activation", "batch_norm", "dropout")

    layers: (
        Annotated[IntLeaf, Number("an MLP has 0 to 32 hidden layers", high=MAX_LAYERS, whole=True)]
        | None
    ) = None
    width: Annotated[IntLeaf, Number(_WIDTH, low=1, high=MAX_WIDTH, whole=True)] | None = None
    widths: (
        Annotated[
            tuple[
                Annotated[int, Number(_WIDTH, low=1, high=MAX_WIDTH, whole=True, ranged=False)],
                ...,
            ],
            Field(max_length=MAX_LAYERS),
        ]
        | None
    ) = None
    activation: Annotated[
        WordLeaf, Word("an activation", ACTIVATIONS, aliases=(("swish", "silu"),))
    ] = "relu"
    batch_norm: Annotated[FlagLeaf, Flag()] = False
    dropout: Annotated[FloatLeaf, Number("a dropout is a probability", high=1, open_high=True)] = (
        0.0
    )
    initialization: Annotated[
        WordLeaf, Word("an initialization", INITIALIZATIONS, aliases=(("glorot", "xavier"),))
    ] = "he"
    input_batch_norm: Annotated[FlagLeaf, Flag()] = False
    input_dropout: Annotated[
        FloatLeaf, Number("a dropout is a probability", high=1, open_high=True)
    ] = 0.0

    @property
    def widest(self) -> int:
        """The most units that a layer can have; 1 where there is none."""
        if self.width is not None:
            return largest(self.width)
        return max(self.widths or (), default=1)

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:
        """The shape is given once: by `widths`, or by `layers` and `width`."""
        given = [key for key in ("layers", "width", "widths") if data.get(key) is not None]
        if "widths" in given:
            sentence = "`widths` fixes every layer, so `{}` cannot be given too"
            return [detail(sentence.format(key), key) for key in given if key != "widths"]
        missing = [key for key in ("layers", "width") if key not in given]
        if not missing:
            return []
        names = " and ".join(f"`{key}`" for key in missing)
        return [detail(f"{names} missing; give `layers` and `width`, or `widths`")]


class ModelSection(ChoiceOfOne):
    """The families of networks; several make the family a choice."""

    noun: ClassVar[str] = "family of networks"

    mlp: MlpSection | None = None
    cnn: CnnSection | None = None
    numpy_cnn: NumpyCnnSection | None = None


# --- optimizer


class SgdSection(Section):
    """Stochastic gradient descent."""

    lr: _Lr
    momentum: _Momentum = 0.0
    nesterov: Annotated[FlagLeaf, Flag()] = False
    weight_decay: _Decay = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        possible = self.nesterov is True or (
            isinstance(self.nesterov, Choice) and True in self.nesterov.choices
        )
        if possible and _least(self.momentum) <= 0:
            sentence = (
                "nesterov needs a momentum that is above 0 throughout, "
                "as in `momentum: {float: [0.5, 0.99]}`"
            )
            raise invalid([detail(sentence, "nesterov")])
        return self


class AdamSection(Section):
    """Adam; weight decay is added to the gradient."""

    lr: _Lr
    beta1: _Beta = 0.9
    beta2: _Beta = 0.999
    epsilon: _Epsilon = 1e-8
    weight_decay: _Decay = 0.0


class AdamWSection(AdamSection):
    """Adam with decoupled weight decay."""

    weight_decay: _Decay = 0.01


class NAdamSection(AdamSection):
    """Adam with Nesterov's momentum."""


class RmspropSection(Section):
    """RMSprop; `alpha` smooths the squared gradients."""

    lr: _Lr
    alpha: Annotated[FloatLeaf, Number("alpha lies in [0, 1)", high=1, open_high=True)] = 0.99
    epsilon: _Epsilon = 1e-8
    momentum: _Momentum = 0.0
    weight_decay: _Decay = 0.0


class OptimizerSection(ChoiceOfOne):
    """The optimizers, each with ranges of its own."""

    noun: ClassVar[str] = "optimizer"

    sgd: SgdSection | None = None
    adam: AdamSection | None = None
    adamw: AdamWSection | None = None
    nadam: NAdamSection | None = None
    rmsprop: RmspropSection | None = None


# --- schedule


class ConstantSection(Section):
    """The learning rate stays."""


class CosineSection(Section):
    """The learning rate falls to zero along a cosine, after a linear warmup."""

    warmup: Annotated[
        FloatLeaf, Number("warmup is a share of all steps, below 1", high=1, open_high=True)
    ] = 0.0


class StepSection(Section):
    """The learning rate is multiplied by `gamma` after each `every` epochs."""

    every: Annotated[
        IntLeaf, Number("a step lasts 1 to 100000 epochs", low=1, high=100_000, whole=True)
    ] = 10
    gamma: Annotated[FloatLeaf, Number("gamma lies in (0, 1]", high=1, open_low=True)] = 0.5


class ScheduleSection(ChoiceOfOne):
    """The schedules of the learning rate."""

    noun: ClassVar[str] = "schedule"

    constant: ConstantSection | None = None
    cosine: CosineSection | None = None
    step: StepSection | None = None
