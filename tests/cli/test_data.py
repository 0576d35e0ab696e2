from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from .conftest import Run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder; nothing may be downloaded into it."""
    empty = tmp_path / "data"
    monkeypatch.setenv("HPO_DATA", str(empty))
    return empty


def test_list_tells_what_is_here(run: Run, folder: Path) -> None:
    found = {row["name"]: row for row in json.loads(run("data", "list", "--format", "json").out)}
    assert found["digits"] == {
        "name": "digits",
        "rows": 1797,
        "train_rows": 1438,
        "test_rows": 359,
        "classes": 10,
        "targets": None,
        "present": True,
        "folder": str(folder / "digits"),
        "bytes": 0,
        "origin": found["digits"]["origin"],
        "licence": "CC BY 4.0",
    }
    assert not found["mnist"]["present"]
    assert (found["sine"]["classes"], found["sine"]["targets"]) == (None, 1)
    assert not folder.exists()


def test_list_as_csv_and_as_a_table(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("data", "list", "--format", "csv").out)))
    here = [row["name"] for row in rows if row["present"] == "true"]
    assert here == ["digits", "freefall", "linear", "sine"]
    table = run("data", "list").out
    assert "fashion_mnist" in table
    assert "70000" in table


def test_a_dataset_that_cannot_be_read_leaves_the_others_listed(run: Run, folder: Path) -> None:
    folder.mkdir()
    (folder / "mnist").symlink_to("mnist")
    for shape in ("json", "csv", "table"):
        done = run("data", "list", "--format", shape)
        assert done.code == 74
        assert "fashion_mnist" in done.out
        assert f"{folder}/mnist" not in done.out
        assert f"{folder}/mnist: " in done.err
        assert done.err.count("\n") == 1


def test_a_data_folder_that_there_cannot_be_is_told_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DATA", "~nosuch-user/d")
    done = run("data", "list")
    assert (done.code, done.out) == (74, "")
    assert done.err.startswith("hpo: HPO_DATA: there is no home folder for '~nosuch-user/d'; ")
    assert done.err.count("\n") == 1


def test_fetch_prints_the_folder_and_says_what_happened(run: Run, folder: Path) -> None:
    done = run("data", "fetch", "digits", "digits")
    assert (done.code, done.out) == (0, f"{folder / 'digits'}\n")
    assert done.err == "digits: was here already, and every row fits its description\n"


def test_fetch_names_a_damaged_file(run: Run, folder: Path) -> None:
    place = folder / "mnist"
    place.mkdir(parents=True)
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for part in parts:
        (place / f"{part}-ubyte").write_bytes(b"not what it should be")
    done = run("data", "fetch", "mnist")
    assert (done.code, done.out) == (1, "")
    assert str(place) in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fashon_mnist"], "did you mean fashion_mnist?"),
        (["digits", "../x"], "there is no dataset '../x'"),
        (["digits", "--all"], "name datasets, or use --all"),
        ([], "there are digits, fashion_mnist, freefall, linear, mnist, sine, stl10"),
    ],
)
def test_fetch_refuses_a_wrong_name_before_it_begins(
    run: Run, folder: Path, arguments: list[str], said: str
) -> None:
    done = run("data", "fetch", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not folder.exists()
