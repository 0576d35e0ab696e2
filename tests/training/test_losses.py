"""The loss of each member, its gradient and its score, against torch's."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from hpo.training.losses import cross_entropy, score


def draw(batch: int, members: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(members, classes, batch, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (members, batch), generator=generator)


@settings(deadline=None)
@given(
    batch=st.integers(1, 20),
    classes=st.integers(2, 12),
    smoothing=st.lists(st.sampled_from([0.0, 0.1, 0.37, 0.9]), min_size=1, max_size=6),
    shared=st.booleans(),
)
def test_loss_and_gradient_are_those_of_torch(
    batch: int, classes: int, smoothing: list[float], shared: bool
) -> None:
    members = len(smoothing)
    logits, labels = draw(batch, members, classes)
    given_labels = labels[:1] if shared else labels
    kept = logits.clone()
    losses, gradient = cross_entropy(
        logits, given_labels, torch.tensor(smoothing, dtype=torch.float64)
    )
    assert torch.equal(logits, kept)
    for member, share in enumerate(smoothing):
        own = logits[member].t().clone().requires_grad_()
        target = given_labels[0 if shared else member]
        expected = functional.cross_entropy(own, target, label_smoothing=share)
        (expected_gradient,) = torch.autograd.grad(expected, own)
        torch.testing.assert_close(losses[member], expected.detach())
        torch.testing.assert_close(gradient[member].t(), expected_gradient)


def test_extreme_logits_have_finite_losses_and_a_sick_member_keeps_to_itself() -> None:
    logits, labels = draw(8, 3, 4)
    healthy, healthy_gradient = cross_entropy(logits, labels, torch.zeros(3).double())
    logits[0] *= 1e6
    logits[2, :, 2] = math.nan
    losses, gradient = cross_entropy(logits, labels, torch.zeros(3).double())
    assert losses[0].isfinite()
    assert losses[2].isnan()
    assert torch.equal(losses[1], healthy[1])
    assert torch.equal(gradient[1], healthy_gradient[1])


@settings(deadline=None)
@given(rows=st.integers(1, 40), members=st.integers(1, 5), classes=st.integers(2, 12))
def test_a_score_is_the_sum_over_the_rows(rows: int, members: int, classes: int) -> None:
    logits, labels = draw(rows, members, classes, seed=1)
    labels = labels[0]
    losses, right = score(logits, labels)
    for member in range(members):
        own = logits[member].t()
        expected = functional.cross_entropy(own, labels, reduction="sum")
        torch.testing.assert_close(losses[member], expected)
        assert right[member] == sum((own[row].argmax() == labels[row]) for row in range(rows))


def test_rows_that_are_not_numbers_count_as_wrong() -> None:
    logits = torch.zeros(2, 3, 4, dtype=torch.float64)
    logits[:, 0] = 1.0  # everybody says 0, rightly
    logits[1, 0, 0] = math.nan  # argmax of NaN is its place: 0
    logits[1, 2, 1] = math.nan
    logits[1, :, 2] = torch.tensor([math.inf, 0.0, 0.0])
    losses, right = score(logits, torch.zeros(4, dtype=torch.int64))
    assert right.tolist() == [4, 1]
    assert losses[0].isfinite()
    assert not losses[1].isfinite()
