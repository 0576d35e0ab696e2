"""One member's optimizer: torch's own kernels over that member's places in the flat tensors.

An optimizer keeps its state for the member's life, while the population around the member changes
and its parameters move; `bind` tells it where they are now. torch.optim's classes do the same
arithmetic (the tests compare every step), but spend more time finding the parameters than a small
network needs to train.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hpo.config import OptimizerConfig

__all__ = ["OPTIMIZERS", "Optimizer", "build_optimizer"]


class Optimizer(abc.ABC):
    """The rule by which one member's parameters follow their gradients.

    Args:
        config: its settings; the learning rate is given with each step.

    Attributes:
        steps: how many were taken.
        scalars: what else the rule remembers, one number each, by name.
        state: lists of tensors, one tensor a parameter, by the name of what they hold.
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, config: OptimizerConfig) -> None:
        self.config = config
        self.steps = 0
        self.scalars: dict[str, float] = {}
        self.state: dict[str, list[Tensor]] = {}
        self._parameters: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Say where the parameters and gradients lie, in an order that stays the same."""
        self._parameters = list(parameters)
        self._gradients = list(gradients)
        for name in self.state_names:
            if name not in self.state:
                self.state[name] = [torch.zeros_like(p) for p in self._parameters]

    def resume(
        self, steps: int, scalars: Mapping[str, float], state: Mapping[str, list[Tensor]]
    ) -> None:
        """Go on from what another optimizer of this config had come to; before `bind`.

        Args:
            state: as `self.state`, in the order in which `bind` will give the parameters; the
                tensors become this optimizer's own.
        """
        self.steps = steps
        self.scalars = dict(scalars)
        self.state = dict(state)

    def release(self) -> None:
        """Let go of the parameters and gradients, whose memory would live on; keep the state."""
        self._parameters, self._gradients = [], []

    def step(self, lr: float) -> None:
        """Take one step with that learning rate."""
        self.steps += 1
        self._update(lr, self._parameters, self._gradients)

    @abc.abstractmethod
    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None: ...

    def _add_weight_decay(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        if self.config.weight_decay:
            torch._foreach_add_(gradients, parameters, alpha=self.config.weight_decay)


class Sgd(Optimizer):
    """Gradient descent with momentum, Nesterov's if asked for (Sutskever et al. 2013)."""

    state_names = ("momentum",)

    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        torch._fused_sgd_(
            parameters,
            gradients,
            self.state["momentum"] if self.config.momentum else [],
            lr=lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            nesterov=self.config.nesterov and self.config.momentum > 0,
            dampening=0.0,
            maximize=False,
            is_first_step=False,  # a buffer of zeros gives the same first step
        )


class Adam(Optimizer):
    """Kingma and Ba (2015), algorithm 1; epsilon outside the root; L2 in the gradient."""

    state_names = ("mean", "square")
    kernel: Callable[..., None] = staticmethod(torch._fused_adam_)

    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        step = torch.full((), float(self.steps), device=parameters[0].device)
        self.kernel(
            parameters,
            gradients,
            self.state["mean"],
            self.state["square"],
            [],
            [step] * len(parameters),
            lr=lr,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            weight_decay=self.config.weight_decay,
            eps=self.config.epsilon,
            amsgrad=False,
            maximize=False,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kernel = staticmethod(torch._fused_adamw_)


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat 2016), with the momentum schedule of that paper."""

    state_names = ("mean", "square")
    _decay = 0.004

    def __init__(self, config: OptimizerConfig) -> None:
        super().__init__(config)
        self.scalars["momentum_product"] = 1.0

    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        config, mean, square = self.config, self.state["mean"], self.state["square"]
        momentum, upcoming = self._momentum(self.steps), self._momentum(self.steps + 1)
        product = self.scalars["momentum_product"] * momentum
        self.scalars["momentum_product"] = product
        self._add_weight_decay(parameters, gradients)
        torch._foreach_lerp_(mean, gradients, 1 - config.beta1)
        torch._foreach_mul_(square, config.beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - config.beta2)
        root = torch._foreach_div(square, 1 - config.beta2**self.steps)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, config.epsilon)
        of_gradient = -lr * (1 - momentum) / (1 - product)
        of_mean = -lr * upcoming / (1 - product * upcoming)
        torch._foreach_addcdiv_(parameters, gradients, root, of_gradient)
        torch._foreach_addcdiv_(parameters, mean, root, of_mean)

    def _momentum(self, step: int) -> float:
        return self.config.beta1 * (1 - 0.5 * math.pow(0.96, step * self._decay))


class RmsProp(Optimizer):
    """Tieleman and Hinton (2012), lecture 6.5; epsilon outside the root; momentum if asked for."""

    state_names = ("square", "momentum")

    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        config, square = self.config, self.state["square"]
        self._add_weight_decay(parameters, gradients)
        torch._foreach_mul_(square, config.alpha)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - config.alpha)
        root = torch._foreach_sqrt(square)
        torch._foreach_add_(root, config.epsilon)
        if config.momentum:
            velocity = self.state["momentum"]
            torch._foreach_mul_(velocity, config.momentum)
            torch._foreach_addcdiv_(velocity, gradients, root)
            torch._foreach_add_(parameters, velocity, alpha=-lr)
        else:
            torch._foreach_addcdiv_(parameters, gradients, root, -lr)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": Sgd,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "rmsprop": RmsProp,
}


def build_optimizer(config: OptimizerConfig) -> Optimizer:
    """The optimizer that a config names; the definition has checked that it exists."""
    return OPTIMIZERS[config.name](config)
