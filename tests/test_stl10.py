"""The study `stl10` in small: the whole job on files of the format, ten classes to be learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import here, hpo, measured, read
from tests.data import stl10_files

SMALL = (
    *("--set", "training.epochs=12", "--set", "training.batch_size=16"),
    *("--set", "model.mlp.widths=[64, 32]", "--set", "optimizer={adam: {lr: 0.001}}"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder beside a data folder with 320 training and 100 test rows."""
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "data"))
    stl10_files.write(tmp_path / "data" / "stl10", stl10_files.content(320, 100))
    return tmp_path


def test_the_classes_are_learnt_from_upright_images(folder: Path) -> None:
    here(folder, "optimize", "--study", "stl10", "--trials", "3", *SMALL)
    here(folder, "retrain-best", "--study", "stl10")
    assert read(folder, "status", "--study", "stl10")["finished"] == 3
    artifact = folder / "results" / "stl10"
    metrics = json.loads((artifact / "metrics.json").read_text())
    assert metrics["test"]["mean"] > 0.6, metrics
    assert json.loads((artifact / "config.json").read_text())["image_shape"] == [3, 96, 96]


def test_a_damaged_file_ends_the_command_in_one_sentence(folder: Path) -> None:
    path = folder / "data" / "stl10" / "train_X.bin"
    path.write_bytes(path.read_bytes()[:-100])
    done = hpo(folder, "optimize", "--study", "stl10", "--trials", "1", *SMALL, expect=1)
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert "one of the two is cut or foreign" in done.stderr


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["here", "workers"])
def test_rows_of_an_archive_that_are_too_few_are_told_before_there_is_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    """As many as are published are taken for granted until the archive is unpacked."""
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "data"))
    packed = stl10_files.archive(stl10_files.content(40, 20))
    stl10_files.write(tmp_path / "data" / "stl10", {"stl10_binary.tar.gz": packed})
    changes = (*SMALL, "--set", "training.batch_size=35", *workers)
    done = hpo(tmp_path, "optimize", "--study", "stl10", "--trials", "1", *changes, expect=2)
    told = "a batch of 35 is larger than the 34 training rows of stl10; choose a smaller batch"
    assert told in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_the_studys_own_network_fits_in_3_gib(folder: Path) -> None:
    """All its 58 million weights with Adam's moments; few rows, for the files are mapped."""
    short = ("--set", "training.epochs=1", "--set", "optimizer={adamw: {lr: 0.0001}}")
    many = ("--set", "retrain={finalists: 2, seeds: 5}")  # more networks than fit at once
    rows = 360  # MiB; all of the published files, as if they were a process's own
    searched = measured(folder, "optimize", "--study", "stl10", "--trials", "2", *short, *many)
    assert searched.mebibytes + rows < 3 * 1024
    retrained = measured(folder, "retrain-best", "--study", "stl10")
    assert retrained.mebibytes < 3 * 1024
