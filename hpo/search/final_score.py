"""The one look of a study with variations at the test rows: a score for each run, at its end.

A search sees training rows only. Variations are no search: nothing is drawn, pruned or chosen by
what comes out, so each run may be scored on the test rows, once, when its training is over. This
is the only place in `hpo.search` that opens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from hpo.config import TrialConfig
from hpo.data import fetch, load_test
from hpo.data.tensors import ImageTensors
from hpo.definition import StudyDefinition
from hpo.models.alone import build_module
from hpo.training.scoring import score_network
from hpo.training.task import Task

__all__ = ["FinalScore"]


class FinalScore:
    """Scores networks on the test rows of a study that searches nothing."""

    def __init__(self, definition: StudyDefinition, task: Task) -> None:
        assert definition.looks_at_test
        fetch(definition.dataset.name)
        self._rows = ImageTensors(load_test(definition.dataset.name), task.examples.device)
        self._task = task

    @classmethod
    def of(cls, definition: StudyDefinition, task: Task) -> Self | None:
        """That of a study; None where anything is searched, or the study says so.

        Raises:
            DataError: the test rows cannot be had; better now than after the training.
        """
        return cls(definition, task) if definition.looks_at_test else None

    def __call__(self, config: TrialConfig, state: Mapping[str, Tensor]) -> dict[str, float]:
        """`test_accuracy` and `test_loss` of a network.

        Args:
            state: its tensors, by the names of the module of `hpo.models.alone`.
        """
        task = self._task
        model = build_module(config.model, task.shape, task.classes)
        model = model.to(task.examples.device).eval()
        metrics = score_network(model, state, self._rows, task.normalization)
        return {f"test_{name}": value for name, value in metrics.items()}
