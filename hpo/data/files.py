"""Raw files with a known content: nothing else is ever read or kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from hpo.data.folder import disk_errors, publish, work_folder
from hpo.errors import DataError, FileError

_CHUNK = 1 << 18  # bytes in memory at a time


@dataclass(frozen=True)
class RawFile:
    """A file as it must be, uncompressed.

    Attributes:
        name: its name in the dataset's folder.
        size: in bytes.
        sha256: of the content, 64 hexadecimal digits.
    """

    name: str
    size: int
    sha256: str


class Readable(Protocol):
    """Anything with `read(size)` that gives bytes."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


def find(folder: Path, raw: RawFile) -> Path | None:
    """Return where `raw` lies in `folder`, as it is or with `.gz`; None where it does not."""
    plain = folder / raw.name
    if os.path.lexists(plain):
        return plain
    packed = folder / f"{raw.name}.gz"
    return packed if os.path.lexists(packed) else None


def open_checked(folder: Path, raw: RawFile) -> io.BufferedReader:
    """Open `raw` in `folder` once its whole content has been checked; unpack its `.gz` first.

    The check and the later reading go through the same open file, so nobody can swap the file in
    between. Reading is in small pieces: the check costs time, not memory.

    Args:
        folder: the dataset's own, named like the dataset.
        raw: what must lie there.

    Raises:
        DataError: the file is missing, damaged or foreign; it is left as it is.
        FileError: it cannot be read, or its `.gz` cannot be unpacked beside it.
    """
    path = find(folder, raw)
    if path is None:
        raise DataError(f"{folder / raw.name}: missing; run `hpo data fetch {folder.name}`")
    if path.name != raw.name:
        _unpack(path, raw)
    return _open_plain(folder / raw.name, raw)


def write_checked(source: Readable, raw: RawFile, target: Path) -> None:
    """Write a source's bytes to the new file `target`, durably, if they are those of `raw`.

    Raises:
        DataError: they are not; `target` is gone again.
        FileError: the disk refuses; `target` is gone again.
        Exception: whatever `source.read` raises, as it is.
    """
    with disk_errors(target):
        out = target.open("xb", buffering=0)
    try:
        with out:
            size, digest = 0, hashlib.sha256()
            while size <= raw.size and (chunk := source.read(_CHUNK)):
                size += len(chunk)
                digest.update(chunk)
                with disk_errors(target):
                    _write_all(out, chunk)
            with disk_errors(target):
                os.fsync(out.fileno())
        if size > raw.size:  # there may be no end to it: its sum is not known
            raise DataError(f"{raw.name}: expected {raw.size} bytes, found more")
        if (size, digest.hexdigest()) != (raw.size, raw.sha256):
            raise DataError(f"{raw.name}: {_difference(raw, size, digest.hexdigest())}")
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _open_plain(path: Path, raw: RawFile) -> io.BufferedReader:
    try:
        # Not to hang on a pipe that lies there instead of a file.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}; make it readable or remove it") from error
    try:
        _check_open(file, path, raw)
    except BaseException:
        file.close()
        raise
    return file


def _check_open(file: io.BufferedReader, path: Path, raw: RawFile) -> None:
    remedy = f"remove it and run `hpo data fetch {path.parent.name}`"
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: not a regular file; {remedy}")
    if found.st_size > raw.size:  # may be of any size: not read at all
        raise DataError(
            f"{path}: damaged or foreign: expected {raw.size} bytes with sha256 {raw.sha256}, "
            f"found {found.st_size} bytes; {remedy}"
        )
    try:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror} while reading; check the disk") from error
    if actual != raw.sha256:
        difference = _difference(raw, found.st_size, actual)
        raise DataError(f"{path}: damaged or foreign: {difference}; {remedy}")
    file.seek(0)


def _unpack(packed: Path, raw: RawFile) -> None:
    folder = packed.parent
    remedy = f"remove it and run `hpo data fetch {folder.name}`"
    if not packed.is_file():
        raise DataError(f"{packed}: not a regular file; {remedy}")
    try:
        compressed = gzip.open(packed, "rb")  # noqa: SIM115 - closed below, by the `with`
    except OSError as error:
        raise FileError(f"{packed}: {error.strerror}; make it readable or remove it") from error
    with compressed, work_folder(folder) as work:
        try:
            write_checked(compressed, raw, work / raw.name)
        except DataError as error:
            raise DataError(f"{packed}: damaged or foreign: {error}; {remedy}") from error
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{packed}: not a whole gzip file: {error}; {remedy}") from error
        publish(work, folder, raw.name)


def _difference(raw: RawFile, size: int, sha256: str) -> str:
    return (
        f"expected {raw.size} bytes with sha256 {raw.sha256}, "
        f"found {size} bytes with sha256 {sha256}"
    )


def _write_all(out: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:  # an unbuffered write may take only a part
        view = view[out.write(view) :]
