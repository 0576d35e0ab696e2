"""The one look of a study with variations at the test rows: a score for each run, at its end.

A search sees training rows only. Variations are no search: nothing is drawn, pruned or chosen by
what comes out, so each run may be scored on the test rows, once, when its training is over. Of
studies without variations `hpo.search` opens no test rows anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from hpo.config import TrialConfig
from hpo.data import describe, fetch, load_test
from hpo.data.rows import kind_of
from hpo.data.vectors import on_device
from hpo.definition import StudyDefinition
from hpo.models.alone import build_module
from hpo.training.scoring import score_network
from hpo.training.task import Task

__all__ = ["FinalScore"]


class FinalScore:
    """Scores networks on the test rows of a study that searches nothing."""

    def __init__(self, definition: StudyDefinition, task: Task) -> None:
        assert definition.looks_at_test
        name = definition.dataset.name
        fetch(name)
        rows = load_test(name, kind_of(describe(name)))
        self._rows = on_device(rows, task.examples.device)
        self._task = task

    @classmethod
    def of(cls, definition: StudyDefinition, task: Task) -> Self | None:
        """That of a study; None where anything is searched, or the study says so.

        Raises:
            DataError: the test rows cannot be had; better now than after the training.
        """
        return cls(definition, task) if definition.looks_at_test else None

    def __call__(self, config: TrialConfig, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Every metric of a network on the test rows, such as `test_accuracy`.

        Args:
            state: its tensors, by the names of the module of `hpo.models.alone`.
        """
        task = self._task
        model = build_module(config.model, task.shape, task.outputs)
        model = model.to(task.examples.device).eval()
        metrics, _ = score_network(model, state, self._rows, task)
        return {f"test_{name}": value for name, value in metrics.items()}
