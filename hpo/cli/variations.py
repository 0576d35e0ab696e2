"""The table of a study with variations: one run a row, each with what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from hpo.cli import rendering

if TYPE_CHECKING:
    from hpo.definition import StudyDefinition
    from hpo.search.records import TrialRecord

__all__ = ["around_best", "show_plan", "show_runs", "tested"]

_COLUMNS = ["variation", "state", "value", "epochs", "train_seconds", "total_seconds", "device"]


def around_best(study: str, url: str, changes: list[str], name: str | None) -> StudyDefinition:
    """A study of one factor at a time around the best trial of a stored one.

    One that was begun already goes on as it is, whatever the best trial is by now.

    Raises:
        UsageError: there is no such study, or the name belongs to one of another kind.
        HpoError: it has no complete trial, or no ranges.
    """
    from hpo.cli.options import study_name
    from hpo.definition import StudyDefinition, change_definition, valid_name
    from hpo.errors import UsageError
    from hpo.results.around import around
    from hpo.search.status import read_trials
    from hpo.search.storage import open_storage
    from hpo.search.study import load, names

    searched = study_name(study)
    name = valid_name(f"{searched}-around-best" if name is None else name)
    with open_storage(url, must_exist=True) as opened:
        if name in names(opened):
            begun = load(opened, name)[1]
            if not begun.variations:
                raise UsageError(
                    f"study `{name}` is there and has no variations, so it is not one around a "
                    "best trial; give another --name"
                )
            return change_definition(begun, changes)
        trials, maximize = read_trials(opened, searched)
        data = around(load(opened, searched)[1], trials, maximize=maximize)
    return change_definition(StudyDefinition.model_validate({**data, "name": name}), changes)


def show_plan(definition: StudyDefinition) -> None:
    """Say which runs there will be."""
    from hpo.definition import describe_variation

    typer.echo(f"variations: {len(definition.variations)}, each trained once")
    for number, overrides in enumerate(definition.variations):
        typer.echo(f"  {number}: {describe_variation(overrides)}")


def show_runs(definition: StudyDefinition, trials: list[TrialRecord]) -> None:
    """Show every run, in the order of the variations, and what its numbers are."""
    from hpo.space import VARIATION

    columns = [*_COLUMNS]
    if definition.looks_at_test:
        columns.insert(3, tested(definition, trials))
    begun = [trial for trial in trials if VARIATION in trial.params]
    begun.sort(key=lambda trial: trial.params[VARIATION])
    rendering.write_rows([_row(trial, columns) for trial in begun], columns, "no run has begun")
    typer.echo(_meaning(definition, trials))
    _show_spreads(definition, begun)
    for trial in begun:
        if trial.state == "failed":
            words = trial.origin.get("variation", trial.number)
            typer.echo(f"{words}: {trial.outcome.get('reason')}")


def _show_spreads(definition: StudyDefinition, trials: list[TrialRecord]) -> None:
    """Say which parameters mattered, where each run changes one."""
    from hpo.results.around import spreads

    rows = spreads(definition, trials)
    if not rows:
        return
    typer.echo("")
    rendering.write_rows(rows, list(rows[0]), "")
    typer.echo(
        f"spread: the highest value less the lowest, of {definition.search.metric} on the "
        "validation rows; each run has one seed, so a small one may be chance"
    )


def _row(trial: TrialRecord, columns: list[str]) -> dict[str, Any]:
    noted = {**trial.origin, **trial.outcome}
    row = {key: noted.get(key) for key in columns}
    return {**row, "state": trial.state, "value": trial.value}


def tested(definition: StudyDefinition, trials: list[TrialRecord]) -> str:
    """Under which name the runs tell how good they are on the test rows.

    It is the accuracy, or where there are targets the study's metric.
    """
    from hpo.definition.metrics import CLASSIFICATION

    metric = definition.search.metric
    measured = any("test_mse" in trial.outcome for trial in trials)
    return f"test_{metric}" if measured or metric not in CLASSIFICATION else "test_accuracy"


def _meaning(definition: StudyDefinition, trials: list[TrialRecord]) -> str:
    value = f"value: validation {definition.search.metric} in a run's best epoch"
    if not definition.looks_at_test:
        return f"{value}; the test rows stay closed"
    on_test = tested(definition, trials).replace("_", " ")
    return (
        f"{value}; {on_test}: of its network after the last epoch. Nothing is searched or "
        "chosen here, so each run was scored on the test rows, once"
    )
