"""Finished results on this machine's disk until the database has them.

A result is written here, whole and forced to the disk, before the database hears of it, and
removed when it has. So it survives a database that is away at that moment together with a worker
that is killed while it waits. Whoever works on the same database from the same folder next tells
it (`repair`).

Each file is locked by the process that will tell it; the lock ends with the process, also by
kill -9, and in another container that shares the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpo.files import disk_errors, write_locked

__all__ = ["Result", "Spool"]

_log = logging.getLogger(__name__)
_SUFFIX = ".json"
_ABANDONED_SECONDS = 60.0
_STATES = ("COMPLETE", "PRUNED", "FAIL")
_REMEDY = "make room there, or let HPO_STATE name another folder; then run the same command again"


@dataclass(frozen=True)
class Result:
    """What became of a trial.

    Attributes:
        study: its name.
        number, trial_id: of the trial, within the study and within the database.
        slot_id: of the slot that it fills; the trial carries the same.
        holder: who trained it.
        state: as Optuna names it: `COMPLETE`, `PRUNED` or `FAIL`.
        value: of a complete trial.
        reports: the metric of every epoch by its number, from 1.
        outcome, curve: as `records.write_outcome` takes them.
    """

    study: str
    number: int
    trial_id: int
    slot_id: int
    holder: str
    state: str
    value: float | None
    reports: Mapping[int, float]
    outcome: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.state not in _STATES or (self.state == "COMPLETE") != (self.value is not None):
            raise ValueError(f"{self.state} with the value {self.value} is no result")


class Spool:
    """The results of one database in one folder.

    Args:
        folder: is made when the first result comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[int, int] = {}

    def put(self, result: Result) -> None:
        """Write a result down; when this returns, no crash and no power cut loses it.

        Raises:
            FileError: the disk refuses.
        """
        text = json.dumps(asdict(result), allow_nan=False)
        path = self._path(result.trial_id)
        with disk_errors(path, _REMEDY):
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = write_locked(path, text.encode())
        self._unlock(result.trial_id)
        self._locks[result.trial_id] = descriptor

    def drop(self, trial_id: int) -> None:
        """Forget a result that was put here: the database has it, or has no use for it.

        One that another process has put there since is left.
        """
        if trial_id in self._locks:
            self.discard(trial_id)
            self._unlock(trial_id)

    def discard(self, trial_id: int, *, older_than: float | None = None) -> None:
        """Remove a result, whoever has put it there.

        Args:
            older_than: seconds; a younger one stays. None removes it in any case.
        """
        path = self._path(trial_id)
        with contextlib.suppress(OSError):
            if older_than is None or time.time() - path.stat().st_mtime > older_than:
                path.unlink()

    def close(self) -> None:
        """Leave what was not told to whoever comes next."""
        for trial_id in list(self._locks):
            self._unlock(trial_id)

    def abandoned(self) -> Iterator[Result]:
        """Results of processes that ended before they could tell them.

        Each stays locked for its turn, so that two processes do not take the same one. A file
        that cannot be read is set aside under another name and said once. Drafts of processes that
        were killed while they wrote are removed.
        """
        # To write: on NFS an exclusive lock asks for that.
        for draft in self._folder.glob(f".*{_SUFFIX}-*"):
            _remove_if_abandoned(draft)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # told just now
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and (result := _read(path)) is not None:
                    yield result
            except OSError:  # somebody is at it, or the folder's disk has no locks
                continue
            finally:
                os.close(descriptor)

    def _path(self, trial_id: int) -> Path:
        return self._folder / f"{trial_id}{_SUFFIX}"

    def _unlock(self, trial_id: int) -> None:
        descriptor = self._locks.pop(trial_id, None)
        if descriptor is not None:
            os.close(descriptor)


def _remove_if_abandoned(draft: Path) -> None:
    """Remove a draft that nobody has locked; its writer locks it in its first moment."""
    with contextlib.suppress(OSError):
        descriptor = os.open(draft, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_SECONDS:
                draft.unlink()
        finally:
            os.close(descriptor)


def _read(path: Path) -> Result | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        reports = {int(epoch): float(value) for epoch, value in data.pop("reports").items()}
        return Result(**data, reports=reports)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        _log.warning("%s is damaged and set aside; its trial is trained again", path)
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(".damaged"))
        return None
