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
    digest = hashlib.sha256()
    size = write_summed(source, target, raw.size, digest)
    try:
        if size > raw.size:  # there may be no end to it: its sum is not known
            raise DataError(f"{raw.name}: expected {raw.size} bytes, found more")
        if (size, digest.hexdigest()) != (raw.size, raw.sha256):
            raise DataError(f"{raw.name}: {_difference(raw, size, digest.hexdigest())}")
    except DataError:
        target.unlink(missing_ok=True)
        raise


def write_summed(source: Readable, target: Path, most: int, digest: hashlib._Hash) -> int:
    """Write a source's bytes to the new file `target`, durably, and sum them up.

    Args:
        most: bytes that are expected; soon after them the source is left.
        digest: is fed with what is written.

    Returns:
        The bytes written; more than `most` where the source has more.

    Raises:
        FileError: the disk refuses; `target` is gone again.
        Exception: whatever `source.read` raises, as it is; `target` is gone again.
    """
    with disk_errors(target):
        out = target.open("xb", buffering=0)
    try:
        with out:
            size = 0
            while size <= most and (chunk := source.read(_CHUNK)):
                size += len(chunk)
                digest.update(chunk)
                with disk_errors(target):
                    _write_all(out, chunk)
            with disk_errors(target):
                os.fsync(out.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return size


def open_regular(path: Path) -> io.BufferedReader:
    """Open what lies at `path` in a dataset's own folder, if it is a file.

    Raises:
        DataError: it is something else.
        FileError: it is not there, or cannot be read.
    """
    try:
        # Not to hang on a pipe that lies there instead of a file.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}; make it readable or remove it") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path}: not a regular file; {how_to_replace(path)}")
    return file


def how_to_replace(path: Path) -> str:
    """What to do about a bad file in a dataset's folder, as the end of a sentence."""
    return f"remove it and run `hpo data fetch {path.parent.name}`"


def _open_plain(path: Path, raw: RawFile) -> io.BufferedReader:
    file = open_regular(path)
    try:
        _check_open(file, path, raw)
    except BaseException:
        file.close()
        raise
    return file


def _check_open(file: io.BufferedReader, path: Path, raw: RawFile) -> None:
    remedy = how_to_replace(path)
    found = os.fstat(file.fileno())
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
    folder, remedy = packed.parent, how_to_replace(packed)
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
