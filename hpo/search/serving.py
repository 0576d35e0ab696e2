"""Which study a worker serves next, where it has none of its own.

A worker that joins a database takes the studies in the order in which they came. It serves the
first that has something to claim, and moves on when the rest of it is in the hands of others; so
workers gather at the oldest study, and none stands idle while any study has work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.storages._rdb import models

from hpo.data import describe, fetch, load_train
from hpo.data.rows import kind_of
from hpo.definition import StudyDefinition
from hpo.errors import DataError, FileError, TrainingError, UsageError
from hpo.search import tables
from hpo.search.storage import Storage
from hpo.search.study import check_exists, exists, load
from hpo.search.telling import Watcher
from hpo.search.waiting import stopped_within
from hpo.search.worker import WorkerOptions, run_worker
from hpo.training.mishaps import DeviceLost
from hpo.training.task import Split, prepare

__all__ = ["OpenStudy", "WatcherOf", "open_studies", "serve_all", "serve_one"]

WatcherOf = Callable[[str, StudyDefinition], Watcher]
"""From a study that is served now to whoever shows how it goes."""

_log = logging.getLogger(__name__)
_LONGEST_WAIT = 2.0
_SHORTEST_WAIT = 0.05
_REFUSED_SECONDS = 60.0
_NOT_HERE = (DataError, TrainingError, UsageError)
_studies = models.StudyModel


@dataclass(frozen=True)
class OpenStudy:
    """A study whose budget is not met."""

    id: int
    name: str


def open_studies(storage: Storage) -> list[OpenStudy]:
    """The studies of hpo's that have slots not done, oldest first."""
    query = (
        sa.select(_studies.study_id, _studies.study_name)
        .where(
            _studies.study_id.in_(sa.select(tables.slots.c.study_id).where(~tables.slots.c.done))
        )
        .order_by(_studies.study_id)
    )
    return [OpenStudy(*row) for row in storage.rows(query)]


def serve_one(
    storage: Storage,
    name: str,
    options: WorkerOptions,
    watch: WatcherOf,
    stopping: Callable[[], bool],
) -> bool:
    """Train trials of one study until its budget is met.

    Returns:
        Whether it is met; False means that `stopping` said so.

    Raises:
        UsageError: there is no such study, or no longer; or this machine cannot train it.
        DataError: its data cannot be had here.
        StorageError: the database refuses.
        FileError: the disk of the database, of the state folder or of the data does.
    """
    study, definition = load(storage, name)
    data = _prepare(definition, stopping)
    if data is None:
        return False
    served = OpenStudy(study._study_id, name)
    visit = _Visit(storage, served, stopping, stays=True)
    visit.watcher = watch(name, definition)
    met = run_worker(storage, study, definition, data, options, visit, visit.is_over)
    if met or not stopping():
        check_exists(storage, served.id, name)
    return met


def serve_all(
    opening: Callable[[], Storage],
    options: WorkerOptions,
    watch: WatcherOf,
    stopping: Callable[[], bool],
    *,
    idle: float | None = None,
) -> None:
    """Train trials of any study until `stopping` says so.

    A study that cannot be trained here (its data is not to be had or has no room, its device is
    not there, or it has been given up) is reported once and left to others. One that is deleted is
    let go.

    Args:
        opening: opens the database; asked again whenever a study was deleted.
        idle: return after so many seconds without work; None for never.

    Raises:
        StorageError, FileError: the database refuses, or the state folder does.
    """
    server = _Server(opening, options, watch, stopping)
    try:
        server.run(idle)
    finally:
        server.close()


class _Server:
    """A worker's round through the studies."""

    def __init__(
        self,
        opening: Callable[[], Storage],
        options: WorkerOptions,
        watch: WatcherOf,
        stopping: Callable[[], bool],
    ) -> None:
        self._opening = opening
        self._storage = opening()
        self._options = options
        self._watch = watch
        self._stopping = stopping
        self._refused: dict[int, _Refusal] = {}
        self._data: tuple[str, Split] | None = None

    def close(self) -> None:
        self._storage.close()

    def run(self, idle: float | None) -> None:
        busy, pause, told = time.monotonic(), _SHORTEST_WAIT, False
        while not self._stopping():
            if self._serve_next():
                busy, pause, told = time.monotonic(), _SHORTEST_WAIT, False
                continue
            if not told:
                _log.info("nothing to train; waiting for work")
                told = True
            if idle is not None and time.monotonic() - busy >= idle:
                return
            stopped_within(pause, self._stopping)
            pause = min(2 * pause, _LONGEST_WAIT)

    def _serve_next(self) -> bool:
        """Serve the first study that has work for this worker; returns whether it trained any."""
        for study in open_studies(self._storage):
            if self._stopping():
                break
            refusal = self._refused.get(study.id)
            if refusal is not None and time.monotonic() < refusal.until:
                continue
            if self._has_work(study) and self._serve(study):
                return True
        return False

    def _has_work(self, study: OpenStudy) -> bool:
        with self._storage.guard():
            return self._storage.ledger.counts(study.id).free > 0

    def _serve(self, study: OpenStudy) -> bool:
        visit = _Visit(self._storage, study, self._stopping, stays=False)
        try:
            self._visit(study, visit)
            if visit.is_gone:
                raise KeyError(study.name)
        except Exception as error:
            if not _exists(self._storage, study):
                _log.warning("study `%s` was deleted while it was served", study.name)
                self._open_anew()
            elif isinstance(error, KeyError):
                # Optuna's word for a trial that is no more: the study is another one of its name.
                self._refuse(study, "its trials have vanished")
                self._open_anew()
            elif isinstance(error, _DataFolderError):
                self._refuse(study, str(error), kind="data folder")
            elif isinstance(error, _NOT_HERE) and not isinstance(error, DeviceLost):
                self._refuse(study, str(error))
            else:
                raise
        else:
            self._refused.pop(study.id, None)
        return visit.worked

    def _open_anew(self) -> None:
        """Forget what Optuna's cache knows: SQLite uses the numbers of what was deleted again."""
        self._storage.close()
        self._storage = self._opening()

    def _visit(self, study: OpenStudy, visit: _Visit) -> None:
        found, definition = load(self._storage, study.name)
        data = self._prepare(definition)
        if data is None:
            return
        visit.watcher = self._watch(study.name, definition)
        run_worker(self._storage, found, definition, data, self._options, visit, visit.is_over)

    def _prepare(self, definition: StudyDefinition) -> Split | None:
        """The study's data; that of the last study is kept, the one before it is let go."""
        text = definition.to_json()
        if self._data is None or self._data[0] != text:
            self._data = None
            try:
                data = _prepare(definition, self._stopping)
            except FileError as error:
                raise _DataFolderError(str(error)) from error
            if data is None:
                return None
            self._data = (text, data)
        return self._data[1]

    def _refuse(self, study: OpenStudy, reason: str, kind: str | None = None) -> None:
        """Leave a study to others for a while.

        Args:
            kind: of reasons that are told once, whatever their words; None for this one alone.
        """
        kind = kind or reason
        known = self._refused.get(study.id)
        if known is None or known.kind != kind:
            _log.warning("study `%s` is left to other workers: %s", study.name, reason)
        self._refused[study.id] = _Refusal(kind, time.monotonic() + _REFUSED_SECONDS)


class _DataFolderError(DataError):
    """A FileError of one study's data, told once: the free bytes in its text differ each time.

    That of the database or of the state folder ends the worker: every study needs those.
    """


@dataclass(frozen=True)
class _Refusal:
    """Why a study cannot be trained here, and when to look again (`time.monotonic`)."""

    kind: str
    until: float


class _Visit:
    """A worker's stay at one study.

    It is over when others hold all that is left of it, unless the worker stays until that is
    done; and when the study is deleted. On SQLite the next study may have the number of the
    deleted one, so that nothing fails: there it is looked for now and then.

    Attributes:
        worked: whether any trial trained or ended.
        is_gone: whether the study was found deleted.
    """

    def __init__(
        self, storage: Storage, study: OpenStudy, stopping: Callable[[], bool], *, stays: bool
    ) -> None:
        self.worked = False
        self.is_gone = False
        self.watcher: Watcher | None = None
        self._storage = storage
        self._study = study
        self._stopping = stopping
        self._stays = stays
        self._waits = False
        self._looked = time.monotonic()

    def is_over(self) -> bool:
        now = time.monotonic()
        if self._storage.address.path is not None and now - self._looked > _LONGEST_WAIT:
            self._looked = now
            self.is_gone = not _exists(self._storage, self._study)
        return self.is_gone or self._waits or self._stopping()

    def epoch(self, running: int, value: float) -> None:
        self.worked = True
        if self.watcher is not None:
            self.watcher.epoch(running, value)

    def finished(self, number: int, state: str, value: float | None) -> None:
        self.worked = True
        if self.watcher is not None:
            self.watcher.finished(number, state, value)

    def waiting(self) -> None:
        self._waits = not self._stays
        if self.watcher is not None:
            self.watcher.waiting()


def _exists(storage: Storage, study: OpenStudy) -> bool:
    return exists(storage, study.id, study.name)


def _prepare(definition: StudyDefinition, stopping: Callable[[], bool]) -> Split | None:
    """The study's data; None if there was a stop while it was fetched.

    Fetching may take minutes, so it has a thread, and is left there when it is time to go.
    """
    problems: list[Exception] = []

    def get() -> None:
        try:
            _fetch(definition)
        except Exception as error:  # noqa: BLE001 (it is raised below)
            problems.append(error)

    fetching = threading.Thread(target=get, name="hpo-fetch", daemon=True)
    fetching.start()
    while fetching.is_alive():
        if stopping():
            return None
        fetching.join(_SHORTEST_WAIT)
    if problems:
        raise problems[0]
    return prepare(definition)


def _fetch(definition: StudyDefinition) -> None:
    """Bring and check what the study reads: no test rows, unless each run is scored on them."""
    name = definition.dataset.name
    if definition.looks_at_test:
        fetch(name)
    else:
        load_train(name, kind_of(describe(name)))
