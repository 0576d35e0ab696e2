"""The digits that come with scikit-learn: 1797 images of 8 by 8, no download."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpo.data.dataset import Part
from hpo.data.info import DatasetInfo
from hpo.data.rows import LabelledRows
from hpo.errors import DataError

# Of the images (uint8) followed by the labels (uint8), in scikit-learn's order.
_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"

_FILE = ("datasets", "data", "digits.csv.gz")


class Digits:
    """Scikit-learn's digits, split once and for all into a training and a test part."""

    info = DatasetInfo(
        "digits",
        classes=10,
        shape=(8, 8),
        n_train=1438,
        n_test=359,
        origin="Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI, 1998), "
        "as it comes with scikit-learn",
        licence="CC BY 4.0",
    )

    def missing(self, _folder: Path, _part: Part) -> list[str]:
        """Return nothing where scikit-learn is installed."""
        return [] if importlib.util.find_spec("sklearn") else ["the package scikit-learn"]

    def fetch(self, _folder: Path) -> None:
        """Do nothing: the rows come with scikit-learn."""

    def load_train(self, _folder: Path) -> LabelledRows:
        """Return the training rows; pixel values run from 0 to 16."""
        return _part(test=False)

    def load_test(self, _folder: Path) -> LabelledRows:
        """Return the test rows; pixel values run from 0 to 16."""
        return _part(test=True)


def _part(*, test: bool) -> LabelledRows:
    images, labels = _read()
    chosen = _is_test(labels) == test
    return LabelledRows(images[chosen], labels[chosen])


def _read() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    table = _table()
    images = np.ascontiguousarray(table[:, :-1], dtype=np.uint8).reshape(-1, 8, 8)
    labels = np.ascontiguousarray(table[:, -1], dtype=np.int64)
    digest = hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if digest != _SHA256:
        raise DataError(
            f"digits: this scikit-learn holds other rows: expected sha256 {_SHA256}, "
            f"found {digest}; install another version of scikit-learn"
        )
    return images, labels


def _table() -> NDArray[np.float64]:
    """Scikit-learn's file: `[rows, 65]`, the pixels of each image and its label.

    The file is read as it lies there: importing scikit-learn takes as long as torch does.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "digits: it comes with scikit-learn, which is not here; run `pip install scikit-learn`"
        )
    path = Path(package.submodule_search_locations[0], *_FILE)
    try:
        with gzip.open(path, "rt") as file:
            words = ",".join(file.read().split()).split(",")
        return np.array(words, dtype=np.float64).reshape(-1, 65)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"digits: {path}: cannot be read ({error}); install another version of scikit-learn"
        ) from error


def _is_test(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark a fifth of each class, by a hash of the row's number.

    No random generator takes part, so the split is the same for every seed and every version.
    """
    order = np.array(
        [hashlib.sha256(f"hpo digits {row}".encode()).hexdigest() for row in range(len(labels))]
    ).argsort()
    test = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        test[rows[: (len(rows) + 2) // 5]] = True  # a fifth, rounded to the nearest
    return test
