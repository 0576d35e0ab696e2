"""One concrete, complete choice out of a space: plain data that needs neither Optuna nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

__all__ = [
    "CnnConfig",
    "MlpConfig",
    "ModelConfig",
    "NumpyCnnConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrialConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpConfig:
    """A multilayer perceptron: hidden layers of `widths`, then one linear layer to the outputs.

    A hidden layer is linear, batch norm (if any), activation, dropout, in this order.

    Attributes:
        widths: units of each hidden layer, first to last; may be empty (a linear model).
        activation: a name out of `hpo.models.activations`.
        dropout: the probability that a hidden unit is zeroed in training.
        initialization: `he`, `xavier` or `lecun` (normal draws; biases start at zero).
        input_batch_norm: whether the inputs are normalised batch by batch, with a scale and a
            shift of their own.
        input_dropout: the probability that an input is zeroed in training, after that; which
            ones are is drawn for the batch, and so for all who read it, and not for a member.
    """

    family: ClassVar[str] = "mlp"

    widths: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.0
    initialization: str = "he"
    input_batch_norm: bool = False
    input_dropout: float = 0.0

    @property
    def prepares_input(self) -> bool:
        """Whether anything is done to the inputs before the first linear layer."""
        return self.input_batch_norm or self.input_dropout > 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """What is drawn for each layer: its width."""
        return self.widths


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnConfig:
    """A convolutional network: stages, then a head of linear layers.

    A stage is a convolution that keeps the size of its images, batch norm (if any), activation,
    max pooling (if any). The head flattens what is left; then come a hidden layer (if any) of
    linear, batch norm, activation; dropout; and one linear layer to the outputs.

    Attributes:
        channels: what each stage gives, first to last; at least one.
        kernel: height and width of every convolution, odd.
        pool: height and width of the windows of max pooling, and their stride; 1 is none.
        hidden: units of the head's hidden layer; 0 is none.
        activation: a name out of `hpo.models.activations`.
        dropout: the probability that a value before the last linear layer is zeroed in training.
        initialization: `he`, `xavier` or `lecun` (normal draws; biases start at zero).
    """

    family: ClassVar[str] = "cnn"

    channels: tuple[int, ...]
    kernel: int = 3
    pool: int = 2
    hidden: int = 0
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.0
    initialization: str = "he"

    @property
    def sizes(self) -> tuple[int, ...]:
        """What is drawn for each stage: its channels."""
        return self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class NumpyCnnConfig:
    """As `CnnConfig`, without batch norm and dropout, which the NumPy network does not have."""

    family: ClassVar[str] = "numpy_cnn"

    channels: tuple[int, ...]
    kernel: int = 3
    pool: int = 2
    hidden: int = 0
    activation: str = "relu"
    initialization: str = "he"

    @property
    def sizes(self) -> tuple[int, ...]:
        """What is drawn for each stage: its channels."""
        return self.channels

    @property
    def batch_norm(self) -> bool:
        """There is none."""
        return False

    @property
    def dropout(self) -> float:
        """There is none."""
        return 0.0


ModelConfig = MlpConfig | CnnConfig | NumpyCnnConfig
"""A network of one of the families."""

_FAMILIES: dict[str, type[MlpConfig] | type[CnnConfig] | type[NumpyCnnConfig]] = {
    kind.family: kind for kind in (MlpConfig, CnnConfig, NumpyCnnConfig)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """An optimizer and its settings; those which the named optimizer lacks keep their defaults.

    Attributes:
        name: `sgd`, `adam`, `adamw`, `nadam` or `rmsprop`.
        weight_decay: decoupled for `adamw`, added to the gradient (L2) for the others.
        alpha: RMSprop's smoothing of squared gradients.
    """

    name: str
    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    alpha: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves over a run.

    Attributes:
        name: `constant`, `cosine` (to zero at the last step) or `step`.
        warmup: share of all steps over which the rate rises linearly from zero.
        every: epochs between two drops of `step`.
        gamma: what a drop multiplies the rate by.
    """

    name: str = "constant"
    warmup: float = 0.0
    every: int = 10
    gamma: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """All that decides how one network is built and trained, but for its seed and its stream.

    Attributes:
        epochs: the most epochs it may train; also the horizon of its schedule.
        patience: epochs without a better value before it stops early; None means never.
        stopping_metric: what that value is, such as `loss`; None means the study's metric.
        gradient_reset: False never sets its gradients to zero: each step follows their sum.
        diagnostics: what is noted with every epoch on top, such as `gradient_norms`.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch_size: int = 128
    epochs: int = 10
    label_smoothing: float = 0.0
    patience: int | None = None
    stopping_metric: str | None = None
    gradient_reset: bool = True
    diagnostics: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready data; `from_dict` gives it back unchanged."""
        data = asdict(self)
        model = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in data["model"].items()
        }
        return {
            **data,
            "model": {"family": self.model.family, **model},
            "diagnostics": list(self.diagnostics),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialConfig:
        """Read what `to_dict` wrote."""
        model: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in data["model"].items()
            if key != "family"
        }
        return cls(
            **{
                **data,
                # What was written before there were families is a perceptron.
                "model": _FAMILIES[data["model"].get("family", MlpConfig.family)](**model),
                "optimizer": OptimizerConfig(**data["optimizer"]),
                "schedule": ScheduleConfig(**data["schedule"]),
                "diagnostics": tuple(data.get("diagnostics", ())),
            }
        )
