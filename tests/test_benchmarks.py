"""The benchmarks measure what they say; how fast it is, is no matter for a test."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from benchmarks import control_plane, histories
from hpo import space
from hpo.definition import StudyDefinition, load_definition
from hpo.search import records
from hpo.search.storage import open_storage
from hpo.search.study import SLOT, create_or_resume


@pytest.fixture
def definition() -> StudyDefinition:
    return load_definition(Path("studies/fashion_mnist.yaml"))


def test_trials_written_in_bulk_are_what_optuna_would_have_written(
    tmp_path: Path, definition: StudyDefinition
) -> None:
    past = histories.past_trials(definition, 0, 30)
    with open_storage(f"sqlite:///{tmp_path}/hpo.db") as storage:
        study = create_or_resume(storage, definition, "a")
        histories.write_slots(storage.engine, study._study_id, 0, 30)
        for first, last in ((0, 20), (20, 30)):
            histories.write(storage.engine, study._study_id, first, past[first:last], of_hpo=True)
        other = optuna.create_study(storage=storage.optuna, direction="maximize")
        for trial in study.trials:
            other.add_trial(trial)
        assert [trial.number for trial in study.trials] == list(range(30))
        rows = {row.id: row for row in storage.ledger.slots(study._study_id)}
        for trial, again, drawn in zip(study.trials, other.trials, past, strict=True):
            assert (again.params, again.values) == (trial.params, trial.values)
            assert again.intermediate_values == trial.intermediate_values
            assert again.distributions == trial.distributions
            assert space.draw(definition, optuna.trial.FixedTrial(trial.params)) == drawn.config
            assert records.read(trial, maximize=True).config == drawn.config
            slot = rows[trial.user_attrs[SLOT]]
            assert (slot.done, slot.number, slot.trial_id) == (True, trial.number, trial._trial_id)


def test_the_control_plane_is_measured_on_all_three(capsys: pytest.CaptureFixture[str]) -> None:
    control_plane.main(
        ["--sizes", "12,20", "--databases", "sqlite", "--trials", "1", "--rounds", "1"]
    )
    rows = [
        line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "sqlite" in line
    ]
    assert [row[1].strip() for row in rows] == ["12", "20"]
    assert all(len(row) == 7 and all(cell.strip() for cell in row) for row in rows)
