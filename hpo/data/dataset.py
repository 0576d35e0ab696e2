"""What a dataset is: the protocol that the built-in ones and those of other packages follow.

A package offers a dataset of its own through the entry-point group `hpo.datasets`. The entry
point's name is the dataset's name (lower case letters, digits, `_`, `-`); it names a callable
without arguments that returns a `Dataset`:

    # pyproject.toml of the package
    [project.entry-points."hpo.datasets"]
    leaves = "leaves_for_hpo:dataset"

    # leaves_for_hpo.py
    from hpo.data import DatasetInfo, LabelledRows

    class Leaves:
        info = DatasetInfo("leaves", classes=3, shape=(16, 16), n_train=200, n_test=50,
                           origin="our greenhouse", licence="CC0")
        def missing(self, folder, part): return []
        def fetch(self, folder): pass
        def load_train(self, folder): return LabelledRows(images, labels)
        def load_test(self, folder): return LabelledRows(images, labels)

    def dataset(): return Leaves()

Four IDX files make a dataset without any code of one's own: `hpo.data.IdxDataset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hpo.data.info import DatasetInfo
from hpo.data.rows import Rows

Part = Literal["train", "test"]


@dataclass(frozen=True)
class DatasetStatus:
    """Whether a dataset's files are here; looked at from outside, none is opened.

    Attributes:
        name: the dataset.
        present: nothing is missing; that the content is right is checked when it is loaded.
        folder: where its files lie or would lie.
        bytes: what lies there now.
        missing: what is not there.
    """

    name: str
    present: bool
    folder: Path
    bytes: int
    missing: tuple[str, ...]


class Dataset(Protocol):
    """A dataset. `folder` is its own subfolder of the data folder; it may not exist yet."""

    @property
    def info(self) -> DatasetInfo:
        """What is known without opening anything."""
        ...

    def missing(self, folder: Path, part: Part, /) -> list[str]:
        """Return the files of a part that are not in `folder`; empty when nothing is needed."""
        ...

    def fetch(self, folder: Path, /) -> None:
        """Bring what is missing into `folder`; leave what is there as it is.

        Raises:
            DataError: no source has it.
            FileError: the disk refuses.
        """
        ...

    def load_train(self, folder: Path, /) -> Rows:
        """Return the training rows, without opening anything that holds test rows.

        Raises:
            DataError: something is missing, damaged or foreign.
        """
        ...

    def load_test(self, folder: Path, /) -> Rows:
        """Return the test rows.

        Raises:
            DataError: something is missing, damaged or foreign.
        """
        ...
