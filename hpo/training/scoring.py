"""One network that stands alone, scored on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hpo.data.vectors import Examples
from hpo.training.lone import SCORED_ROWS
from hpo.training.task import Task

__all__ = ["score_network"]


def score_network(
    model: nn.Module, state: Mapping[str, Tensor], rows: Examples, task: Task
) -> tuple[dict[str, float], Tensor]:
    """Every metric of one network, in float32, on some rows as they are.

    Args:
        model: of the network's shape, for evaluation, on the device of the rows.
        state: the network's tensors, by the names of the model's `state_dict()`.
        task: what it was trained on.

    Returns:
        The metrics of the task's goal, and what the network gives for the rows,
        `[rows, outputs]`.
    """
    model.load_state_dict(state, strict=False)
    normalization, sums, parts = task.normalization, [], []
    with torch.inference_mode():
        for features, labels in rows.batches(
            torch.arange(len(rows)), normalization, torch.float32, SCORED_ROWS
        ):
            parts.append(model(features))
            sums.append(task.goal.sums(parts[-1].t()[None], labels[None]))
    std = normalization.target_std
    scores = task.goal.scores(torch.stack(sums).sum(0), None if std is None else std[None])
    return {name: scores[name].item() for name in task.goal.metrics}, torch.cat(parts)
