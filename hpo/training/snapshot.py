"""A snapshot: all that a member is between two batches, as plain data and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.layout import Layout
from hpo.training.diagnostics import GRADIENT_NORMS
from hpo.training.history import DIRECTIONS, EpochRecord
from hpo.training.optimizers import optimizer_of

__all__ = ["Snapshot", "pack"]

_DROPOUT = "dropout"
_MODEL, _OPTIMIZER = "model.", "optimizer."


def pack(
    model: Mapping[str, Tensor], optimizer: Mapping[str, Sequence[Tensor]], dropout: Tensor
) -> dict[str, Tensor]:
    """The tensors of a snapshot, on the CPU.

    Args:
        model: by the names of `Mlp.state_dict()`, parameters first; they become the snapshot's.
        optimizer: an optimizer's `state`, in the order of the parameters; copied.
        dropout: the state of the member's generator.
    """
    tensors = {_MODEL + name: tensor.cpu() for name, tensor in model.items()}
    for state, values in optimizer.items():
        # Running statistics come after the parameters, and the optimizer knows none.
        for name, tensor in zip(model, values, strict=False):
            tensors[f"{_OPTIMIZER}{state}.{name}"] = tensor.to("cpu", copy=True)
    tensors[_DROPOUT] = dropout
    return tensors


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A member as it was between two batches.

    Attributes:
        facts: JSON-ready: `config, seed, metric`; `stream` (its number), `joined`, `epoch` and
            `batch`, the place among the batches; `loss`, `seconds` and `gradient_norms` of the
            unfinished epoch, summed over its batches; `history`; and of the optimizer `steps` and
            `scalars`.
        tensors: on the CPU: `model.NAME`, `optimizer.STATE.NAME` and `dropout`, the state of the
            generator.
    """

    facts: dict[str, Any]
    tensors: dict[str, Tensor]

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

    @property
    def steps(self) -> int:
        """How many batches it has trained on in all."""
        return int(self.facts["optimizer"]["steps"])

    @property
    def network(self) -> tuple[int, int, torch.dtype]:
        """Features of a row, classes, and the dtype of the parameters."""
        layer = "layers.0.linear" if self.config.model.widths else "output"
        bias = self.tensors[f"{_MODEL}output.bias"]
        return self.tensors[f"{_MODEL}{layer}.weight"].shape[1], bias.shape[0], bias.dtype

    @property
    def dropout(self) -> Tensor:
        """The state of the generator of its masks."""
        return self.tensors[_DROPOUT]

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and running statistics, by the names of `Mlp.state_dict()`."""
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

    def check(self) -> None:
        """Make sure that a member can go on from it; for one that was read from a file.

        Raises:
            ValueError: it cannot.
        """
        try:
            whole = self._has_facts() and self._has_tensors()
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"no snapshot: {type(error).__name__} {error}") from error
        if not whole:
            raise ValueError("no snapshot: its parts do not fit each other")

    def _has_facts(self) -> bool:
        facts, config = self.facts, self.config
        example = _example()
        example["optimizer"]["scalars"] = optimizer_of(config).scalars
        if config.patience is None:
            example["config"]["patience"] = None
        if GRADIENT_NORMS in config.diagnostics:
            example["history"][0]["gradient_norms"] = [0.0]
        if not _is_like(facts, example):
            return False
        counts = [facts[name] for name in ("seed", "stream", "joined", "epoch", "batch")]
        epochs = [record["epoch"] for record in facts["history"]]
        return (
            config.to_dict() == facts["config"]
            and config.model.activation in ACTIVATIONS
            and facts["metric"] in DIRECTIONS
            and min(*counts, self.steps) >= 0
            and min(config.model.widths, default=1) >= 1
            and epochs == list(range(1, len(epochs) + 1))
            and len(epochs) <= self.epochs_done
        )

    def _has_tensors(self) -> bool:
        config, (inputs, outputs, dtype) = self.config, self.network
        layout = Layout([config.model], inputs, outputs, [0])
        parameters = layout.parameters[0]
        spans = {**parameters, **layout.statistics[0]}
        shapes = {_MODEL + name: span.shape for name, span in spans.items()}
        for state in optimizer_of(config).state_names:
            shapes |= {
                f"{_OPTIMIZER}{state}.{name}": span.shape for name, span in parameters.items()
            }
        numbers = {name: tensor for name, tensor in self.tensors.items() if name != _DROPOUT}
        return (
            {name: tuple(tensor.shape) for name, tensor in numbers.items()} == shapes
            and dtype.is_floating_point
            and all(tensor.dtype == dtype for tensor in numbers.values())
            and self.dropout.dtype == torch.uint8
            and self.dropout.ndim == 1
        )


def _example() -> dict[str, Any]:
    """Facts of the right kind."""
    config = TrialConfig(
        model=MlpConfig(widths=(1,)),
        optimizer=OptimizerConfig(name="", lr=0.0),
        patience=1,
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
        "loss": 0.0,
        "seconds": 0.0,
        "gradient_norms": [0.0],
        "history": [EpochRecord(1, 0.0, 0.0, 0.0, 0.0).to_dict()],
        "optimizer": {"steps": 0, "scalars": {}},
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
