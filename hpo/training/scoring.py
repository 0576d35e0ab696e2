"""One network that stands alone, scored on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hpo.data.tensors import ImageTensors, Normalization
from hpo.training.lone import SCORED_ROWS
from hpo.training.losses import score

__all__ = ["score_network"]


def score_network(
    model: nn.Module, state: Mapping[str, Tensor], rows: ImageTensors, normalization: Normalization
) -> dict[str, float]:
    """Every metric of one network, in float32, on some rows as they are.

    Args:
        model: of the network's shape, for evaluation, on the device of the rows.
        state: the network's tensors, by the names of the model's `state_dict()`.

    Returns:
        `accuracy` in [0, 1], and `loss`, the mean cross-entropy in nats.
    """
    model.load_state_dict(state, strict=False)
    losses = right = 0.0
    with torch.inference_mode():
        for features, labels in rows.batches(
            torch.arange(len(rows)), normalization, torch.float32, SCORED_ROWS
        ):
            loss, correct = score(model(features).t()[None], labels)
            losses, right = losses + loss.item(), right + correct.item()
    return {"accuracy": right / len(rows), "loss": losses / len(rows)}
