"""Grid search: a trial's values follow from its slot, so that every cell is visited once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

__all__ = ["CellSampler"]


class CellSampler(BaseSampler):
    """Gives a trial the values of one cell of a grid.

    Which cell follows from the number of the trial's slot. Slots are claimed once and taken over
    with their trial, over any number of workers and restarts, so each cell is visited exactly
    once. Optuna's own `GridSampler` looks at what has finished, and two workers can draw the
    same cell.

    Args:
        cell: the value of each parameter, by its name.
    """

    def __init__(self, cell: Mapping[str, Any]) -> None:
        self._cell = cell

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Nothing is drawn jointly."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """The cell's value."""
        return self._cell[param_name]
