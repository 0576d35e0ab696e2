from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import hpo.data
from hpo.data import digits
from hpo.errors import DataError


def test_the_parts_are_scikit_learns_rows_each_once(data_home: Path) -> None:
    train, test = hpo.data.load_train("digits"), hpo.data.load_test("digits")
    original = load_digits()
    assert train.images.shape == (1438, 8, 8)
    assert test.images.shape == (359, 8, 8)
    assert train.images.dtype == np.uint8
    assert train.images.max() == 16

    def keys(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return sorted(
            image.astype(np.uint8).tobytes() + bytes([label])
            for image, label in zip(images, labels, strict=True)
        )

    parts = keys(
        np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])
    )
    assert parts == keys(original.images, original.target)


def test_the_split_is_stratified_and_fixed() -> None:
    train, test = hpo.data.load_train("digits"), hpo.data.load_test("digits")
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert np.abs(shares - 0.2).max() < 0.004
    digest = hashlib.sha256(test.images.tobytes() + test.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "0cb86063744d5205"


def test_nothing_is_downloaded_or_written(data_home: Path) -> None:
    status = hpo.data.status("digits")
    assert (status.present, status.missing, status.bytes) == (True, (), 0)
    hpo.data.fetch("digits")
    assert not data_home.exists()


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of another scikit-learn, the only one there is."""
    package = tmp_path / "sklearn"
    file = package.joinpath(*digits._FILE)
    file.parent.mkdir(parents=True)
    found = ModuleSpec("sklearn", None, is_package=True)
    assert found.submodule_search_locations is not None
    found.submodule_search_locations.append(str(package))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
    return file


def test_other_rows_are_refused(other: Path) -> None:
    original = load_digits()
    table = np.column_stack([original.data, original.target])
    table[7, 3] += 1
    with gzip.open(other, "wt") as file:
        np.savetxt(file, table, fmt="%d", delimiter=",")
    with pytest.raises(DataError, match=r"digits: this scikit-learn holds other rows.*sha256"):
        hpo.data.load_train("digits")


SHORT = gzip.compress(b"1,2\n3\n", mtime=0)


@pytest.mark.parametrize("content", [None, b"", b"no gzip", SHORT, SHORT[:-9]])
def test_a_file_that_cannot_be_read_is_named(other: Path, content: bytes | None) -> None:
    if content is not None:
        other.write_bytes(content)
    with pytest.raises(DataError, match=r"digits: .*digits\.csv\.gz: cannot be read"):
        hpo.data.load_train("digits")


def test_reading_them_does_not_import_scikit_learn() -> None:
    code = (
        "import sys, hpo.data; hpo.data.load_train('digits'); assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
