"""Networks that train each by itself: the convolutional families, in torch and in NumPy.

Members of these families share their batches, and no passes. The first convolutions of several
members read the same images, and could be one convolution that gives the channels of all of them.
Measured (one thread of a Xeon with AMX, torch 2.14, 28 x 28 images, convolution and pooling, both
ways): for 4 members of 8 or 16 channels that takes 1.2 times as long as theirs one by one, for 8
of 16 or 32 channels 1.4 to 1.7 times. The products are no fewer, and each member's channels lie
apart in what comes out. What did pay is `channels_last`: half of the time, mostly of the pooling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.config import CnnConfig, NumpyCnnConfig, OptimizerConfig
from hpo.models.cnn import Cnn
from hpo.models.numpy_cnn import SGD, Adam, Diverged, build_network
from hpo.models.numpy_cnn import Optimizer as NumpyOptimizer
from hpo.training.dropout import LayerMasks
from hpo.training.optimizers import Optimizer
from hpo.training.task import Task

__all__ = ["SCORED_ROWS", "LoneNetwork", "NumpyNetwork", "TorchNetwork", "load"]

SCORED_ROWS = 256
"""How many rows go through a convolutional network at once when it is scored."""


class LoneNetwork(Protocol):
    """One network with its optimizer.

    Attributes:
        trouble: what is known of why its loss is not finite any more; empty while it is.
    """

    trouble: str

    def bind(self, optimizer: Optimizer) -> None:
        """Say which optimizer trains it; once it has resumed."""

    def step(self, features: Tensor, labels: Tensor, lr: float, smoothing: float) -> Tensor:
        """Train on one batch.

        Args:
            features: `[batch, values]` on the task's device.
            labels: `[batch]`.

        Returns:
            The mean loss before the step, in nats; of no dimension.
        """

    def logits(self, features: Tensor) -> Tensor:
        """Of some rows `[rows, values]`, as they are: `[rows, classes]`."""

    def parameters(self) -> dict[str, Tensor]:
        """The trained tensors themselves, by name."""

    def statistics(self) -> dict[str, Tensor]:
        """The running statistics themselves, by name."""


class TorchNetwork:
    """A `Cnn` with autograd; the tests hold it against a plain module in float64.

    Args:
        generator: what draws its dropout; torch's own would hang on who lies beside it.
        batch: rows of a training batch.
    """

    def __init__(
        self, config: CnnConfig, task: Task, generator: torch.Generator, batch: int
    ) -> None:
        self.trouble = ""
        self._task = task
        device = task.examples.device
        module = Cnn(config, task.shape, task.outputs).to(device, task.dtype)
        self._module = module.to(memory_format=torch.channels_last)
        self._masks: LayerMasks | None = None
        if config.dropout:
            units = next(
                part.in_features for part in reversed(self._module) if isinstance(part, nn.Linear)
            )
            mask = torch.ones(units, batch, device=device, dtype=task.dtype)
            self._masks = LayerMasks([(slice(0, units), config.dropout, generator)], mask)
            self._module.dropout = _Masked(mask)
        self._gradients: list[Tensor] = []
        self._optimizer: Optimizer | None = None

    def bind(self, optimizer: Optimizer) -> None:
        """As `LoneNetwork.bind`."""
        parameters = list(self._module.parameters())
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._gradients = [
            parameter.grad for parameter in parameters if parameter.grad is not None
        ]
        for tensors in optimizer.state.values():
            # The kernels go through memory as it lies, and what was saved lies otherwise.
            pairs = zip(parameters, tensors, strict=True)
            tensors[:] = [torch.empty_like(p.detach()).copy_(tensor) for p, tensor in pairs]
        optimizer.bind([parameter.detach() for parameter in parameters], self._gradients)
        self._optimizer = optimizer

    def step(self, features: Tensor, labels: Tensor, lr: float, smoothing: float) -> Tensor:
        """As `LoneNetwork.step`."""
        assert self._optimizer is not None
        if self._masks is not None:
            self._masks.fill()
        self._module.train()
        torch._foreach_zero_(self._gradients)
        logits = self._forward(features)
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(lr)
        return loss.detach()

    def logits(self, features: Tensor) -> Tensor:
        """As `LoneNetwork.logits`."""
        self._module.eval()
        with torch.inference_mode():
            return torch.cat([self._forward(rows) for rows in torch.split(features, SCORED_ROWS)])

    def parameters(self) -> dict[str, Tensor]:
        """As `LoneNetwork.parameters`."""
        return {name: tensor.detach() for name, tensor in self._module.named_parameters()}

    def statistics(self) -> dict[str, Tensor]:
        """As `LoneNetwork.statistics`."""
        return {
            name: tensor
            for name, tensor in self._module.named_buffers()
            if not name.endswith("num_batches_tracked")
        }

    def _forward(self, features: Tensor) -> Tensor:
        task = self._task
        rough = task.precision != task.dtype
        with torch.autocast(features.device.type, task.precision, enabled=rough):
            logits: Tensor = self._module(features)
        return logits.to(task.dtype)


class _Masked(nn.Module):
    """Dropout by factors that somebody else renews, `[units, batch]`."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self._mask = mask

    def forward(self, values: Tensor) -> Tensor:
        """`[batch, units]`, dropped in training alone."""
        return values * self._mask.t() if self.training else values


class NumpyNetwork:
    """A network of `hpo.models.numpy_cnn`, on the CPU wherever the task's rows lie.

    Its weights and the state of its rule are the very memory of the tensors that it is asked for
    and that `Optimizer` keeps, so they come into snapshots as those of any other network.
    """

    def __init__(self, config: NumpyCnnConfig, task: Task, batch: int) -> None:
        self.trouble = ""
        self._shape = task.shape
        self._batch = min(batch, SCORED_ROWS)
        dtype = torch.empty(0, dtype=task.dtype).numpy().dtype
        self._network = build_network(config, task.shape, task.outputs, dtype=dtype)
        self._optimizer: Optimizer | None = None
        self._rule: NumpyOptimizer | None = None

    def bind(self, optimizer: Optimizer) -> None:
        """As `LoneNetwork.bind`."""
        parameters = self.parameters()
        optimizer.bind(list(parameters.values()), [])
        self._rule = _rule(optimizer.config)
        self._rule.steps = optimizer.steps
        self._rule.state = {
            f"{name}.{kept}": tensor.numpy()
            for kept, tensors in optimizer.state.items()
            for name, tensor in zip(parameters, tensors, strict=True)
        }
        self._optimizer = optimizer

    def step(self, features: Tensor, labels: Tensor, lr: float, smoothing: float) -> Tensor:
        """As `LoneNetwork.step`; after a loss that is not finite it stays as it is."""
        assert self._optimizer is not None
        assert self._rule is not None
        loss = float("nan")
        if not self.trouble:
            self._rule.learning_rate = lr
            images = features.cpu().view(-1, *self._shape).numpy()
            try:
                loss = self._network.train_step(
                    images, labels.cpu().numpy(), self._rule, smoothing
                )
            except Diverged as error:
                self.trouble = str(error)
            self._optimizer.steps = self._rule.steps
        return torch.tensor(loss, dtype=torch.float64)

    def logits(self, features: Tensor) -> Tensor:
        """As `LoneNetwork.logits`."""
        images = features.cpu().view(-1, *self._shape).numpy()
        logits = torch.from_numpy(self._network.logits(images, self._batch))
        return logits.to(features.device)

    def parameters(self) -> dict[str, Tensor]:
        """As `LoneNetwork.parameters`."""
        return {name: torch.from_numpy(array) for name, array in self._network.state().items()}

    def statistics(self) -> dict[str, Tensor]:
        """There are none."""
        return {}


def load(network: LoneNetwork, state: Mapping[str, Tensor]) -> None:
    """Give a network the tensors of `hpo.models.tensors`."""
    with torch.no_grad():
        for name, tensor in {**network.parameters(), **network.statistics()}.items():
            tensor.copy_(state[name])


def _rule(config: OptimizerConfig) -> NumpyOptimizer:
    """The library's rule of a config; the definition has seen to it that there is one."""
    if config.name == "sgd":
        return SGD(config.lr, config.momentum)
    return Adam(config.lr, config.beta1, config.beta2, config.epsilon)
