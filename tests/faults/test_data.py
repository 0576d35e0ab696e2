"""F15: a dataset's files are damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from hpo.data import fetch
from tests.commands import Used, here, measured

pytestmark = pytest.mark.slow

NAME = "train-images-idx3-ubyte"
SEARCH = ("optimize", "--study", "mnist", "--trials", "1")


def _flip(file: BinaryIO) -> None:
    file.seek(-1, os.SEEK_END)
    byte = file.read(1)[0]
    file.seek(-1, os.SEEK_END)
    file.write(bytes([byte ^ 1]))


def _claim_a_gibibyte(file: BinaryIO) -> None:
    file.seek(4)
    file.write(struct.pack(">I", (1 << 30) // 784))


FAULTS: dict[str, Callable[[BinaryIO], object]] = {
    "one bit": _flip,
    "truncated": lambda file: file.truncate(47_040_015),
    "empty": lambda file: file.truncate(0),
    "wrong magic": lambda file: file.write(b"PK"),
    "claims 1 GiB": _claim_a_gibibyte,
}


@pytest.fixture(scope="module")
def real() -> Path:
    """The folder with the files of MNIST as they should be."""
    return fetch("mnist")


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory, real: Path) -> Used:
    """What the same command uses where it has no image to read at all."""
    folder = tmp_path_factory.mktemp("least")
    shutil.copytree(real, folder / "mnist", ignore=shutil.ignore_patterns(NAME))
    (folder / "mnist" / NAME).mkdir()
    return measured(folder, *SEARCH, expect=74, HPO_DATA=str(folder))


@pytest.mark.parametrize("fault", FAULTS)
def test_f15_a_damaged_file_is_named_before_a_trial_begins(
    tmp_path: Path, real: Path, least: Used, fault: str
) -> None:
    folder = tmp_path / "data" / "mnist"
    shutil.copytree(real, folder)
    expected = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    with (folder / NAME).open("r+b") as file:
        FAULTS[fault](file)
    actual = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()

    working = tmp_path / "working"
    working.mkdir()
    used = measured(working, *SEARCH, expect=1, HPO_DATA=str(tmp_path / "data"))
    (line,) = used.stderr.splitlines()
    assert line.startswith(f"hpo: {folder / NAME}: damaged or foreign")
    assert expected in line
    assert actual in line
    assert used.stdout == ""
    assert list(working.iterdir()) == []  # neither a database nor a trial in it
    assert used.mebibytes < least.mebibytes + 50
    assert used.cpu_seconds < 3 * least.cpu_seconds


def test_f15_a_study_that_goes_on_gets_no_trial_either(tmp_path: Path, real: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(real, data / "mnist")
    short = ("--set", "training.epochs=1", "--set", "model.mlp={widths: [4]}")
    here(tmp_path, *SEARCH, *short, HPO_DATA=str(data))
    before = here(tmp_path, "trials", "--study", "mnist", "--format", "json").stdout
    with (data / "mnist" / NAME).open("r+b") as file:
        _flip(file)
    more = ("--trials", "2", *short)
    refused = here(tmp_path, "optimize", "--study", "mnist", *more, expect=1, HPO_DATA=str(data))
    assert f"{NAME}: damaged" in refused.stderr
    assert here(tmp_path, "trials", "--study", "mnist", "--format", "json").stdout == before
