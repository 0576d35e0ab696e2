"""One member's optimizer: torch's own kernels over that member's places in the flat tensors.

An optimizer keeps its state for the member's life, while the population around the member changes
and its parameters move; `bind` tells it where they are now. torch.optim's classes do the same
arithmetic (the tests compare every step), but spend more time finding the parameters than a small
network needs to train. torch has a kernel that does all of a step for SGD and Adam alone; what
another rule has in common with Adam, Adam's kernel does for it. So a step reads the memory few
times, and takes a GPU few launches: one a member for SGD, Adam, AdamW and plain RMSProp, four for
NAdam. Lists of several members' tensors would not make them fewer: a launch of torch's `_foreach_`
functions takes some 30 to 100 tensors, a member has about ten, and a step needs six or more.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hpo.config import OptimizerConfig, TrialConfig

__all__ = ["OPTIMIZERS", "Optimizer", "build_optimizer", "optimizer_of"]

_SUM = "gradient_sum"
_COUNTS = 1024  # how many are written to the device at once; each is read for one step


class Optimizer(abc.ABC):
    """The rule by which one member's parameters follow their gradients.

    Args:
        config: its settings; the learning rate is given with each step.
        gradient_reset: whether a step follows the gradient of its batch; else it follows the sum
            of all gradients so far, as in a loop that never sets them to zero.

    Attributes:
        steps: how many were taken.
        scalars: what else the rule remembers, one number each, by name.
        state: lists of tensors, one tensor a parameter, by the name of what they hold.
        state_names: these names.
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, config: OptimizerConfig, *, gradient_reset: bool = True) -> None:
        self.config = config
        if not gradient_reset:
            self.state_names = (*self.state_names, _SUM)
        self.steps = 0
        self.scalars: dict[str, float] = {}
        self.state: dict[str, list[Tensor]] = {}
        self._parameters: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._counts = torch.empty(0)
        self._first_count = 0

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
        self._counts = torch.empty(0)

    def step(self, lr: float) -> None:
        """Take one step with that learning rate."""
        self.steps += 1
        if _SUM in self.state:
            # Summed apart: the rules write to the gradients, and the sum is to stay as it is.
            torch._foreach_add_(self.state[_SUM], self._gradients)
            torch._foreach_copy_(self._gradients, self.state[_SUM])
        self._update(lr, self._parameters, self._gradients)

    @abc.abstractmethod
    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None: ...

    def _count(self) -> Tensor:
        """`steps` as a number on the device, out of many that were written there at once."""
        if not 0 <= self.steps - self._first_count < len(self._counts):
            self._first_count = self.steps
            self._counts = torch.arange(
                self.steps,
                self.steps + _COUNTS,
                dtype=torch.float32,
                device=self._parameters[0].device,
            )
        return self._counts[self.steps - self._first_count]

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
        _adam(
            self.kernel,
            (parameters, gradients, self.state["mean"], self.state["square"]),
            self._count(),
            lr=lr,
            betas=(self.config.beta1, self.config.beta2),
            epsilon=self.config.epsilon,
            weight_decay=self.config.weight_decay,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kernel = staticmethod(torch._fused_adamw_)


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat 2016), with the momentum schedule of that paper.

    The step along the mean is one of Adam at another rate; that along the gradient follows.
    """

    state_names = ("mean", "square")
    _decay = 0.004

    def __init__(self, config: OptimizerConfig, *, gradient_reset: bool = True) -> None:
        super().__init__(config, gradient_reset=gradient_reset)
        self.scalars["momentum_product"] = 1.0

    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        config, mean, square = self.config, self.state["mean"], self.state["square"]
        momentum, upcoming = self._momentum(self.steps), self._momentum(self.steps + 1)
        product = self.scalars["momentum_product"] * momentum
        self.scalars["momentum_product"] = product
        self._add_weight_decay(parameters, gradients)
        _adam(
            torch._fused_adam_,
            (parameters, gradients, mean, square),
            self._count(),
            # Adam's divides by the first of these; this rule has a correction of its own.
            lr=lr * (1 - config.beta1**self.steps) * upcoming / (1 - product * upcoming),
            betas=(config.beta1, config.beta2),
            epsilon=config.epsilon,
        )
        # What Adam divides by, times the root of its correction of the squares.
        correction = math.sqrt(1 - config.beta2**self.steps)
        root = torch._foreach_sqrt(square)
        torch._foreach_add_(root, config.epsilon * correction)
        of_gradient = -lr * (1 - momentum) / (1 - product) * correction
        torch._foreach_addcdiv_(parameters, gradients, root, of_gradient)

    def _momentum(self, step: int) -> float:
        return self.config.beta1 * (1 - 0.5 * math.pow(0.96, step * self._decay))


class RmsProp(Optimizer):
    """Tieleman and Hinton (2012), lecture 6.5; epsilon outside the root; momentum if asked for.

    That is Adam whose mean forgets at once and whose corrections are over.
    """

    state_names = ("square", "momentum")

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        super().bind(parameters, gradients)
        self._counts = torch.full((1,), math.inf, device=parameters[0].device)

    def _update(self, lr: float, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        if self.config.momentum:
            velocity = self.state["momentum"]
            self._add_weight_decay(parameters, gradients)
            torch._foreach_mul_(velocity, self.config.momentum)
            self._move(velocity, gradients, lr=-1.0)
            torch._foreach_add_(parameters, velocity, alpha=-lr)
        else:
            self._move(parameters, gradients, lr=lr, weight_decay=self.config.weight_decay)

    def _move(
        self, parameters: list[Tensor], gradients: list[Tensor], lr: float, weight_decay: float = 0
    ) -> None:
        """Take `lr` times gradient over root from the parameters; the gradients are used up."""
        _adam(
            torch._fused_adam_,
            (parameters, gradients, gradients, self.state["square"]),
            self._counts[0],
            lr=lr,
            betas=(0.0, self.config.alpha),
            epsilon=self.config.epsilon,
            weight_decay=weight_decay,
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": Sgd,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "rmsprop": RmsProp,
}


def build_optimizer(config: OptimizerConfig, *, gradient_reset: bool = True) -> Optimizer:
    """The optimizer that a config names; the definition has checked that it exists."""
    return OPTIMIZERS[config.name](config, gradient_reset=gradient_reset)


def optimizer_of(config: TrialConfig) -> Optimizer:
    """The optimizer of a network that is trained by that config."""
    return build_optimizer(config.optimizer, gradient_reset=config.gradient_reset)


def _adam(
    kernel: Callable[..., None],
    tensors: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]],
    count: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float = 0.0,
) -> None:
    """One step by torch's kernel.

    Args:
        tensors: parameters, gradients, means, mean squares. Every element is read before it is
            written, so means that shall forget at once may lie where the gradients do.
        count: how many steps this makes, float32 on the device of the tensors.
    """
    kernel(
        *tensors,
        [],
        [count] * len(tensors[0]),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=epsilon,
        amsgrad=False,
        maximize=False,
    )
