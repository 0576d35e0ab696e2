"""Networks that lie in one set of wide tensors and take every step together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hpo.config import MlpConfig
from hpo.models.layout import arrange
from hpo.models.wide_mlp import WideMlp
from hpo.training.diagnostics import GRADIENT_NORMS, GradientNorms
from hpo.training.dropout import LayerMasks
from hpo.training.network import Network
from hpo.training.schedules import rate_factor
from hpo.training.task import Task

__all__ = ["WideBlock", "cost"]

_UNIT = 150  # parameters whose products cost what else is done for one hidden unit (measured)


def cost(config: MlpConfig, inputs: int, outputs: int) -> float:
    """What a member's step costs, in products of a row with one parameter."""
    sizes = [inputs, *config.widths, outputs]
    products = sum(below * width for below, width in pairwise(sizes))
    if config.input_batch_norm and config.input_dropout:  # a third product, by its mask
        products += inputs * sizes[1] // 2
    return float(products + _UNIT * sum(config.widths))


class WideBlock:
    """The perceptrons of a population's members, laid out side by side for training.

    Args:
        networks: who lies here; who is equal in kind keeps this order.
        generators: of each network, what draws its dropout.
        batch: rows of a training batch.
        batches: how many there are in an epoch; learning rates follow from it.
        state_of: a network's tensors, by the names of `Mlp.state_dict()`.

    Attributes:
        networks: in the order in which they lie.
        losses: `[networks]`, those of the batches of this epoch so far, summed.
        noisy: whether a step needs random bytes of the batches.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        generators: Mapping[Network, torch.Generator],
        task: Task,
        batch: int,
        batches: int,
        state_of: Callable[[Network], Mapping[str, Tensor]],
    ) -> None:
        configs = [_perceptron(network) for network in networks]
        order = arrange(configs, [network.stream for network in networks])
        self.networks = [networks[place] for place in order]
        self.streams = [network.stream for network in self.networks]
        self._task = task
        self._batches = batches
        self._model = WideMlp(
            [_perceptron(network) for network in self.networks],
            task.examples.features,
            task.outputs,
            batch=batch,
            device=task.examples.device,
            streams=self.streams,
            dtype=task.dtype,
            operand_dtype=task.precision,
        )
        self.noisy = self._model.noisy
        for place, network in enumerate(self.networks):
            parameters = self._model.member_parameters(place)
            self._model.load(place, state_of(network))
            network.resume(list(parameters), task.examples.device)
            gradients = self._model.member_gradients(place)
            network.optimizer.bind(list(parameters.values()), list(gradients.values()))
        self._model.parameters_changed()
        self._masks = {
            depth: LayerMasks(
                [
                    (rows, probability, generators[self.networks[place]])
                    for place, (rows, probability) in of.items()
                ],
                mask,
            )
            for depth, (mask, of) in self._model.masks.items()
        }
        self._smoothing = self._tensor([n.config.label_smoothing for n in self.networks])
        self.losses = self._tensor([network.loss for network in self.networks])
        self._norms = self._watch()

    def state(self, network: Network) -> dict[str, Tensor]:
        """Copies of a network's tensors, by the names of `Mlp.state_dict()`."""
        return self._model.state(self.networks.index(network))

    def release(self) -> None:
        """Let the optimizers go of the tensors, whose memory would live on with them."""
        for network in self.networks:
            network.optimizer.release()

    def step(
        self, features: Sequence[Tensor], labels: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> None:
        """As `Block.step`."""
        outputs = self._model.forward(features, self._fill_mask, noise)
        losses, gradient = self._task.goal.loss(outputs, self._own(labels), self._smoothing)
        self.losses += losses
        self._model.backward(gradient, None if self._norms is None else self._norms.observe)
        for network in self.networks:
            network.optimizer.step(self._rate(network))
        self._model.parameters_changed()

    def begin_epoch(self) -> None:
        """As `Block.begin_epoch`."""
        if self._norms is not None:
            self._norms.clear()

    def gradient_norms(self) -> dict[Network, list[float]]:
        """As `Block.gradient_norms`."""
        if self._norms is None:
            return {}
        pairs = zip(self.networks, self._norms.sums(), strict=True)
        return {one: sums for one, sums in pairs if GRADIENT_NORMS in one.config.diagnostics}

    def score(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """As `Goal.sums` of the task's goal, for some rows, as they are.

        Args:
            features: of each stream, `[rows, inputs]`; or of one for all.
            labels: of each stream, `[rows]`, or targets `[rows, targets]`; or of one for all.
        """
        return self._task.goal.sums(self._model.predict(features), self._own(labels))

    def _own(self, labels: Sequence[Tensor]) -> Tensor:
        """The labels or targets of each network, or of one stream for all."""
        if len(labels) == 1:
            return labels[0][None]
        return torch.stack([labels[stream] for stream in self.streams])

    def _watch(self) -> GradientNorms | None:
        """What adds gradient norms up; None if nobody asks for them."""
        if not any(GRADIENT_NORMS in network.config.diagnostics for network in self.networks):
            return None
        configs = [_perceptron(network) for network in self.networks]
        depths = [range(len(config.widths)) for config in configs]
        return GradientNorms(self._model, depths, [n.gradient_norms for n in self.networks])

    def _fill_mask(self, depth: int) -> None:
        self._masks[depth].fill()

    def _rate(self, network: Network) -> float:
        config, steps = network.config, network.optimizer.steps
        factor = rate_factor(config.schedule, steps, self._batches, config.epochs)
        return config.optimizer.lr * factor

    def _tensor(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self._task.examples.device, dtype=self._task.dtype)


def _perceptron(network: Network) -> MlpConfig:
    assert isinstance(network.config.model, MlpConfig)
    return network.config.model
