"""Files that are written whole or not at all, and a disk's refusal in one sentence."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import FileError

__all__ = [
    "Exclusive",
    "disk_errors",
    "free_bytes",
    "sync_folder",
    "write_locked",
    "write_whole",
]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is found whole or, after a crash or a power cut, not at all.

    What stood there before is replaced in the same moment.

    Raises:
        OSError: the disk refuses; nothing is left behind.
    """
    os.close(_write(path, content, lock=False))


def write_locked(path: Path, content: bytes) -> int:
    """As `write_whole`; nobody finds the file without its lock (`flock`, exclusive).

    Returns:
        A descriptor of the file, which holds the lock until it is closed.
    """
    return _write(path, content, lock=True)


def _write(path: Path, content: bytes, *, lock: bool) -> int:
    draft = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if lock:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    return descriptor


class Exclusive:
    """A claim that one process at a time holds, until it is released or the process ends.

    Args:
        path: of a file that is there as long as the claim is held, and after a kill.

    Attributes:
        held: whether it is; False if another process holds it.

    Raises:
        OSError: the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held = False
        while not self.held:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._descriptor)
                return
            # Its last holder may have removed the file between these two calls.
            self.held = self._is_there()
            if not self.held:
                os.close(self._descriptor)

    def release(self) -> None:
        """Let the next process have it."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)
        self.held = False

    def _is_there(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        own = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


def sync_folder(folder: Path) -> None:
    """Make what was moved into a folder, or out of it, durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn an OSError inside the block into a FileError that names `path` and the free bytes.

    Args:
        remedy: what to do, as the end of the sentence.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{path}: {reason} ({free_bytes(path)}); {remedy}") from error


def free_bytes(path: Path) -> str:
    """How much room there is, for the end of a sentence: `1,234 bytes free`."""
    for place in (path, *path.parents):
        try:
            return f"{shutil.disk_usage(place).free:,} bytes free"
        except OSError:
            continue
    return "free bytes unknown"
