"""Blocks: how the members of a population lie, family by family.

Perceptrons lie side by side in wide tensors (`block.py`), convolutional networks train each by
itself (`lone.py`). A population of several families has a block of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hpo.config import CnnConfig, MlpConfig, NumpyCnnConfig, TrialConfig
from hpo.models.stages import flattened, stages
from hpo.training.block import WideBlock
from hpo.training.block import cost as cost_of_mlp
from hpo.training.devices import device_name
from hpo.training.lone import LoneNetwork, NumpyNetwork, TorchNetwork, load
from hpo.training.member import Member
from hpo.training.network import Network
from hpo.training.schedules import rate_factor
from hpo.training.task import Task

__all__ = ["Block", "cost", "device_of", "lay_out"]

# What a convolution costs, in a perceptron's products (measured on a CPU, 8 to 64 channels): one
# of its own products, in torch and in NumPy, and all that is done to a value that it gives.
_PRODUCT, _NUMPY_PRODUCT, _VALUE = 0.45, 2.3, 180


class Block(Protocol):
    """The networks of some members of a population, laid out for training.

    Attributes:
        networks: in the order in which they lie.
        losses: `[networks]`, those of the batches of this epoch so far, summed.
        noisy: whether a step needs random bytes of the batches.
    """

    networks: list[Network]
    losses: Tensor
    noisy: bool

    def step(
        self, features: Sequence[Tensor], labels: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> None:
        """Train every network on one batch.

        Args:
            features: of each stream, `[batch, inputs]`.
            labels: of each stream, `[batch]`, or targets `[batch, targets]`.
            noise: for dropout of inputs, uint8 `[inputs, batch]` of each stream; empty if no
                block is noisy.
        """

    def begin_epoch(self) -> None:
        """Forget what was summed over the epoch before."""

    def gradient_norms(self) -> dict[Network, list[float]]:
        """Over the epoch so far, of the networks that ask for them; see `GradientNorms`."""

    def score(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """As `Goal.sums` of the task's goal, for some rows, as they are.

        Args:
            features: of each stream, `[rows, inputs]`; or of one for all.
            labels: of each stream, `[rows]`, or targets `[rows, targets]`; or of one for all.
        """

    def state(self, network: Network) -> dict[str, Tensor]:
        """Copies of a network's tensors, by the names of its module: parameters first."""

    def release(self) -> None:
        """Let the optimizers go of the tensors, whose memory would live on with them."""


def lay_out(
    members: Sequence[Member],
    generators: Mapping[Network, torch.Generator],
    task: Task,
    batch: int,
    batches: int,
    state_of: Callable[[Network], Mapping[str, Tensor]],
) -> Block:
    """The block of some members, or one of blocks where they are of several kinds.

    Args:
        members: whose networks lie here, in any order; at least one.
        generators: of each network, what draws its dropout.
        batch: rows of a training batch.
        batches: how many there are in an epoch; learning rates follow from it.
        state_of: a network's tensors, by the names of its module.
    """
    # By key: so a layout, and with it the rounding, follows from who is there, and not from who
    # came first.
    members = sorted(members, key=lambda member: member.key)
    networks = [network for member in members for network in member.networks]
    wide = [network for network in networks if isinstance(network.config.model, MlpConfig)]
    lone = [network for network in networks if not isinstance(network.config.model, MlpConfig)]
    given = (generators, task, batch, batches, state_of)
    blocks: list[Block] = []
    if wide:
        blocks.append(WideBlock(wide, *given))
    if lone:
        blocks.append(LoneBlock(lone, *given))
    return blocks[0] if len(blocks) == 1 else _Several(blocks)


class LoneBlock:
    """Networks that train each by itself, one after the other; arguments as of `WideBlock`."""

    noisy = False  # no such network drops its inputs

    def __init__(
        self,
        networks: Sequence[Network],
        generators: Mapping[Network, torch.Generator],
        task: Task,
        batch: int,
        batches: int,
        state_of: Callable[[Network], Mapping[str, Tensor]],
    ) -> None:
        self.networks = list(networks)
        self._goal = task.goal
        self._batches = batches
        self._trained: dict[Network, LoneNetwork] = {}
        for network in self.networks:
            trained = _build(network, task, generators[network], batch)
            load(trained, state_of(network))
            parameters = trained.parameters()
            network.resume(list(parameters), next(iter(parameters.values())).device)
            trained.bind(network.optimizer)
            self._trained[network] = trained
        self.losses = torch.tensor(
            [network.loss for network in self.networks],
            device=task.examples.device,
            dtype=task.dtype,
        )

    def step(
        self,
        features: Sequence[Tensor],
        labels: Sequence[Tensor],
        noise: Sequence[Tensor],  # noqa: ARG002
    ) -> None:
        """As `Block.step`."""
        for place, (network, trained) in enumerate(self._trained.items()):
            config, steps = network.config, network.optimizer.steps
            factor = rate_factor(config.schedule, steps, self._batches, config.epochs)
            self.losses[place] += trained.step(
                features[network.stream],
                labels[network.stream],
                config.optimizer.lr * factor,
                config.label_smoothing,
            )
            network.trouble = trained.trouble

    def begin_epoch(self) -> None:
        """As `Block.begin_epoch`; nothing is summed but the losses."""

    def gradient_norms(self) -> dict[Network, list[float]]:
        """As `Block.gradient_norms`; a definition asks for none of these families."""
        return {}

    def score(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """As `Block.score`."""
        streams = [network.stream if len(labels) > 1 else 0 for network in self.networks]
        logits = [
            trained.logits(features[stream]).t()
            for stream, trained in zip(streams, self._trained.values(), strict=True)
        ]
        own = torch.stack([labels[stream] for stream in streams])
        return self._goal.sums(torch.stack(logits), own)

    def state(self, network: Network) -> dict[str, Tensor]:
        """As `Block.state`."""
        trained = self._trained[network]
        tensors = {**trained.parameters(), **trained.statistics()}
        return {
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }

    def release(self) -> None:
        """As `Block.release`."""
        for network in self.networks:
            network.optimizer.release()


class _Several:
    """Blocks of several kinds as one; they add to parts of the same losses."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self.networks = [network for block in blocks for network in block.networks]
        self.losses = torch.cat([block.losses for block in blocks])
        parts = torch.split(self.losses, [len(block.networks) for block in blocks])
        for block, part in zip(blocks, parts, strict=True):
            block.losses = part
        self.noisy = any(block.noisy for block in blocks)

    def step(
        self, features: Sequence[Tensor], labels: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> None:
        """As `Block.step`."""
        for block in self._blocks:
            block.step(features, labels, noise)

    def begin_epoch(self) -> None:
        """As `Block.begin_epoch`."""
        for block in self._blocks:
            block.begin_epoch()

    def gradient_norms(self) -> dict[Network, list[float]]:
        """As `Block.gradient_norms`."""
        return {n: sums for block in self._blocks for n, sums in block.gradient_norms().items()}

    def score(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """As `Block.score`."""
        return torch.cat([block.score(features, labels) for block in self._blocks])

    def state(self, network: Network) -> dict[str, Tensor]:
        """As `Block.state`."""
        return next(one for one in self._blocks if network in one.networks).state(network)

    def release(self) -> None:
        """As `Block.release`."""
        for block in self._blocks:
            block.release()


def device_of(config: TrialConfig, task: Task) -> str:
    """What a person calls the device that a member trains on."""
    numpy = isinstance(config.model, NumpyCnnConfig)
    return "cpu" if numpy else device_name(task.examples.device)


def _build(network: Network, task: Task, generator: torch.Generator, batch: int) -> LoneNetwork:
    config = network.config.model
    if isinstance(config, NumpyCnnConfig):
        return NumpyNetwork(config, task, batch)
    assert isinstance(config, CnnConfig)
    return TorchNetwork(config, task, generator, batch)


def cost(config: TrialConfig, shape: Sequence[int], outputs: int) -> float:
    """What a member's step costs, in products of a row with one parameter of a perceptron.

    Args:
        shape: of an image, `(channels, height, width)`.
        outputs: classes.
    """
    model = config.model
    if isinstance(model, MlpConfig):
        return cost_of_mlp(model, math.prod(shape), outputs)
    found = stages(model, shape)
    products = sum(stage.weights * stage.pixels for stage in found)
    values = sum(stage.outputs * stage.pixels for stage in found)
    head = flattened(found) * (model.hidden or outputs) + model.hidden * outputs
    each = _NUMPY_PRODUCT if isinstance(model, NumpyCnnConfig) else _PRODUCT
    return each * products + _VALUE * values + head
