from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import hpo.data
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


def test_other_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    altered = load_digits()
    altered.images[7, 3, 3] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: altered)
    with pytest.raises(DataError, match=r"digits: this scikit-learn holds other rows.*sha256"):
        hpo.data.load_train("digits")
