"""STL-10: its binary format, and where to get it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpo.data.archive import ArchiveDownload, torchvision_archive, unpack
from hpo.data.dataset import Part
from hpo.data.files import how_to_replace, open_regular
from hpo.data.folder import check_room, data_folder, disk_errors, publish, work_folder
from hpo.data.info import DatasetInfo
from hpo.data.rows import LabelledRows
from hpo.data.sources import SourceError
from hpo.errors import DataError

__all__ = ["STL10", "Stl10"]

_log = logging.getLogger(__name__)

_SHAPE = (3, 96, 96)
_IMAGE = 3 * 96 * 96  # bytes
_CLASSES = 10
_MOST_ROWS = 1_000_000  # of somebody's own; a larger file is something else, and is not read
_ROWS: dict[Part, int] = {"train": 5000, "test": 8000}
_FILES: dict[Part, tuple[str, str]] = {
    "train": ("train_X.bin", "train_y.bin"),
    "test": ("test_X.bin", "test_y.bin"),
}
_ARCHIVE = "stl10_binary.tar.gz"
_INSIDE = "stl10_binary"


@dataclass(frozen=True)
class Stl10:
    """Images and labels in STL-10's binary format (Coates, Lee and Ng, 2011).

    An image is 3 x 96 x 96 bytes: the red, the green and the blue channel, each column by column.
    A label is one byte, 1 to 10. Neither file has a header: the labels' size is the number of
    rows. So files of anybody's own may lie in the folder in place of the published ones.

    Attributes:
        source: where the published files are.
    """

    source: ArchiveDownload

    @property
    def info(self) -> DatasetInfo:
        """The description, with as many rows as lie in the data folder, else as are published."""
        folder = data_folder() / "stl10"
        return DatasetInfo(
            "stl10",
            classes=_CLASSES,
            shape=_SHAPE,
            n_train=_count(folder, "train"),
            n_test=_count(folder, "test"),
            origin="STL-10, the labelled images (Coates, Lee and Ng, Stanford, 2011), "
            "taken from ImageNet",
            licence="none given; for research",
        )

    def missing(self, folder: Path, part: Part, /) -> list[str]:
        """Return the part's files that are not in `folder`."""
        return [name for name in _FILES[part] if not os.path.lexists(folder / name)]

    def fetch(self, folder: Path, /) -> None:
        """Get what is missing out of the archive in `folder`, or out of the published one.

        Raises:
            DataError: no source has it, or the archive in `folder` is damaged.
            FileError: the disk refuses.
        """
        wanted = [*self.missing(folder, "train"), *self.missing(folder, "test")]
        if not wanted:
            return
        archive = folder / _ARCHIVE
        with work_folder(folder) as work:
            check_room(folder, sum(_ROWS.values()) * (_IMAGE + 1))
            if os.path.lexists(archive):
                self._compare(unpack(archive, wanted, _INSIDE, work), archive)
            else:
                self._download(wanted, folder, work)
            for name in wanted:
                publish(work, folder, name)
        _log.info("stl10: fetched into %s", folder)

    def load_train(self, folder: Path, /) -> LabelledRows:
        """Map the training rows; see `Dataset`."""
        return _load(folder, "train")

    def load_test(self, folder: Path, /) -> LabelledRows:
        """Map the test rows; see `Dataset`."""
        return _load(folder, "test")

    def _compare(self, sums: Mapping[str, str], archive: Path) -> None:
        """Say which files are not the published ones: the user's own, or damaged.

        Nothing else tells of damage: a gzip stream has its sum at its end, which is not read.
        """
        try:
            published = self.source.published().md5
        except SourceError:
            return  # nobody here knows the sums
        if others := [name for name, found in sums.items() if published.get(name, found) != found]:
            _log.warning(
                "%s: %s %s not as published; if these are not images of your own, get it again",
                archive,
                ", ".join(others),
                "are" if len(others) > 1 else "is",
            )

    def _download(self, wanted: Sequence[str], folder: Path, work: Path) -> None:
        _log.info("stl10: trying the %s", self.source.label)
        try:
            self.source.deliver(wanted, _INSIDE, work)
        except SourceError as error:
            listed = ", ".join(wanted)
            raise DataError(
                f"stl10: no source has it; tried the data folder (no {listed}, no {_ARCHIVE}); "
                f"the {self.source.label} ({error}); put them, or {_ARCHIVE}, into {folder} "
                "and run the command again"
            ) from error


def _count(folder: Path, part: Part) -> int:
    """Rows of a part, by the size of its labels; as published where there are none to load."""
    labels = folder / _FILES[part][1]
    with disk_errors(labels):  # a folder that may not be entered
        rows = labels.stat().st_size if labels.is_file() else 0
    return rows if 0 < rows <= _MOST_ROWS else _ROWS[part]


def _load(folder: Path, part: Part) -> LabelledRows:
    """Map a part's images and read its labels.

    Returns:
        Images `[n, 3, 96, 96]`, upright: a view of the mapped file, whose last two axes are
        turned, so nothing is copied.
    """
    images_name, labels_name = _FILES[part]
    labels = _read_labels(folder / labels_name)
    return LabelledRows(_map_images(folder / images_name, len(labels), labels_name), labels)


def _read_labels(path: Path) -> NDArray[np.int64]:
    _check_there(path)
    with open_regular(path) as file:
        raw = np.frombuffer(file.read(_MOST_ROWS + 1), np.uint8)
    if not 0 < len(raw) <= _MOST_ROWS:
        amount = "empty" if not len(raw) else f"more than {_MOST_ROWS} labels"
        raise DataError(f"{path}: damaged or foreign: {amount}; {how_to_replace(path)}")
    wrong = np.flatnonzero((raw < 1) | (raw > _CLASSES))
    if len(wrong):
        raise DataError(
            f"{path}: damaged or foreign: labels run from 1 to {_CLASSES}, but that of row "
            f"{wrong[0]} is {raw[wrong[0]]}; {how_to_replace(path)}"
        )
    return raw.astype(np.int64) - 1


def _map_images(path: Path, rows: int, labels_name: str) -> NDArray[np.uint8]:
    _check_there(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != rows * _IMAGE:
            raise DataError(
                f"{path}: {size} bytes, where the {rows} labels in {labels_name} need "
                f"{rows * _IMAGE}, {_IMAGE} an image; one of the two is cut or foreign: remove "
                f"both and run `hpo data fetch {path.parent.name}`"
            )
        columns = np.memmap(file, dtype=np.uint8, mode="c", shape=(rows, *_SHAPE))
    return columns.transpose(0, 1, 3, 2)


def _check_there(path: Path) -> None:
    if not os.path.lexists(path):
        raise DataError(f"{path}: missing; run `hpo data fetch {path.parent.name}`")


STL10 = Stl10(
    ArchiveDownload("public download that torchvision knows", torchvision_archive("STL10"))
)
