"""The space's sections of a study file: families of networks, optimizers, schedules.

A field of type `IntLeaf`, `FloatLeaf`, `FlagLeaf` or `WordLeaf` is a constant or a range.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, core_schema

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

    family: ClassVar[str] = "mlp"
    part: ClassVar[str] = "layer"
    repeated: ClassVar[tuple[str, str, str]] = ("layers", "width", "widths")
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


class ModelSection(ChoiceOfOne):
    """The families of networks; several make the family a choice.

    A family may stand several times, under names of its own that begin with the family's:
    `mlp_deep`, `mlp_normed`. So a study compares structures that no product of ranges describes.

    Attributes:
        named: these, each with its name; in a file they stand beside the families.
    """

    noun: ClassVar[str] = "family of networks"

    mlp: MlpSection | None = None
    cnn: CnnSection | None = None
    numpy_cnn: NumpyCnnSection | None = None
    named: tuple[tuple[str, SerializeAsAny[FamilySection]], ...] = ()

    @property
    def options(self) -> dict[str, Section]:
        """The families that are given, in the order of the schema, then the named ones."""
        families = (getattr(self, name) for name in _FAMILIES)
        found = {section.family: section for section in families if section is not None}
        return {**found, **dict(self.named)}

    @property
    def families(self) -> list[str]:
        """Those of all options, each once."""
        sections = (section for section in self.options.values())
        return list(
            dict.fromkeys(one.family for one in sections if isinstance(one, FamilySection))
        )

    @classmethod
    def keys(cls) -> list[str]:
        """The families; names are one's own."""
        return list(_FAMILIES)

    @classmethod
    def prepared(cls, data: dict[str, Any] | str) -> Any:
        """What stands under a name of one's own goes to `named`.

        So does a key `named`, which no file may have, to be refused there.
        """
        data = super().prepared(data)
        if isinstance(data, str):
            return data
        own = {key: data[key] for key in data if key == "named" or _NAMED.fullmatch(str(key))}
        families = {key: value for key, value in data.items() if key not in own}
        return {**families, "named": own} if own else families

    @field_validator("named", mode="before")
    @classmethod
    def _read_as_their_families(cls, own: dict[str, Any]) -> tuple[tuple[str, FamilySection], ...]:
        named: dict[str, FamilySection] = {}
        problems: list[InitErrorDetails] = []
        for key, value in own.items():
            match = _NAMED.fullmatch(key)
            if match is None:
                problems.append(detail(cls._unknown(key), key))
                continue
            try:
                named[key] = _FAMILIES[match[1]].model_validate(value)
            except ValidationError as error:
                lines = error.errors(include_url=False)
                problems += [detail(line["msg"], key, *line["loc"]) for line in lines]
        if problems:
            raise invalid(problems)
        return tuple(sorted(named.items()))

    @classmethod
    def _plain(cls, line: ErrorDetails) -> InitErrorDetails:
        """In a file the names stand beside the families, not below `named`."""
        path = line["loc"]
        return super()._plain({**line, "loc": path[1:] if path[:1] == ("named",) else path})

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Names stand beside the families."""
        found = super().__get_pydantic_json_schema__(schema, handler)
        own = found["properties"]
        del own["named"]
        found["patternProperties"] = {f"^{name}_[a-z0-9_]+$": own[name] for name in _FAMILIES}
        return found

    @model_serializer(mode="wrap")
    def _side_by_side(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = {key: value for key, value in handler(self).items() if value is not None}
        named = dict(data.pop("named"))
        return {**data, **named}


_FAMILIES: dict[str, type[FamilySection]] = {
    "mlp": MlpSection,
    "cnn": CnnSection,
    "numpy_cnn": NumpyCnnSection,
}
_NAMED = re.compile(r"(mlp|numpy_cnn|cnn)_[a-z0-9_]{1,40}")


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
