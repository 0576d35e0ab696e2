"""A dataset of four IDX files, in the form that MNIST gave to many others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo.data.dataset import Part
from hpo.data.files import RawFile, find, open_checked
from hpo.data.folder import check_room, publish, work_folder
from hpo.data.idx import map_idx
from hpo.data.info import DatasetInfo
from hpo.data.rows import LabelledRows
from hpo.data.sources import Source, SourceError
from hpo.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdxDataset:
    """A dataset whose rows lie in IDX files with known SHA-256 sums.

    Attributes:
        info: the description.
        train: the images' file and the labels' file of the training part.
        test: the same of the test part.
        sources: where to get the files, tried in order.
    """

    info: DatasetInfo
    train: tuple[RawFile, RawFile]
    test: tuple[RawFile, RawFile]
    sources: tuple[Source, ...] = ()

    def missing(self, folder: Path, part: Part, /) -> list[str]:
        """Return the part's files that lie in `folder` neither as they are nor with `.gz`."""
        files = self.test if part == "test" else self.train
        return [raw.name for raw in files if find(folder, raw) is None]

    def fetch(self, folder: Path, /) -> None:
        """Get what is missing in `folder` from the first source that has it.

        What is there is left as it is, and unread: it is checked when it is loaded.

        Raises:
            DataError: no source has what is missing.
            FileError: the disk refuses.
        """
        wanted = [raw for raw in (*self.train, *self.test) if find(folder, raw) is None]
        if wanted:
            self._fetch(wanted, folder)

    def load_train(self, folder: Path, /) -> LabelledRows:
        """Map the training rows; see `Dataset`."""
        return _load(folder, self.train)

    def load_test(self, folder: Path, /) -> LabelledRows:
        """Map the test rows; see `Dataset`."""
        return _load(folder, self.test)

    def _fetch(self, wanted: Sequence[RawFile], folder: Path) -> None:
        name = self.info.name
        listed = ", ".join(raw.name for raw in wanted)
        tried = [f"the data folder (no {listed})"]
        with work_folder(folder) as work:
            # A package beside its content needs about twice as much.
            check_room(folder, 2 * sum(raw.size for raw in wanted))
            for source in self.sources:
                _log.info("%s: trying the %s", name, source.label)
                try:
                    source.deliver([raw for raw in wanted if not (work / raw.name).exists()], work)
                except (SourceError, DataError) as error:
                    _log.info("%s: the %s failed: %s", name, source.label, error)
                    tried.append(f"the {source.label} ({error})")
                    continue
                for raw in wanted:
                    publish(work, folder, raw.name)
                _log.info("%s: fetched into %s", name, folder)
                return
        raise DataError(
            f"{name}: no source has it; tried {'; '.join(tried)}; "
            f"put {listed} (as they are, or with .gz) into {folder} and run the command again"
        )


def _load(folder: Path, files: tuple[RawFile, RawFile]) -> LabelledRows:
    images_file, labels_file = files
    with open_checked(folder, labels_file) as file:
        labels = map_idx(file, folder / labels_file.name).astype(np.int64)
    with open_checked(folder, images_file) as file:
        images = map_idx(file, folder / images_file.name)
    return LabelledRows(images, labels)
