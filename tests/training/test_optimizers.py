"""Every optimizer, step by step in float64, against torch's own class with the same settings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hpo.config import OptimizerConfig
from hpo.training.optimizers import OPTIMIZERS, build_optimizer

STEPS = 25
SHAPES = [(7, 5), (7,), (3, 7), (3,), (1, 1)]

CASES = {
    "sgd": OptimizerConfig(name="sgd", lr=0.1),
    "sgd momentum": OptimizerConfig(name="sgd", lr=0.1, momentum=0.9),
    "sgd nesterov": OptimizerConfig(name="sgd", lr=0.1, momentum=0.8, nesterov=True),
    "sgd decay": OptimizerConfig(name="sgd", lr=0.1, weight_decay=0.05),
    "sgd all": OptimizerConfig(
        name="sgd", lr=0.1, momentum=0.95, nesterov=True, weight_decay=0.01
    ),
    "adam": OptimizerConfig(name="adam", lr=0.01),
    "adam all": OptimizerConfig(
        name="adam", lr=0.01, beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.1
    ),
    "adamw": OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1),
    "adamw all": OptimizerConfig(
        name="adamw", lr=0.01, beta1=0.7, beta2=0.99, epsilon=1e-4, weight_decay=0.3
    ),
    "nadam": OptimizerConfig(name="nadam", lr=0.01),
    "nadam all": OptimizerConfig(
        name="nadam", lr=0.01, beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.1
    ),
    "rmsprop": OptimizerConfig(name="rmsprop", lr=0.01),
    "rmsprop momentum": OptimizerConfig(name="rmsprop", lr=0.01, momentum=0.9),
    "rmsprop all": OptimizerConfig(
        name="rmsprop", lr=0.01, momentum=0.5, alpha=0.9, epsilon=1e-3, weight_decay=0.1
    ),
}
TORCH_STATE = {
    "sgd": {"momentum": "momentum_buffer"},
    "adam": {"mean": "exp_avg", "square": "exp_avg_sq"},
    "adamw": {"mean": "exp_avg", "square": "exp_avg_sq"},
    "nadam": {"mean": "exp_avg", "square": "exp_avg_sq"},
    "rmsprop": {"square": "square_avg", "momentum": "momentum_buffer"},
}


def torch_optimizer(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    lr, decay, eps = config.lr, config.weight_decay, config.epsilon
    betas = (config.beta1, config.beta2)
    make: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(
            parameters,
            lr=lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=decay,
        ),
        "adam": lambda: torch.optim.Adam(parameters, lr, betas, eps, decay),
        "adamw": lambda: torch.optim.AdamW(parameters, lr, betas, eps, decay),
        "nadam": lambda: torch.optim.NAdam(parameters, lr, betas, eps, decay),
        "rmsprop": lambda: torch.optim.RMSprop(
            parameters, lr, config.alpha, eps, decay, config.momentum
        ),
    }
    return make[config.name]()


pytestmark = pytest.mark.usefixtures("float64_default")


class Race:
    """One optimizer of ours and torch's, on the same gradients."""

    def __init__(self, config: OptimizerConfig) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.config = config
        self.ours = build_optimizer(config)
        self.mine = self.draw()
        self.gradients = [torch.zeros_like(p) for p in self.mine]
        self.ours.bind(self.mine, self.gradients)
        self.theirs = [p.clone().requires_grad_() for p in self.mine]
        self.torch = torch_optimizer(config, self.theirs)

    def draw(self) -> list[Tensor]:
        return [
            torch.randn(shape, generator=self.generator, dtype=torch.float64) for shape in SHAPES
        ]

    def run(self, steps: int) -> None:
        for step in range(steps):
            lr = self.config.lr * (1 + (self.ours.steps * 7 % 5)) / 3
            # Gradients of very different sizes, and some that are exactly zero.
            scale = 10.0 ** (step % 7 - 5) if step % 11 else 0.0
            for gradient, theirs, new in zip(
                self.gradients, self.theirs, self.draw(), strict=True
            ):
                gradient.copy_(new * scale)
                theirs.grad = gradient.clone()
            self.torch.param_groups[0]["lr"] = lr
            self.torch.step()
            self.ours.step(lr)
            self.compare()

    def compare(self) -> None:
        torch.testing.assert_close(
            self.mine, [p.detach() for p in self.theirs], rtol=1e-11, atol=1e-13
        )


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_every_step_is_that_of_torch(config: OptimizerConfig) -> None:
    race = Race(config)
    before = [p.clone() for p in race.mine]
    race.run(STEPS)
    assert race.ours.steps == STEPS
    for old, new in zip(before, race.mine, strict=True):
        assert (new - old).abs().max() > 1e-3


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_what_is_remembered_is_what_torch_remembers(config: OptimizerConfig) -> None:
    race = Race(config)
    race.run(STEPS)
    compared = 0
    for ours, theirs in TORCH_STATE[config.name].items():
        if ours == "momentum" and not config.momentum:
            continue
        for mine, parameter in zip(race.ours.state[ours], race.theirs, strict=True):
            expected = race.torch.state[parameter][theirs]
            torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-13)
            compared += 1
    plain = config.name == "sgd" and not config.momentum
    assert compared or plain


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_parameters_that_move_keep_their_state(config: OptimizerConfig) -> None:
    race = Race(config)
    race.run(5)
    left = race.mine
    race.mine = [p.clone() for p in left]
    race.gradients = [torch.zeros_like(p) for p in left]
    kept = [p.clone() for p in left]
    race.ours.bind(race.mine, race.gradients)
    race.run(10)
    assert race.ours.steps == 15
    torch.testing.assert_close(left, kept, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam"])
def test_steps_beyond_those_counted_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.training.optimizers._COUNTS", 4)
    race = Race(CASES[name])
    race.run(9)
    resumed = build_optimizer(race.config)
    resumed.resume(race.ours.steps, race.ours.scalars, race.ours.state)
    resumed.bind(race.mine, race.gradients)
    race.ours = resumed
    race.run(9)
    assert race.ours.steps == 18


def test_every_optimizer_is_raced() -> None:
    assert {config.name for config in CASES.values()} == set(OPTIMIZERS)


def test_strided_views_of_a_flat_tensor_can_be_trained() -> None:
    flat, gradients = torch.ones(10), torch.ones(10)
    for name in OPTIMIZERS:
        before = flat.clone()
        optimizer = build_optimizer(OptimizerConfig(name=name, lr=0.1))
        optimizer.bind(
            [flat[2:5], flat[5:9].view(2, 2)], [gradients[2:5], gradients[5:9].view(2, 2)]
        )
        optimizer.step(0.1)
        moved = flat != before
        assert moved.tolist() == [False] * 2 + [True] * 7 + [False]
