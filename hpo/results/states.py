"""The networks of a retrain on the disk, so that one of them at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from hpo.files import disk_errors

__all__ = ["REMEDY", "SavedStates"]

REMEDY = "make room, or name another folder with --output"


class SavedStates:
    """The tensors of networks, in the order in which they were trained: `0.safetensors`, ...

    Iterating reads them again, one after the other, into memory that is no device's.

    Args:
        folder: where they lie, which is there and empty.
        artifact: the folder that they are for, which a message names.
    """

    def __init__(self, folder: Path, artifact: Path) -> None:
        self._folder = folder
        self._artifact = artifact
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for number in range(self._count):
            with disk_errors(self._artifact, REMEDY):
                content = self.path(number).read_bytes()
            yield load(content)

    def path(self, number: int) -> Path:
        """The file of a network."""
        return self._folder / f"{number}.safetensors"

    def append(self, state: Mapping[str, Tensor]) -> None:
        """Put the next network down.

        Raises:
            FileError: the disk refuses.
        """
        content = save({name: tensor.cpu().contiguous() for name, tensor in state.items()})
        with disk_errors(self._artifact, REMEDY):
            self.path(self._count).write_bytes(content)
        self._count += 1
