"""`hpo optimize` and `hpo retrain-best`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    SEARCH_PANEL,
    Overrides,
    StorageUrl,
    StudyName,
    TextFormat,
    TextOutputFormat,
    storage_url,
    study_name,
)

if TYPE_CHECKING:
    import optuna

    from hpo.cli.signals import Stop
    from hpo.definition import StudyDefinition
    from hpo.search.records import TrialRecord
    from hpo.search.storage import Storage
    from hpo.search.worker import WorkerOptions
    from hpo.training.task import Split

__all__ = ["register"]


_Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        metavar="N",
        help="Finished trials that the study is to have in total, over all runs; "
        "`search.trials` of the study if left out.",
    ),
]
_Name = Annotated[
    str | None,
    typer.Option("--name", help="The study's name in the database; its file's if left out."),
]
_Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Of the split, the draws and the training; `search.seed`."),
]
_Population = Annotated[
    str, typer.Option("--population", metavar="K|auto", help="Trials to train side by side.")
]
_Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Stop then, and hand back what runs."),
]
_Lease = Annotated[
    float,
    typer.Option("--lease", metavar="SECONDS", help="How long a silent worker keeps its trials."),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, show the space, and change nothing.")
]
_Output = Annotated[
    Path, typer.Option("--output", help="The folder in which the artifact gets a folder.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=SEARCH_PANEL)(optimize)
    app.command("retrain-best", rich_help_panel=SEARCH_PANEL)(retrain_best)


def optimize(
    study: StudyName,
    trials: _Trials = None,
    storage: StorageUrl = None,
    name: _Name = None,
    overrides: Overrides = None,
    seed: _Seed = None,
    population: _Population = "auto",
    timeout: _Timeout = None,
    lease: _Lease = 60.0,
    dry_run: _DryRun = False,
) -> None:
    """Search a study until it has so many finished trials in total.

    Creates the study or resumes it; asked again, it does nothing and says so. Ctrl-C hands back
    the trials in training, and the same command goes on with them.
    """
    from hpo.cli.signals import Stop
    from hpo.search.storage import open_storage
    from hpo.search.study import create_or_resume
    from hpo.training.task import prepare

    options = _worker_options(population, lease, timeout)
    url = storage_url(storage)
    changes = [*(overrides or []), *_shorthands(trials, seed)]
    definition = _definition(study, url, changes, name)
    data = prepare(definition)
    if dry_run:
        _show_plan(definition, data, options)
        return
    with Stop(timeout) as stop, open_storage(url) as opened:
        search = create_or_resume(opened, definition, definition.name)
        with opened.guard():
            budget = opened.ledger.set_budget(search._study_id, definition.search.trials)
        _run(opened, search, definition, data, budget, options, stop)


def retrain_best(
    study: StudyName,
    storage: StorageUrl = None,
    output: _Output = Path("results"),
    form: TextOutputFormat = TextFormat.TABLE,
) -> None:
    """Score the finalists again, retrain the winner over seeds, and test it once.

    The artifact is OUTPUT/STUDY. As long as the study has not changed since, its result is
    shown again and the test set stays closed.
    """
    from hpo.cli.logs import stderr_console
    from hpo.cli.progress import Spinner
    from hpo.cli.signals import Stop
    from hpo.errors import Interrupted
    from hpo.results import artifact
    from hpo.results.retrain import retrain_best as run
    from hpo.search.storage import open_storage
    from hpo.search.study import load
    from hpo.training.population import Stopped

    name = study_name(study)
    folder = output / name
    with Stop() as stop, open_storage(storage_url(storage), must_exist=True) as opened:
        search, definition = load(opened, name)
        with opened.guard():
            state = artifact.fingerprint(search, definition)
        known = artifact.read_metrics(folder)
        if known is not None and known.get("study_state") == state:
            typer.echo(f"{folder} is up to date; the test set stays closed", err=True)
            _show_result(known, form)
            return
        artifact.check_place(folder)
        try:
            with Spinner(stderr_console()) as spinner, opened.guard():
                result = run(search, definition, stop, spinner)
        except Stopped:
            message = "stopped; nothing was tested and no artifact was written"
            raise Interrupted(message, stop.signal_number or 2) from None
        metrics = result.report(definition, name, str(folder))
        everything = {**metrics, **result.details(), "study_state": state}
        artifact.write(folder, result, definition, everything)
    _show_result(metrics, form)


# --- optimize


def _worker_options(population: str, lease: float, timeout: float | None) -> WorkerOptions:
    from hpo.errors import UsageError
    from hpo.search.worker import WorkerOptions

    if population != "auto" and not (population.isdecimal() and 1 <= int(population) <= 1024):
        raise UsageError(f"--population: {population} is neither auto nor a number of 1 to 1024")
    if not 1 <= lease <= 86_400:
        raise UsageError(f"--lease: {lease:g} seconds are out of bounds; give 1 to 86400")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout: {timeout:g} is no time; give seconds above 0")
    return WorkerOptions(None if population == "auto" else int(population), lease)


def _shorthands(trials: int | None, seed: int | None) -> list[str]:
    """`--trials` and `--seed` as what they stand for."""
    from hpo.errors import UsageError

    if trials is not None and trials < 1:
        raise UsageError(f"--trials: {trials} is not a number of trials; ask for 1 or more")
    changes = {"search.trials": trials, "search.seed": seed}
    return [f"{key}={value}" for key, value in changes.items() if value is not None]


def _definition(study: str, url: str, changes: list[str], name: str | None) -> StudyDefinition:
    """Of the study's file; of the database, where only that holds the study."""
    from hpo import studies
    from hpo.definition import change_definition, load_definition
    from hpo.errors import HpoError, UsageError

    try:
        path = studies.find(study)
    except UsageError:
        try:
            stored = _stored_definition(study, url)
        except HpoError:
            stored = None
        if stored is None:
            raise
        return change_definition(stored, changes, name=name)
    return load_definition(path, changes, name=name)


def _stored_definition(study: str, url: str) -> StudyDefinition:
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    with open_storage(url, must_exist=True) as opened:
        return load(opened, study_name(study))[1]


def _show_plan(definition: StudyDefinition, data: Split, options: WorkerOptions) -> None:
    from hpo import space
    from hpo.training.devices import device_name
    from hpo.training.footprint import default_capacity

    device = data.task.examples.device
    size = space.cardinality(definition)
    search = definition.search
    precision = str(data.task.precision).removeprefix("torch.")
    typer.echo(
        f"study: {definition.name}, {search.trials} trials, sampler {search.sampler.name}, "
        f"pruner {search.pruner.name}, metric {search.metric}, seed {search.seed}"
    )
    typer.echo(
        f"data: {definition.dataset.name}, {len(data.training)} training rows, "
        f"{len(data.validation)} validation rows"
    )
    typer.echo(
        f"device: {device_name(device)}, {precision}, "
        f"up to {options.population or default_capacity(device)} trials side by side"
    )
    typer.echo(f"space: {'continuous' if size is None else f'{size} combinations'}")
    for key, leaf in space.describe(definition).items():
        typer.echo(f"  {key}: {leaf}")


def _run(
    opened: Storage,
    search: optuna.Study,
    definition: StudyDefinition,
    data: Split,
    budget: int,
    options: WorkerOptions,
    stop: Stop,
) -> None:
    from hpo.cli.logs import stderr_console
    from hpo.cli.progress import SearchProgress
    from hpo.search.status import read_status
    from hpo.search.worker import run_worker

    def finished() -> int:
        return opened.ledger.counts(search._study_id).done

    before, wanted = read_status(opened, search.study_name), definition.search.trials
    if before.finished >= wanted:
        asked = f"{before.finished} trials have finished and {wanted} were asked for"
        typer.echo(f"{search.study_name}: {asked}; nothing to do")
        _show_best(before.best, definition)
        return
    if budget > wanted:
        typer.echo(f"{budget} trials have begun already; all of them are finished", err=True)
    start = time.monotonic()
    progress = SearchProgress(
        stderr_console(),
        finished,
        budget,
        before.best.value if before.best else None,
        maximize=definition.search.metric == "accuracy",
    )
    with progress:
        met = run_worker(opened, search, definition, data, options, progress, stop)
    after = read_status(opened, search.study_name)
    typer.echo(
        f"{search.study_name}: {after.finished} of {budget} trials finished ({after.complete} "
        f"complete, {after.pruned} pruned, {after.failed} failed), "
        f"{_duration(time.monotonic() - start)}"
    )
    _show_best(after.best, definition)
    _say_how_to_go_on(search.study_name, stop, met=met)


def _say_how_to_go_on(study: str, stop: Stop, *, met: bool) -> None:
    from hpo.errors import Interrupted

    if met:
        typer.echo(f"next: hpo retrain-best --study {study}")
    elif stop.signal_number is not None:
        message = "stopped; the trials in training were handed back, the same command goes on"
        raise Interrupted(message, stop.signal_number)
    else:
        typer.echo("the time is up; the same command goes on")


def _show_best(best: TrialRecord | None, definition: StudyDefinition) -> None:
    if best is None:
        typer.echo("no trial has trained to its end yet")
        return
    typer.echo(
        f"best: trial {best.number}, validation {definition.search.metric} {best.value:.4f} "
        f"in epoch {best.outcome.get('best_epoch')}"
    )
    _show_params(best.params)


def _show_params(params: dict[str, Any]) -> None:
    for key, value in params.items():
        typer.echo(f"  {key}: {value:.6g}" if isinstance(value, float) else f"  {key}: {value}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


# --- retrain-best


def _show_result(metrics: dict[str, Any], form: TextFormat) -> None:
    import json

    keys = ("study", "winner", "params", "validation", "test", "artifact")
    if form is TextFormat.JSON:
        typer.echo(json.dumps({key: metrics[key] for key in keys}))
        return
    validation, test = metrics["validation"], metrics["test"]
    typer.echo(f"{metrics['study']}: the winner is trial {metrics['winner']}")
    _show_params(metrics["params"])
    typer.echo(f"validation {test['metric']}: {_spread(validation)}, fresh seeds")
    interval = ""
    if test["ci95"]:
        low, high = test["ci95"]
        interval = f", 95 % interval {low:.4f} to {high:.4f}"
    typer.echo(f"test {test['metric']}: {_spread(test)}{interval}")
    typer.echo(f"artifact: {metrics['artifact']}")


def _spread(numbers: dict[str, Any]) -> str:
    spread = "" if numbers["std"] is None else f" +- {numbers['std']:.4f}"
    return f"{numbers['mean']:.4f}{spread} (n = {numbers['n']})"
