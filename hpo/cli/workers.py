"""`hpo worker`: a process that trains what a database holds."""

from __future__ import annotations

import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import (
    OUTAGE_SECONDS,
    SEARCH_PANEL,
    Lease,
    Population,
    StorageUrl,
    Timeout,
    storage_url,
    study_name,
)

if TYPE_CHECKING:
    from hpo.cli.signals import Stop
    from hpo.search.worker import WorkerOptions

__all__ = ["register", "worker_options"]

_log = logging.getLogger(__name__)
_Study = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME|PATH",
        help="Serve this study alone, and leave when it has all its trials.",
        show_default=False,
    ),
]
_Idle = Annotated[
    float | None,
    typer.Option(
        "--idle", metavar="SECONDS", help="Without --study: leave after so long without work."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=SEARCH_PANEL)(worker)


def worker(
    storage: StorageUrl = None,
    study: _Study = None,
    population: Population = "auto",
    idle: _Idle = None,
    timeout: Timeout = None,
    lease: Lease = 60.0,
) -> None:
    """Join a database and train trials of its studies.

    Nothing but the URL is needed: the studies are in the database. Without --study it serves
    any study that hpo submit or hpo optimize has put there, the oldest first, and waits for more
    until a signal ends it.
    """
    from hpo.cli import logs
    from hpo.cli.signals import Stop
    from hpo.engines.slots import parent

    options = worker_options(population, lease, timeout)
    _check_idle(idle, study)
    if parent() is None:
        logs.name_lines(f"{socket.gethostname()}:{os.getpid()}")
    with Stop(timeout, parent=parent()) as stop:
        _serve(storage_url(storage), study, options, idle, stop)
        if stop.signal_number is not None:
            _leave(stop.signal_number)


def worker_options(population: str, lease: float, timeout: float | None) -> WorkerOptions:
    """What the options of a command ask of each worker.

    Raises:
        UsageError: a value is out of bounds.
    """
    from hpo.engines.slots import sharers
    from hpo.errors import UsageError
    from hpo.search.worker import WorkerOptions

    if population != "auto" and not (population.isdecimal() and 1 <= int(population) <= 1024):
        raise UsageError(f"--population: {population} is neither auto nor a number of 1 to 1024")
    if not 1 <= lease <= 86_400:
        raise UsageError(f"--lease: {lease:g} seconds are out of bounds; give 1 to 86400")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout: {timeout:g} is no time; give seconds above 0")
    return WorkerOptions(None if population == "auto" else int(population), lease, sharers())


def _check_idle(idle: float | None, study: str | None) -> None:
    from hpo.errors import UsageError

    if idle is None:
        return
    if study is not None:
        message = "--idle: a worker of one study leaves when that has its trials; drop one of both"
        raise UsageError(message)
    if not idle >= 0:
        raise UsageError(f"--idle: {idle:g} is no time; give seconds from 0")


def _serve(
    url: str, study: str | None, options: WorkerOptions, idle: float | None, stop: Stop
) -> None:
    from hpo.cli.progress import WorkerLog
    from hpo.engines.slots import parent
    from hpo.search.outages import Patience
    from hpo.search.serving import serve_all, serve_one
    from hpo.search.storage import open_storage

    # Whoever looks after workers shows how the search goes.
    level = logging.INFO if parent() is None else logging.DEBUG
    watch = partial(WorkerLog, level=level)
    patience = Patience(OUTAGE_SECONDS, stop)
    if study is None:
        opening = partial(open_storage, url, patience=patience)
        serve_all(opening, options, watch, stop, idle=idle)
        return
    _check_gpu()
    name = study_name(study)
    with open_storage(url, must_exist=True, patience=patience) as opened:
        if serve_one(opened, name, options, watch, stop):
            _log.log(level, "%s: the study has all its trials", name)


def _check_gpu() -> None:
    """Refuse to train on the CPU where `--gpus` meant a GPU that torch does not find."""
    from hpo.engines.slots import parent
    from hpo.errors import UsageError
    from hpo.training.devices import visible_gpus

    meant = os.environ.get("CUDA_VISIBLE_DEVICES")
    if parent() is not None and meant and not visible_gpus():
        raise UsageError(f"--gpus: torch finds no GPU {meant}; name another, or use --gpus none")


def _leave(signal_number: int) -> None:
    from hpo.engines.slots import parent
    from hpo.errors import Interrupted

    if parent() is not None:
        raise typer.Exit(128 + signal_number)  # whoever asked for it says so
    raise Interrupted("stopped; the trials in training were handed back", signal_number)
