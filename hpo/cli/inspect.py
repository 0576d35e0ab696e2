"""`hpo status`, `hpo trials`, `hpo best` and `hpo effects`: what the database holds."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    RESULTS_PANEL,
    Format,
    OutputFormat,
    StorageUrl,
    StudyFilter,
    StudyName,
    storage_url,
    study_name,
)
from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    from hpo.search.records import TrialRecord
    from hpo.search.status import StudyStatus
    from hpo.search.storage import Storage

__all__ = ["register"]

_COUNTS = ["finished", "complete", "pruned", "failed", "running", "waiting"]
_STATUS = ["study", "budget", *_COUNTS, "best_trial", "best_value", "best_params"]
_TIMES = ["train_seconds", "total_seconds"]
_TRIAL = ["number", "state", "value", "params", "epochs", *_TIMES, "worker", "device", "reason"]
_TRIAL_TABLE = ["number", "state", "value", "epochs", "train_seconds", "reason", "params"]
_RUN_TABLE = ["number", "state", "variation", "value"]
_RUN_REST = ["epochs", *_TIMES, "device", "reason"]
_RUN = ["epochs", "best_epoch", "seed", *_TIMES]
_PLACE = ["worker", "device", "precision", "stream", "joined"]
_EFFECT = ["parameter", "level", "trials", "incomplete", "mean", "best", "effect"]
_LEARNING = ["learning", "overfitting_since"]
_BEST = ["study", "number", "value", "metric", "params", "config", *_RUN, *_PLACE, *_LEARNING]
_NOT_IN_TABLES = ("config", "overfitting_since")


_Repair = Annotated[
    bool,
    typer.Option(
        "--repair", help="First put in order what workers left behind that died; always safe."
    ),
]


class State(StrEnum):
    """A trial's state."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"


class Order(StrEnum):
    """What trials are sorted by."""

    NUMBER = "number"
    VALUE = "value"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (status, trials, best, effects):
        app.command(rich_help_panel=RESULTS_PANEL)(command)


def status(
    study: StudyFilter = None,
    repair: _Repair = False,
    storage: StorageUrl = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """How far studies are: their budget, their trials by state, the best so far.

    finished = complete + pruned + failed. A trial that was begun and that no worker holds now is
    waiting: the next hpo optimize takes it over. The JSON is an object with --study, a list
    without.
    """
    from hpo.cli import rendering
    from hpo.search.status import read_status, read_statuses
    from hpo.search.storage import open_storage

    name = None if study is None else study_name(study)
    with open_storage(storage_url(storage), must_exist=True) as opened:
        if repair:
            _put_in_order(opened, name)
        found = read_statuses(opened) if name is None else [read_status(opened, name)]
    rows = [_status_row(one) for one in found]
    if output is Format.JSON:
        rendering.write_json(rows if name is None else rows[0])
    elif output is Format.CSV:
        flat, spread = rendering.flatten(rows, "best_params", "best_param")
        rendering.write_csv(flat, [*_STATUS[:-1], *spread])
    elif name is None:
        rendering.write_rows(rows, _STATUS[:-1], "there is no study of hpo's here yet")
    else:
        rendering.write_record(rows[0], _STATUS)


def trials(
    study: StudyName,
    state: Annotated[
        list[State] | None,
        typer.Option("--state", help="Only trials in this state; may be repeated."),
    ] = None,
    sort: Annotated[
        Order, typer.Option("--sort", help="By number, or by value with the best first.")
    ] = Order.NUMBER,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="At most so many, after sorting.", show_default=False),
    ] = None,
    storage: StorageUrl = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """The trials of a study: parameters, values, time, and why each ended.

    The value is that of the trial's best epoch, also where it was pruned. train_seconds is
    training alone; total_seconds counts everything from the draw to the result. A study with
    variations has no search, and shows what each changes and how good it is on the test rows.
    """
    from hpo.cli import rendering
    from hpo.cli.variations import tested
    from hpo.search.status import read_trials
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    name = study_name(study)
    with open_storage(storage_url(storage), must_exist=True) as opened:
        found, maximize = read_trials(opened, name)
        definition = load(opened, name)[1]
    if sort is Order.VALUE:
        found.sort(key=lambda trial: _rank(trial, maximize=maximize))
    chosen = [trial for trial in found if not state or trial.state in state]
    varied = any("variation" in trial.origin for trial in found)
    on_test = tested(definition, found)
    fields = [*_TRIAL, "variation", on_test] if varied else _TRIAL
    rows = [_trial_row(trial, fields) for trial in chosen[:limit]]
    if output is Format.JSON:
        rendering.write_json(rows)
    elif output is Format.CSV:
        flat, spread = rendering.flatten(rows, "params", "param")
        at = fields.index("params")
        rendering.write_csv(flat, [*fields[:at], *spread, *fields[at + 1 :]])
    else:
        table = [*_RUN_TABLE, on_test, *_RUN_REST] if varied else _TRIAL_TABLE
        rendering.write_rows(rows, table, "there is no such trial")


def best(
    study: StudyName,
    storage: StorageUrl = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """The best complete trial of a study: its value, parameters and whole configuration.

    The value was chosen as the best of many and flatters; hpo retrain-best tells what it is
    worth. learning says whether it overfits.
    """
    from hpo.cli import rendering
    from hpo.search.status import best_trial, read_trials
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    name = study_name(study)
    with open_storage(storage_url(storage), must_exist=True) as opened:
        found, maximize = read_trials(opened, name)
        metric = load(opened, name)[1].search.metric
    winner = best_trial(found, maximize=maximize)
    if winner is None:
        raise HpoError(
            f"study `{name}` has no complete trial yet; "
            f"hpo status --study {name} shows how far it is"
        )
    row = _best_row(name, metric, winner)
    if output is Format.JSON:
        rendering.write_json(row)
    elif output is Format.CSV:
        flat, spread = rendering.flatten([row], "params", "param")
        columns = [column for column in _BEST if column not in ("params", "config")]
        rendering.write_csv(flat, [*columns, *spread])
    else:
        rendering.write_record(row, [column for column in _BEST if column not in _NOT_IN_TABLES])


def effects(
    study: StudyName,
    storage: StorageUrl = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """What each value of each parameter did on average, over the complete trials of a study.

    For parameters with finitely many values. Exact in a whole grid; in a search that learns, good
    values meet good company.
    """
    from hpo.cli import rendering
    from hpo.results.effects import mean_effects
    from hpo.search.status import read_trials
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    name = study_name(study)
    with open_storage(storage_url(storage), must_exist=True) as opened:
        rows = mean_effects(load(opened, name)[1], read_trials(opened, name)[0])
    if output is Format.JSON:
        rendering.write_json(rows)
    elif output is Format.CSV:
        rendering.write_csv(rows, _EFFECT)
    else:
        nothing = "no trial that ended has a parameter with finitely many values"
        rendering.write_rows(rows, _EFFECT, nothing)
    if any(row["incomplete"] for row in rows):
        sentence = (
            "trials that were pruned or failed have no part in the means, so the values of a "
            "parameter may not have met the same company"
        )
        typer.echo(sentence, err=True)


def _put_in_order(opened: Storage, name: str | None) -> None:
    """Repair one study, or all of hpo's, and say on stderr what that did."""
    from hpo.search.repair import repair
    from hpo.search.study import names

    for study in names(opened) if name is None else [name]:
        try:
            done = repair(opened, study)
        except UsageError:
            if name is not None:
                raise
            continue  # stock Optuna's, or one that `read_statuses` warns of
        typer.echo(
            f"{study}: results told that lay on this disk: {done.replayed}, "
            f"slots of told trials marked as done: {done.finished}, "
            f"trials without a slot ended: {done.retired}, "
            f"trials of lost workers freed: {done.freed}",
            err=True,
        )


def _status_row(found: StudyStatus) -> dict[str, Any]:
    best = found.best
    return {
        **{key: getattr(found, key) for key in _STATUS[:-3]},
        "best_trial": best and best.number,
        "best_value": best and best.value,
        "best_params": best and best.params,
    }


def _trial_row(trial: TrialRecord, fields: list[str]) -> dict[str, Any]:
    noted = {**trial.origin, **trial.outcome}
    row = {key: noted.get(key) for key in fields}
    return {**row, **{key: getattr(trial, key) for key in ("number", "state", "value", "params")}}


def _best_row(study: str, metric: str, trial: TrialRecord) -> dict[str, Any]:
    from hpo.results import overfitting

    noted = {**trial.origin, **trial.outcome}
    return {
        **{key: noted.get(key) for key in _BEST},
        "study": study,
        "number": trial.number,
        "value": trial.value,
        "metric": metric,
        "params": trial.params,
        "config": trial.config and trial.config.to_dict(),
        **overfitting.fields(trial.curve),
    }


def _rank(trial: TrialRecord, *, maximize: bool) -> tuple[bool, float, int]:
    """Best value first, no value last, equals by number."""
    value = trial.value or 0.0
    return trial.value is None, -value if maximize else value, trial.number
