"""The networks of a retrain on the disk, so that one of them at a time is in memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from safetensors.torch import load, save
from torch import Tensor

from hpo.files import disk_errors

__all__ = ["REMEDY", "SavedStates"]

REMEDY = "make room, or name another folder with --output"


class SavedStates:
    """The tensors of networks, in the order in which they were trained.

    They lie beside the artifact that they are for, in a file without a name: whatever ends the
    process, nothing of them is left behind. Iterating reads them again, one after the other, into
    memory that is no device's.

    Args:
        artifact: the folder that they are for; it need not exist.

    Raises:
        FileError: nothing can be written there.
    """

    def __init__(self, artifact: Path) -> None:
        self._artifact = artifact
        with disk_errors(artifact, REMEDY):
            artifact.parent.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=artifact.parent)  # noqa: SIM115
        self._ends: list[int] = []

    def __enter__(self) -> SavedStates:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It writes what a refused write has left in its buffer, which nobody needs any more.
        with contextlib.suppress(OSError):
            self._file.close()

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for content in self.encoded():
            yield load(content)

    def append(self, state: Mapping[str, Tensor]) -> None:
        """Put the next network down.

        Raises:
            FileError: the disk refuses.
        """
        content = save({name: tensor.cpu().contiguous() for name, tensor in state.items()})
        with disk_errors(self._artifact, REMEDY):
            self._file.seek(self._ends[-1] if self._ends else 0)
            self._file.write(content)
            self._file.flush()
        self._ends.append(self._file.tell())

    def encoded(self) -> Iterator[bytes]:
        """Each network as the content of a safetensors file.

        Raises:
            FileError: the disk refuses.
        """
        start = 0
        for end in self._ends:
            with disk_errors(self._artifact, REMEDY):
                self._file.seek(start)
                content = self._file.read(end - start)
            yield content
            start = end
