"""`hpo optimize` and `hpo submit`: a study gets its budget, and here or elsewhere its trials."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.definitions import asks_for_trials, find_definition, planned, shorthands
from hpo.cli.options import (
    OUTAGE_SECONDS,
    SEARCH_PANEL,
    Budget,
    Lease,
    Overrides,
    Population,
    Seed,
    StorageUrl,
    StudyName,
    StudyTitle,
    TextFormat,
    TextOutputFormat,
    Timeout,
    same_storage,
    storage_url,
)
from hpo.cli.workers import worker_options

if TYPE_CHECKING:
    from hpo.cli.progress import SearchProgress
    from hpo.cli.signals import Stop
    from hpo.cli.supervising import Crew
    from hpo.definition import StudyDefinition
    from hpo.search.ledger import Counts
    from hpo.search.records import TrialRecord
    from hpo.search.status import StudyStatus
    from hpo.search.storage import Storage
    from hpo.search.worker import WorkerOptions
    from hpo.training.task import Split

__all__ = ["register"]

_log = logging.getLogger(__name__)
_Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|auto",
        help="Train in so many processes on this machine; in this one alone if left out. auto: "
        "as many as GPUs, or as cores, memory and trials allow.",
        show_default=False,
    ),
]
_Gpus = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="0,1|all|none",
        help="The GPUs that the workers share; with --workers, all if left out.",
        show_default=False,
    ),
]
_PerGpu = Annotated[
    int | None,
    typer.Option(
        "--workers-per-gpu",
        metavar="N",
        help="The most workers on one GPU; 1 unless --workers asks for more.",
        show_default=False,
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, show the space, and change nothing.")
]
_AroundBest = Annotated[
    bool,
    typer.Option(
        "--around-best",
        help="Train variations of the study's best trial, one parameter at a time, as a study "
        "STUDY-around-best, and say which mattered.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=SEARCH_PANEL)(optimize)
    app.command(rich_help_panel=SEARCH_PANEL)(submit)


def optimize(
    study: StudyName,
    trials: Budget = None,
    storage: StorageUrl = None,
    name: StudyTitle = None,
    overrides: Overrides = None,
    seed: Seed = None,
    population: Population = "auto",
    timeout: Timeout = None,
    lease: Lease = 60.0,
    workers: _Workers = None,
    gpus: _Gpus = None,
    workers_per_gpu: _PerGpu = None,
    around_best: _AroundBest = False,
    dry_run: _DryRun = False,
) -> None:
    """Search a study until it has so many finished trials in total.

    Creates the study or resumes it; asked again, it does nothing and says so. Ctrl-C hands back
    the trials in training, and the same command goes on with them. Other machines join with hpo
    worker.
    """
    from hpo.cli import variations
    from hpo.cli.signals import Stop
    from hpo.cli.supervising import WorkerCommand, read_crew, run_crew
    from hpo.search.outages import Patience
    from hpo.search.storage import open_storage
    from hpo.search.study import load
    from hpo.search.worker import run_worker
    from hpo.training.task import prepare

    options = worker_options(population, lease, timeout)
    url = storage_url(storage)
    changes = [*(overrides or []), *shorthands(trials, seed)]
    find = variations.around_best if around_best else find_definition
    definition = find(study, url, changes, name)
    asked = asks_for_trials(changes)
    crew = read_crew(workers, gpus, workers_per_gpu, definition)
    if dry_run:
        if not asked:
            definition = planned(definition, url)
        _show_plan(definition, prepare(definition), options, crew)
        return
    data = None
    if crew is None:
        data = prepare(definition)
    else:
        _check_here(definition)
    with Stop(timeout) as stop:
        # Who mistypes a host is to hear so at once; from then on an outage is waited for.
        with open_storage(url) as opened:
            definition, counts = _enter(opened, definition, asked=asked)
        with open_storage(url, patience=Patience(OUTAGE_SECONDS, stop)) as opened:
            search, _ = load(opened, definition.name)
            train: Callable[[SearchProgress], bool]
            if data is not None:
                given = (opened, search, definition, data, options)
                train = partial(run_worker, *given, stopping=stop)
            elif crew is not None:
                command = WorkerCommand(definition.name, population, lease)
                train = partial(run_crew, crew, command, url, opened, search, stop)
            again = same_storage(url)
            _run(opened, search._study_id, definition, counts.budget, train, stop, again)


def submit(
    study: StudyName,
    trials: Budget = None,
    storage: StorageUrl = None,
    name: StudyTitle = None,
    overrides: Overrides = None,
    seed: Seed = None,
    output: TextOutputFormat = TextFormat.TABLE,
) -> None:
    """Put a study into the database for workers to train; nothing is trained here.

    Creates the study or resumes it, and sets its budget. Workers are started with hpo worker,
    here or on any machine that reaches the database.
    """
    from hpo.cli import rendering
    from hpo.search.storage import open_storage
    from hpo.training.task import check

    url = storage_url(storage)
    changes = [*(overrides or []), *shorthands(trials, seed)]
    definition = find_definition(study, url, changes, name)
    check(definition)
    with open_storage(url) as opened:
        _, counts = _enter(opened, definition, asked=asks_for_trials(changes))
    if output is TextFormat.JSON:
        row = {"study": definition.name, "budget": counts.budget, "finished": counts.done}
        rendering.write_json(row)
        return
    typer.echo(f"{definition.name}: {counts.done} of {counts.budget} trials finished")
    if counts.done < counts.budget:
        command = f"hpo worker{same_storage(url)}"
        typer.echo(f"start workers with {command}, on any machine that reaches the database")


def _check_here(definition: StudyDefinition) -> None:
    """Check what the workers need, and fetch it once, so that they do not all at once."""
    from hpo.data import describe, load_train
    from hpo.data.rows import kind_of
    from hpo.training.task import check

    check(definition)
    name = definition.dataset.name
    about = describe(name)
    if len(load_train(name, kind_of(about))) != about.n_train:
        check(definition)  # somebody's own archive, whose rows nobody could count before


def _enter(
    opened: Storage, definition: StudyDefinition, *, asked: bool
) -> tuple[StudyDefinition, Counts]:
    """Create or resume a study and set its budget.

    Args:
        asked: whether the command line says how many trials there are to be; if it does not, a
            larger budget, which an earlier command asked for, stays.

    Returns:
        The definition with the trials that the study is to have, and how its budget stands.
    """
    from hpo.search.halt import lift
    from hpo.search.study import create_or_resume, load

    search = create_or_resume(opened, definition, definition.name, asked=asked)
    if not asked:
        given, definition = definition, load(opened, definition.name)[1]
        if definition.search.trials > given.search.trials:
            _log.info(
                "%d trials were asked for before, not the file's %d; --trials makes it fewer",
                *(definition.search.trials, given.search.trials),
            )
    with opened.guard():
        lift(search)
        opened.ledger.set_budget(search._study_id, definition.search.trials)
        return definition, opened.ledger.counts(search._study_id)


def _show_plan(
    definition: StudyDefinition, data: Split, options: WorkerOptions, crew: Crew | None
) -> None:
    from hpo import space
    from hpo.cli.supervising import describe
    from hpo.cli.variations import show_plan
    from hpo.search.worker import room_for
    from hpo.training.devices import device_name

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
        f"{len(data.validation[0])} validation rows"
        + (f" in each of {len(data.folds)} folds" if len(data.folds) > 1 else "")
    )
    typer.echo(
        f"device: {device_name(device)}, {precision}, "
        f"up to {room_for(definition, device, options).members} trials side by side"
    )
    if crew is not None:
        typer.echo(f"workers: {describe(crew.slots(search.trials))}")
    if definition.variations:
        show_plan(definition)
        return
    typer.echo(f"space: {'continuous' if size is None else f'{size} combinations'}")
    for key, leaf in space.describe(definition).items():
        typer.echo(f"  {key}: {leaf}")


def _run(
    opened: Storage,
    study_id: int,
    definition: StudyDefinition,
    budget: int,
    train: Callable[[SearchProgress], bool],
    stop: Stop,
    again: str,
) -> None:
    """Train, with progress on stderr, and say on stdout what came of it.

    Args:
        budget: how many finished trials the study is to have now.
        train: returns whether the budget is met.
        again: what a command has to be told of the database, with a space in front.
    """
    from hpo.cli.logs import stderr_console
    from hpo.cli.progress import SearchProgress
    from hpo.definition.metrics import DIRECTIONS
    from hpo.errors import StorageError
    from hpo.search.status import read_status

    name, wanted = definition.name, definition.search.trials
    before = read_status(opened, name)
    if before.finished >= budget:
        asked = f"{before.finished} trials have finished and {wanted} were asked for"
        typer.echo(f"{name}: {asked}; nothing to do")
        _show_result(opened, definition, before.best)
        return
    if budget > wanted:
        _log.info("%d trials have begun already; all of them are finished", budget)
    start = time.monotonic()

    def finished() -> int:
        return opened.ledger.counts(study_id).done

    progress = SearchProgress(
        stderr_console(),
        finished,
        budget,
        before.best.value if before.best else None,
        maximize=DIRECTIONS[definition.search.metric] == "maximize",
    )
    with progress:
        met = train(progress)
    with contextlib.suppress(*([StorageError] if stop.signal_number else [])):
        after = read_status(opened, name)
        typer.echo(
            f"{name}: {after.finished} of {after.budget} trials finished ({after.complete} "
            f"complete, {after.pruned} pruned, {after.failed} failed), "
            f"{_duration(time.monotonic() - start)}"
        )
        _show_result(opened, definition, after.best)
        if met and not definition.variations:
            _say_what_is_next(definition, after, again)
    _say_how_to_go_on(stop, met=met)


def _say_what_is_next(definition: StudyDefinition, status: StudyStatus, again: str) -> None:
    from hpo.results.finalists import more_trials

    name = definition.name
    if status.best is not None:
        typer.echo(f"next: hpo retrain-best --study {name}{again}")
    elif (more := more_trials(definition, status.finished)) is not None:
        typer.echo(f"next: hpo optimize --study {name} --trials {more}{again}")
    else:
        failed = "every cell of the grid failed or was pruned"
        typer.echo(f"next: {failed}, so search other ranges under another --name")


def _say_how_to_go_on(stop: Stop, *, met: bool) -> None:
    from hpo.errors import Interrupted

    if met:
        return
    if stop.signal_number is not None:
        message = "stopped; the trials in training were handed back, the same command goes on"
        raise Interrupted(message, stop.signal_number)
    typer.echo("the time is up; the same command goes on")


def _show_result(opened: Storage, definition: StudyDefinition, best: TrialRecord | None) -> None:
    """The best trial; of a study with variations, all of them."""
    if not definition.variations:
        _show_best(best, definition)
        return
    from hpo.cli.variations import show_runs
    from hpo.search.status import read_trials

    show_runs(definition, read_trials(opened, definition.name)[0])


def _show_best(best: TrialRecord | None, definition: StudyDefinition) -> None:
    from hpo.cli import rendering

    if best is None:
        typer.echo("no trial has trained to its end yet")
        return
    value = rendering.metric(best.value or 0.0)
    typer.echo(
        f"best: trial {best.number}, validation {definition.search.metric} {value} "
        f"in epoch {best.outcome.get('best_epoch')}"
    )
    rendering.write_params(best.params)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
