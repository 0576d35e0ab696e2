"""A search within the test's own process: its workers, and what may be done behind their backs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.definition import StudyDefinition, load_definition
from hpo.search.objective import SearchCrew
from hpo.search.state_folder import state_folder
from hpo.search.storage import Storage
from hpo.search.study import create_or_resume, load
from hpo.search.worker import WorkerOptions, build_crew, run_worker
from hpo.training.task import Split, prepare

STUDY = """
dataset: {name: digits}
model: {mlp: {layers: 1, width: {int: [16, 64]}}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: {choice: [32, 64]}, epochs: 3}
search: {trials: 3, sampler: random, pruner: none}
"""
ALONE = WorkerOptions(population=1)
OTHER = "elsewhere:1:1-abc-1-x"


class Watcher:
    """Counts."""

    def __init__(self) -> None:
        self.epochs = 0
        self.told: list[int] = []

    def epoch(self, *_: float) -> None:
        self.epochs += 1

    def finished(self, number: int, *_: object) -> None:
        self.told.append(number)

    def waiting(self) -> None:
        pass


class Search:
    """A study with a budget, and workers of it in this process."""

    def __init__(self, storage: Storage, definition: StudyDefinition, data: Split) -> None:
        self.storage, self.definition, self.data = storage, definition, data
        self.study = create_or_resume(storage, definition, "s")
        storage.ledger.set_budget(self.study._study_id, definition.search.trials)

    def run(
        self,
        watcher: Watcher | None = None,
        options: WorkerOptions = ALONE,
        stopping: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until the budget is met; returns whether it is."""
        given = (self.storage, self.study, self.definition, self.data, options)
        return run_worker(*given, watcher=watcher or Watcher(), stopping=stopping)

    def crew(self, storage: Storage, holder: str) -> SearchCrew:
        """The crew of a worker that nobody runs."""
        study, _ = load(storage, "s")
        return build_crew(
            *(storage, study, self.definition, self.data, ALONE, holder),
            watcher=Watcher(),
            lost=frozenset,
            stopping=lambda: False,
        )

    def change(self, **values: object) -> None:
        """Change every slot that is not done, behind everybody's back."""
        slots = sa.table("hpo_slots", *(sa.column(name) for name in ("done", *values)))
        with self.storage.engine.begin() as connection:
            connection.execute(sa.update(slots).where(~slots.c.done).values(**values))

    def stopped_after(self, epochs: int) -> None:
        """Train so many epochs, and stop in the midst of the next one."""
        watcher = Watcher()
        assert not self.run(watcher, stopping=lambda: watcher.epochs >= epochs)

    @property
    def folder(self) -> Path:
        """Where its workers keep their own."""
        return state_folder(self.storage.ledger.database_id)


def begin(storage: Storage, folder: Path, patch: pytest.MonkeyPatch, study: str = STUDY) -> Search:
    """A search of a study, with a state folder of its own."""
    patch.setenv("HPO_STATE", str(folder / "state"))
    (folder / "s.yaml").write_text(study)
    definition = load_definition(folder / "s.yaml")
    return Search(storage, definition, prepare(definition))
