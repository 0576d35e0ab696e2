"""Checkpoints: snapshots of members on disk, whole or not at all.

    KEY/EPOCH-BATCH-SUM.safetensors   the tensors
    KEY/EPOCH-BATCH-SUM.json          the facts, whose they are, and the tensors' size and sha256

The JSON is written last, so tensors without one do not count. What is still being written is a
draft, locked by its writer: once the lock is free the writer is dead, in whatever container it
lived.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from hpo.errors import FileError
from hpo.files import free_bytes, sync_folder
from hpo.training.snapshot import Snapshot

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)

_FORMAT = 1
_KEPT = 2
_ATTEMPTS = 5
_NAME = re.compile(r"(?P<epoch>[0-9]{6,})-(?P<batch>[0-9]{6,})-[0-9a-f]{8}")
_DRAFT, _REMOVED = ".draft-", ".removed-"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checkpoints:
    """The checkpoints of members, told apart by their keys.

    Several processes may share the folder. Nothing that is read is believed before its sums have
    been checked, and nothing is ever unpickled.

    Args:
        folder: may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, key: int, snapshot: Snapshot, identity: dict[str, Any]) -> None:
        """Write a checkpoint, durably; of those up to this place, the newest two stay.

        One of the same place is replaced.

        Args:
            identity: JSON-ready; what must be the same for a member to go on from it.

        Raises:
            FileError: the disk refuses; the checkpoints from before are as they were.
        """
        tensors = save(snapshot.tensors)
        digest = hashlib.sha256(tensors).hexdigest()
        about = {
            "format": _FORMAT,
            "identity": identity,
            "facts": snapshot.facts,
            "tensors": {"size": len(tensors), "sha256": digest},
        }
        text = json.dumps({**about, "sha256": _sum(about)})
        name = f"{snapshot.epoch:06d}-{snapshot.batch:06d}-{digest[:8]}"
        path = self._home(key) / f"{name}.json"
        try:
            _write_pair(path, tensors, text.encode())
            _thin(path)
        except OSError as error:
            raise _refused(path, error) from error

    def load(self, key: int, identity: dict[str, Any]) -> Snapshot | None:
        """The newest checkpoint that is whole and of this identity; None if there is none.

        A damaged one is named in a warning, and the one before it counts.

        Raises:
            FileError: the folder cannot be read.
        """
        home = self._home(key)
        found = _listed(home)
        for _ in range(_ATTEMPTS):
            for path in found:
                try:
                    about = _read_about(path)
                    if about is not None and _text(about["identity"]) == _text(identity):
                        return _read_snapshot(path, about)
                except (OSError, ValueError, RecursionError) as error:
                    if path.exists():
                        _log.warning("%s: damaged (%s); not used", path, error)
            before, found = found, _listed(home)
            if found == before:
                break
            # Another process has saved newer ones and removed these meanwhile.
        return None

    def remove(self, key: int) -> None:
        """Remove all checkpoints of a key, if there are any.

        Raises:
            FileError: the disk refuses.
        """
        home = self._home(key)
        # Moved away first, so nobody sees a part of it or writes to it while it goes.
        aside = self.folder / f"{_REMOVED}{key}-{secrets.token_hex(4)}"
        try:
            home.rename(aside)
            shutil.rmtree(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(home, error) from error

    def keys(self) -> list[int]:
        """Who has checkpoints.

        Raises:
            FileError: the folder cannot be read.
        """
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _refused(self.folder, error) from error
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def sweep(self) -> None:
        """Remove what dead processes have left half written or half removed."""
        with contextlib.suppress(OSError):
            for draft in self.folder.glob(f"*/{_DRAFT}*"):
                _remove_abandoned(draft)
            for aside in self.folder.glob(f"{_REMOVED}*"):
                shutil.rmtree(aside, ignore_errors=True)

    def _home(self, key: int) -> Path:
        return self.folder / f"{key:d}"


# Reading


def _listed(home: Path) -> list[Path]:
    try:
        return _newest_first(home)
    except OSError as error:
        raise _refused(home, error) from error


def _newest_first(home: Path) -> list[Path]:
    """The JSON of each checkpoint in a folder, which may be missing."""
    found = []
    for path in _files(home, ".json"):
        with contextlib.suppress(FileNotFoundError):
            found.append((_place(path), path.stat().st_mtime_ns, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def _files(home: Path, suffix: str) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for path in home.iterdir():
            if path.suffix == suffix and _NAME.fullmatch(path.stem):
                yield path


def _place(path: Path) -> tuple[int, int]:
    """Epoch and batch, as the name says them."""
    match = _NAME.fullmatch(path.stem)
    assert match is not None
    return int(match["epoch"]), int(match["batch"])


def _read_about(path: Path) -> dict[str, Any] | None:
    """What a checkpoint's JSON says; None if it is of another format.

    Raises:
        ValueError: it is damaged.
    """
    about = json.loads(path.read_bytes())
    if not isinstance(about, dict) or "format" not in about:
        raise ValueError("it has no format")
    if about["format"] != _FORMAT:
        return None
    claimed = about.pop("sha256", None)
    if claimed != _sum(about) or about.keys() != {"format", "identity", "facts", "tensors"}:
        raise ValueError("its sum does not match")
    return about


def _read_snapshot(path: Path, about: dict[str, Any]) -> Snapshot:
    tensors = path.with_suffix(".safetensors")
    if not _has_size(tensors, about):
        raise ValueError(f"{tensors.name} has another size")
    data = tensors.read_bytes()
    if hashlib.sha256(data).hexdigest() != about["tensors"].get("sha256"):
        raise ValueError(f"{tensors.name} has another sum")
    try:
        snapshot = Snapshot(about["facts"], load(data))
    except (AssertionError, KeyError, SafetensorError, TypeError) as error:
        raise ValueError(f"{tensors.name} holds no tensors: {error}") from error
    snapshot.check()
    if (snapshot.epoch, snapshot.batch) != _place(path):
        raise ValueError("its name says another place")
    return snapshot


def _has_size(tensors: Path, about: dict[str, Any]) -> bool:
    claimed = about["tensors"]
    return isinstance(claimed, dict) and claimed.get("size") == tensors.stat().st_size


def _text(data: object) -> str:
    return json.dumps(data, sort_keys=True)


def _sum(data: object) -> str:
    return hashlib.sha256(_text(data).encode()).hexdigest()


# Writing


def _write_pair(path: Path, tensors: bytes, text: bytes) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(path.parent.parent)
            _write(path.with_suffix(".safetensors"), tensors)
            _write(path, text)
            sync_folder(path.parent)
        except FileNotFoundError:  # another process has removed the folder or swept the draft
            if attempt == _ATTEMPTS:
                raise
        else:
            return


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    draft = path.with_name(f"{_DRAFT}{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: drafts stay there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _thin(saved: Path) -> None:
    """Remove what lies before the newest two that look whole, of those up to the saved one.

    What lies beyond it is left: another process may be further on. All processes agree on which
    of two is newer, so none removes what another one counts on.
    """
    kept: list[tuple[int, int]] = []
    for path in _newest_first(saved.parent):
        place = _place(path)
        if place > _place(saved):
            continue
        if len(kept) < _KEPT and place not in kept and (path == saved or _looks_whole(path)):
            kept.append(place)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".safetensors").unlink(missing_ok=True)
    # Tensors whose writer died before it came to the JSON.
    for path in _files(saved.parent, ".safetensors"):
        if _place(path) < min(kept, default=(0, 0)) and not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def _looks_whole(path: Path) -> bool:
    """As far as that can be told without reading the tensors."""
    try:
        about = _read_about(path)
        return about is not None and _has_size(path.with_suffix(".safetensors"), about)
    except (OSError, ValueError, RecursionError):
        return False


def _remove_abandoned(draft: Path) -> None:
    """Remove a draft if nobody holds its lock any more."""
    with contextlib.suppress(OSError):  # it is held, or gone
        descriptor = os.open(draft, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()
        finally:
            os.close(descriptor)


def _refused(path: Path, error: OSError) -> FileError:
    reason = error.strerror or str(error)
    remedy = "make room" if error.errno in _NO_ROOM else "make it writable"
    return FileError(
        f"{path}: {reason}, {free_bytes(path)}; {remedy}, then run the same command again"
    )
