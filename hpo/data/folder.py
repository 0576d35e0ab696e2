"""The data folder, and how files come to lie in it: whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hpo import files, folders
from hpo.errors import FileError

_REMEDY = "make room there, or point HPO_DATA at a folder that can be written"
_WORK_PREFIX = ".fetch-"
_LOCK = "lock"
_ABANDONED_SECONDS = 6 * 3600.0  # far longer than all time limits of a fetch together


def data_folder() -> Path:
    """Return the data folder: `HPO_DATA`, or `hpo` in the user's cache. It may not exist yet.

    It holds one subfolder a dataset.

    Raises:
        FileError: `HPO_DATA` names the home of nobody.
    """
    chosen = folders.chosen_folder("HPO_DATA")
    if chosen is not None:
        return chosen
    from platformdirs import user_cache_path

    return user_cache_path("hpo", appauthor=False).absolute()


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Open a folder of this process alone inside `folder`, for files in the making.

    It lies in `folder` so that a finished file is moved, not copied. It is removed at the end,
    and so is what killed processes left behind.

    Raises:
        FileError: `folder` cannot be made or written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=folder))
    lock = _lock(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def publish(work: Path, folder: Path, name: str) -> None:
    """Move the finished file `name` out of `work` into `folder`, and make the move durable.

    Raises:
        FileError: the disk refuses.
    """
    with disk_errors(folder / name):
        (work / name).replace(folder / name)
        files.sync_folder(folder)


def check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: where files are to lie; it exists.
        needed: bytes, of the files and of what is beside them for a while.

    Raises:
        FileError: fewer are free.
    """
    with disk_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise FileError(
            f"{folder}: fetching needs about {needed} bytes for a while, {free} bytes are free; "
            "make room there, or point HPO_DATA at another folder"
        )


def disk_errors(path: Path) -> AbstractContextManager[None]:
    """Turn an OSError inside the block into a FileError that names `path` and the free bytes."""
    return files.disk_errors(path, _REMEDY)


def _lock(work: Path) -> int | None:
    """A descriptor that tells others, as long as it is open, that somebody works there."""
    try:
        return files.write_locked(work / _LOCK, b"")
    except OSError:  # what comes next tells of a full disk, and one without locks will do
        return None


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{_WORK_PREFIX}*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(work: Path) -> bool:
    """Whether its owner has ended: its lock is free. One without a lock is judged by its age."""
    try:
        descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return _is_old(work)
    return True


def _is_old(work: Path) -> bool:
    try:
        return work.stat().st_mtime < time.time() - _ABANDONED_SECONDS
    except FileNotFoundError:  # its owner finished just now
        return False
