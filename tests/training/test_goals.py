"""The goals in float64: losses and gradients against torch, scores against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import Tensor
from torch.nn import functional

from hpo.definition.metrics import DIRECTIONS
from hpo.training.goals import CLASSES, TARGETS, Goal
from hpo.training.losses import squared_error


def draw(networks: int, targets: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs `[networks, targets, rows]` and targets `[networks, rows, targets]`."""
    generator = torch.Generator().manual_seed(seed)
    wanted = 2 + torch.randn(networks, rows, targets, generator=generator, dtype=torch.float64)
    noise = torch.randn(networks, targets, rows, generator=generator, dtype=torch.float64)
    return wanted.transpose(1, 2) + noise, wanted


def scored(
    goal: Goal, outputs: Tensor, wanted: Tensor, scale: Tensor | None, batch: int
) -> dict[str, list[float]]:
    """The scores of rows that come `batch` at a time."""
    parts = zip(torch.split(outputs, batch, 2), torch.split(wanted, batch, 1), strict=True)
    sums = torch.stack([goal.sums(*part) for part in parts]).sum(0)
    return {name: values.tolist() for name, values in goal.scores(sums, scale).items()}


@settings(deadline=None)
@given(
    networks=st.integers(1, 4),
    targets=st.integers(1, 3),
    rows=st.integers(1, 9),
    same=st.booleans(),
)
def test_squared_error_and_its_gradient_are_those_of_torch(
    networks: int, targets: int, rows: int, same: bool
) -> None:
    outputs, wanted = draw(networks, targets, rows)
    given_targets = wanted[:1] if same else wanted
    losses, gradient = TARGETS.loss(outputs, given_targets, torch.zeros(networks).double())
    for network in range(networks):
        own = outputs[network].t().clone().requires_grad_()
        expected = functional.mse_loss(own, given_targets[0 if same else network])
        (expected_gradient,) = torch.autograd.grad(expected, own)
        torch.testing.assert_close(losses[network], expected.detach())
        torch.testing.assert_close(gradient[network].t(), expected_gradient)


def test_the_gradient_is_what_numerical_differences_give() -> None:
    outputs, wanted = draw(2, 3, 4)
    targets = wanted.transpose(1, 2)
    _, gradient = squared_error(outputs, targets)
    step = torch.zeros_like(outputs)
    step[1, 2, 3] = 1e-6
    above, below = (squared_error(outputs + sign * step, targets)[0][1] for sign in (1, -1))
    assert gradient[1, 2, 3].item() == pytest.approx((above - below).item() / 2e-6, rel=1e-6)


@settings(deadline=None)
@given(targets=st.integers(1, 3), rows=st.integers(2, 40), batch=st.integers(1, 40))
def test_scores_are_those_of_scikit_learn_in_the_targets_own_units(
    targets: int, rows: int, batch: int
) -> None:
    outputs, wanted = draw(2, targets, rows)
    scale = torch.tensor([[3.0, 0.01, 200.0], [0.5, 7.0, 1.0]]).double()[:, :targets]
    found = scored(TARGETS, outputs, wanted, scale, batch)
    assert tuple(found) == TARGETS.metrics
    for network in range(2):
        truth = (wanted[network] * scale[network] + 11).numpy()
        guess = (outputs[network].t() * scale[network] + 11).numpy()
        expected = {
            "loss": functional.mse_loss(outputs[network].t(), wanted[network]).item(),
            "mse": metrics.mean_squared_error(truth, guess),
            "rmse": metrics.root_mean_squared_error(truth, guess),
            "mae": metrics.mean_absolute_error(truth, guess),
            "r2": metrics.r2_score(truth, guess),
        }
        assert {name: values[network] for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("unit", [2e30, 9.1e-31])
def test_scores_in_large_and_small_units_are_finite_and_not_zero(unit: float) -> None:
    """Masses in kg, of stars and of electrons: a float32 holds them, and not their squares."""
    outputs, wanted = draw(2, 1, 20)
    plain = scored(TARGETS, outputs, wanted, torch.ones(2, 1), 20)
    found = scored(TARGETS, outputs, wanted, torch.full((2, 1), unit), 20)
    of_unit = {"loss": 1.0, "mse": unit**2, "rmse": unit, "mae": unit, "r2": 1.0}
    for name, values in found.items():
        expected = [value * of_unit[name] for value in plain[name]]
        assert values == pytest.approx(expected, rel=1e-6, abs=0.0), name


def test_rows_of_all_networks_alike_and_rows_that_fill_up() -> None:
    outputs, wanted = draw(3, 2, 10)
    scale = torch.ones(3, 2).double()
    together = scored(TARGETS, outputs, wanted[:1], scale, 10)
    by_itself = scored(TARGETS, outputs, wanted[:1].expand(3, -1, -1), scale, 10)
    for name, values in together.items():
        assert values == pytest.approx(by_itself[name])
    filled = torch.cat([wanted, torch.full((3, 4, 2), TARGETS.filler).double()], 1)
    longer = torch.cat([outputs, torch.full((3, 2, 4), 1e6).double()], 2)
    assert scored(TARGETS, longer, filled, scale, 7) == {
        name: pytest.approx(values)
        for name, values in scored(TARGETS, outputs, wanted, scale, 10).items()
    }


def test_targets_that_never_change_have_an_r2_as_in_scikit_learn() -> None:
    wanted = torch.full((2, 5, 1), 0.3).double()
    outputs = wanted.transpose(1, 2).clone()
    outputs[1, 0, 0] += 0.1
    found = scored(TARGETS, outputs, wanted, torch.ones(2, 1).double(), 2)
    assert found["r2"] == [1.0, 0.0]
    truths, guesses = wanted[:, :, 0].numpy(), outputs[:, 0].numpy()
    assert found["r2"] == [metrics.r2_score(*pair) for pair in zip(truths, guesses, strict=True)]


def test_a_sick_network_keeps_to_itself() -> None:
    outputs, wanted = draw(2, 1, 6)
    scale = torch.ones(2, 1).double()
    healthy = scored(TARGETS, outputs, wanted, scale, 6)
    outputs[0, 0, 2] = math.nan
    found = scored(TARGETS, outputs, wanted, scale, 6)
    for name, values in found.items():
        assert math.isnan(values[0]), name
        assert values[1] == healthy[name][1]


def test_classes_are_scored_as_torch_does_and_what_fills_up_adds_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (2, 9), generator=generator)
    labels[1, 6:] = int(CLASSES.filler)
    found = scored(CLASSES, logits, labels, None, 4)
    assert found.keys() == set(CLASSES.metrics)
    for network, rows in enumerate((9, 6)):
        own, expected = logits[network, :, :rows].t(), labels[network, :rows]
        loss = functional.cross_entropy(own, expected).item()
        assert found["loss"][network] == pytest.approx(loss)
        assert found["accuracy"][network] == (own.argmax(1) == expected).double().mean().item()


def test_every_metric_has_a_direction_and_a_goal() -> None:
    assert {*CLASSES.metrics, *TARGETS.metrics} == DIRECTIONS.keys()
