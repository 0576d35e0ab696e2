"""A snapshot: all that a member is between two batches, as plain data and tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.config import MlpConfig, ModelConfig, OptimizerConfig, TrialConfig
from hpo.definition.metrics import CLASSIFICATION, DIRECTIONS, REGRESSION
from hpo.models.activations import ACTIVATIONS
from hpo.models.tensors import sizes_of, tensor_shapes
from hpo.training.diagnostics import GRADIENT_NORMS
from hpo.training.history import EpochRecord
from hpo.training.optimizers import Optimizer, optimizer_of

__all__ = ["NetworkSnapshot", "Snapshot"]

_DROPOUT = "dropout"
_MODEL, _OPTIMIZER = "model.", "optimizer."
# What reading facts and tensors raises that are not a snapshot's.
_FOREIGN = (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class NetworkSnapshot:
    """A network as it was between two batches.

    Attributes:
        config: its member's.
        facts: JSON-ready: `loss` and `gradient_norms` of the unfinished epoch, summed over its
            batches; and of the optimizer `steps` and `scalars`.
        tensors: on the CPU: `model.NAME`, `optimizer.STATE.NAME` and `dropout`, the state of the
            generator.
    """

    config: TrialConfig
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        config: TrialConfig,
        loss: float,
        optimizer: Optimizer,
        model: Mapping[str, Tensor],
        dropout: Tensor,
        gradient_norms: Sequence[float] = (),
    ) -> NetworkSnapshot:
        """What a network is now; what is trained afterwards does not change it.

        Args:
            model: by the names of its module, parameters first; they become its own.
            optimizer: its state, in the order of the parameters, is copied.
            dropout: the state of the generator of the network's masks.
        """
        tensors = {_MODEL + name: tensor.cpu() for name, tensor in model.items()}
        for state, values in optimizer.state.items():
            # Running statistics come after the parameters, and the optimizer knows none.
            for name, tensor in zip(model, values, strict=False):
                tensors[f"{_OPTIMIZER}{state}.{name}"] = tensor.to("cpu", copy=True).contiguous()
        tensors[_DROPOUT] = dropout
        facts = {
            "loss": loss,
            "gradient_norms": list(gradient_norms),
            "optimizer": {"steps": optimizer.steps, "scalars": dict(optimizer.scalars)},
        }
        return cls(config, facts, tensors)

    @property
    def steps(self) -> int:
        """How many batches it has trained on in all."""
        return int(self.facts["optimizer"]["steps"])

    @property
    def shape(self) -> tuple[tuple[int, ...], torch.dtype]:
        """What ties it to its data, as `models.tensors.sizes_for`, and the parameters' dtype."""
        state = self.model_state()
        sizes = sizes_of(self.config.model, state)
        return sizes, next(iter(state.values())).dtype

    @property
    def dropout(self) -> Tensor:
        """The state of the generator of its masks."""
        return self.tensors[_DROPOUT]

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and running statistics, by the names of its module."""
        return {
            name.removeprefix(_MODEL): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(_MODEL)
        }

    def optimizer_state(
        self, parameters: Sequence[str], device: torch.device
    ) -> dict[str, list[Tensor]]:
        """Copies on a device of what the optimizer keeps, in the order of these parameters."""
        return {
            state: [
                self.tensors[f"{_OPTIMIZER}{state}.{name}"].to(device, copy=True)
                for name in parameters
            ]
            for state in optimizer_of(self.config).state_names
        }

    def has_tensors(self) -> bool:
        """Whether they are those of a network of this config."""
        config, (sizes, dtype) = self.config, self.shape
        parameters, statistics = tensor_shapes(config.model, sizes)
        shapes = {_MODEL + name: shape for name, shape in {**parameters, **statistics}.items()}
        for state in optimizer_of(config).state_names:
            shapes |= {f"{_OPTIMIZER}{state}.{name}": shape for name, shape in parameters.items()}
        numbers = {name: tensor for name, tensor in self.tensors.items() if name != _DROPOUT}
        return (
            {name: tuple(tensor.shape) for name, tensor in numbers.items()} == shapes
            and dtype.is_floating_point
            and all(tensor.dtype == dtype for tensor in numbers.values())
            and self.dropout.dtype == torch.uint8
            and self.dropout.ndim == 1
        )


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A member as it was between two batches.

    Attributes:
        facts: JSON-ready: `config, seed, metric`; `stream` (the number of the first that it
            reads), `joined`, `epoch` and `batch`, the place among the batches; `seconds` of the
            unfinished epoch; `history`; and `networks`, the facts of each.
        tensors: on the CPU: those of its networks, by their place: `0.model.NAME`, ...
    """

    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, facts: Mapping[str, Any], networks: Sequence[NetworkSnapshot]) -> Snapshot:
        """A member out of its networks.

        Args:
            facts: all but those of the networks.
        """
        return cls(
            {**facts, "networks": [network.facts for network in networks]},
            {
                f"{place}.{name}": tensor
                for place, network in enumerate(networks)
                for name, tensor in network.tensors.items()
            },
        )

    @property
    def networks(self) -> list[NetworkSnapshot]:
        """Its networks, fold by fold."""
        config = self.config
        parts: list[dict[str, Tensor]] = [{} for _ in self.facts["networks"]]
        for name, tensor in self.tensors.items():
            place, _, own = name.partition(".")
            parts[int(place)][own] = tensor
        pairs = zip(self.facts["networks"], parts, strict=True)
        return [NetworkSnapshot(config, facts, tensors) for facts, tensors in pairs]

    @property
    def config(self) -> TrialConfig:
        """How the member is built and trained."""
        return TrialConfig.from_dict(self.facts["config"])

    @property
    def stream(self) -> int:
        """The number of the stream that it reads."""
        return int(self.facts["stream"])

    @property
    def epoch(self) -> int:
        """How many epochs of the stream are over."""
        return int(self.facts["epoch"])

    @property
    def batch(self) -> int:
        """How many batches of the next epoch are done; 0 between two epochs."""
        return int(self.facts["batch"])

    @property
    def epochs_done(self) -> int:
        """How many epochs the member has trained to their end."""
        return self.epoch - int(self.facts["joined"])

    def check(self) -> None:
        """Make sure that a member can go on from it; for one that was read from a file.

        Raises:
            ValueError: it cannot.
        """
        try:
            whole = self._has_facts() and all(one.has_tensors() for one in self.networks)
        except _FOREIGN as error:
            raise ValueError(f"no snapshot: {type(error).__name__} {error}") from error
        if not whole:
            raise ValueError("no snapshot: its parts do not fit each other")

    def _has_facts(self) -> bool:
        facts, config = self.facts, self.config
        metrics = _metrics(facts)
        example = _example(config.model)
        scores = {name: 0.0 for name in metrics if name != "loss"}
        example["history"] = [EpochRecord(1, 0.0, 0.0, scores, 0.0).to_dict()]
        example["networks"][0]["optimizer"]["scalars"] = optimizer_of(config).scalars
        if len(facts["networks"]) > 1:
            example["history"][0]["folds"] = [0.0]
        if GRADIENT_NORMS in config.diagnostics:
            example["history"][0]["gradient_norms"] = [0.0]
        for name in ("patience", "stopping_metric"):
            if getattr(config, name) is None:
                example["config"][name] = None
        if not _is_like(facts, example):
            return False
        counts = [facts[name] for name in ("seed", "stream", "joined", "epoch", "batch")]
        counts += [network["optimizer"]["steps"] for network in facts["networks"]]
        epochs = [record["epoch"] for record in facts["history"]]
        return (
            config.to_dict() == facts["config"]
            and config.model.activation in ACTIVATIONS
            and facts["metric"] in metrics
            and config.stopping_metric in (None, *metrics)
            and min(counts) >= 0
            and _has_size(config.model)
            and len(facts["networks"]) >= 1
            and epochs == list(range(1, len(epochs) + 1))
            and len(epochs) <= self.epochs_done
        )


def _metrics(facts: Mapping[str, Any]) -> Collection[str]:
    """Those that its epochs were scored by; all that there are, before the first."""
    for record in facts["history"][:1]:
        return REGRESSION if "mse" in record else CLASSIFICATION
    return DIRECTIONS


def _has_size(config: ModelConfig) -> bool:
    """Whether there can be such a network; of others even the shapes cannot be found."""
    if isinstance(config, MlpConfig):
        return min(config.widths, default=1) >= 1
    return min(*config.channels, config.kernel, config.pool) >= 1 and config.hidden >= 0


def _example(like: ModelConfig) -> dict[str, Any]:
    """Facts of the right kind, of a network of that family."""
    model = MlpConfig(widths=(1,)) if isinstance(like, MlpConfig) else type(like)(channels=(1,))
    config = TrialConfig(
        model=model,
        optimizer=OptimizerConfig(name="", lr=0.0),
        patience=1,
        stopping_metric="",
        diagnostics=("",),
    )
    return {
        "config": config.to_dict(),
        "seed": 0,
        "metric": "",
        "stream": 0,
        "joined": 0,
        "epoch": 0,
        "batch": 0,
        "seconds": 0.0,
        "history": [],
        "networks": [
            {"loss": 0.0, "gradient_norms": [0.0], "optimizer": {"steps": 0, "scalars": {}}}
        ],
    }


def _is_like(found: object, example: Any) -> bool:
    """Whether data has the keys and kinds of an example; a list is of one kind, of any length."""
    if isinstance(example, dict):
        return (
            isinstance(found, dict)
            and found.keys() == example.keys()
            and all(_is_like(found[key], value) for key, value in example.items())
        )
    if isinstance(example, list):
        return isinstance(found, list) and all(_is_like(one, example[0]) for one in found)
    if isinstance(example, float):
        return type(found) in (int, float)
    return type(found) is type(example)
