"""The data folder, and how files come to lie in it: whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hpo import files, folders
from hpo.errors import FileError
from hpo.holder import holder_name, is_gone, is_here

_REMEDY = "make room there, or point HPO_DATA at a folder that can be written"
_WORK_PREFIX = ".fetch-"
_OWNER = "owner"
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
    try:
        # What comes next tells of a full disk; without a name the folder's age will do.
        with contextlib.suppress(OSError):
            (work / _OWNER).write_text(holder_name())
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


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


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{_WORK_PREFIX}*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(work: Path) -> bool:
    """Whether its owner has died; of one on another machine only the folder's age tells."""
    try:
        owner = (work / _OWNER).read_text(errors="replace")
    except OSError:
        owner = ""
    return is_gone(owner) if is_here(owner) else _is_old(work)


def _is_old(work: Path) -> bool:
    try:
        return work.stat().st_mtime < time.time() - _ABANDONED_SECONDS
    except FileNotFoundError:  # its owner finished just now
        return False
