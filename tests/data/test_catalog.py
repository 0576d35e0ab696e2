from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo.data
from hpo.data import DatasetInfo, LabelledRows
from hpo.errors import DataError, UsageError

from .conftest import Offer, Tiny


def test_the_built_in_datasets_are_described() -> None:
    assert {"digits", "fashion_mnist", "mnist", "stl10"} <= set(hpo.data.names())
    for name in ("digits", "fashion_mnist", "mnist", "stl10"):
        info = hpo.data.describe(name)
        assert info.name == name
        assert info.classes == 10
        assert info.n_train > 0
        assert info.n_test > 0
        assert info.origin
        assert info.licence


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("fashion-mnist", "fashion_mnist"), ("minst", "mnist"), ("digit", "digits")],
)
def test_an_unknown_name_gets_the_list_and_the_nearest(name: str, suggestion: str) -> None:
    for ask in (hpo.data.describe, hpo.data.fetch, hpo.data.status, hpo.data.load_train):
        with pytest.raises(UsageError) as caught:
            ask(name)
        assert "digits, fashion_mnist, freefall" in str(caught.value)
        assert str(caught.value).endswith(f"did you mean {suggestion}?")


@pytest.mark.parametrize("name", ["../mnist", "/etc", "", "mnist/", "MNIST\0", "zzzzzz", "."])
def test_no_name_is_a_path(name: str, data_home: Path) -> None:
    with pytest.raises(UsageError, match="there is no dataset"):
        hpo.data.fetch(name)
    assert not data_home.exists()


def test_importing_is_light() -> None:
    code = (
        "import sys, hpo.data; hpo.data.names(); hpo.data.describe('mnist'); "
        "heavy = {'torch', 'torchvision', 'sklearn', 'scipy', 'optuna'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_data_folder_is_chosen_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "here"))
    assert hpo.data.data_folder() == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_DATA", "beside")
    assert hpo.data.data_folder() == tmp_path / "beside"
    monkeypatch.setenv("HPO_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert hpo.data.data_folder() == tmp_path / "cache" / "hpo"


class Custom:
    """A dataset of another package; each attribute can be spoilt."""

    def __init__(self, **changes: Any) -> None:
        self.info = DatasetInfo("ours", 3, (4, 4), 6, 2, "this test", "CC0")
        self.images = np.zeros((6, 4, 4), np.uint8)
        self.labels = np.array([0, 1, 2, 0, 1, 2], np.int64)
        self.__dict__.update(changes)

    def missing(self, _folder: Path, _part: str) -> list[str]:
        return []

    def fetch(self, _folder: Path) -> None:
        pass

    def load_train(self, _folder: Path) -> LabelledRows:
        return LabelledRows(self.images, self.labels)

    def load_test(self, _folder: Path) -> LabelledRows:
        return LabelledRows(self.images[:2], self.labels[:2])


def test_a_dataset_of_another_package_is_one_of_ours(offer: Offer, data_home: Path) -> None:
    offer("ours", Custom)
    assert "ours" in hpo.data.names()
    assert hpo.data.describe("ours").origin == "this test"
    assert hpo.data.status("ours").present
    assert len(hpo.data.load_train("ours")) == 6
    assert len(hpo.data.load_test("ours")) == 2
    assert hpo.data.fetch("ours") == data_home / "ours"


def test_a_built_in_name_cannot_be_taken(offer: Offer) -> None:
    offer("digits", lambda: Custom(info=DatasetInfo("digits", 3, (4, 4), 6, 2, "evil", "none")))
    assert hpo.data.describe("digits").origin != "evil"
    assert hpo.data.names().count("digits") == 1


@pytest.mark.parametrize("name", ["../up", "Ours", ".hidden", "a/b", "é"])
def test_a_name_that_could_be_a_path_is_not_offered(offer: Offer, name: str) -> None:
    offer(name, Custom)
    assert name not in hpo.data.names()
    with pytest.raises(UsageError):
        hpo.data.load_train(name)


def test_two_packages_with_one_name_are_an_error_when_asked(offer: Offer) -> None:
    offer("ours", Custom, "first")
    offer("ours", Custom, "second")
    assert hpo.data.names().count("ours") == 1
    with pytest.raises(DataError, match="package first and package second"):
        hpo.data.describe("ours")


def _raises() -> None:
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "ours of the package rows_of_ours failed: ModuleNotFoundError"),
        (_raises, "failed: RuntimeError: no luck"),
        (lambda: object(), "has no missing, fetch, load_train, load_test"),
        (lambda: Custom(info="a string"), "info is str, not DatasetInfo"),
        (lambda: Custom(info=DatasetInfo("b", 3, (4, 4), 6, 2, "", "")), "calls itself b"),
        (lambda: DatasetInfo("ours", 3, (4, 1, 4, 4), 6, 2, "", ""), "must be of the shape (f"),
    ],
)
def test_a_broken_offer_is_one_error_and_only_when_asked(
    offer: Offer, made: object, message: str
) -> None:
    offer("ours", made)
    assert "ours" in hpo.data.names()
    assert hpo.data.describe("digits").name == "digits"
    with pytest.raises(DataError) as caught:
        hpo.data.load_train("ours")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 4, 4), np.float32)}, "images must be a uint8 array, not float32"),
        ({"images": [[1]]}, "images must be a uint8 array, not list"),
        ({"images": np.zeros((6, 16), np.uint8)}, "the shape (6, 4, 4), not (6, 16)"),
        ({"images": np.zeros((5, 4, 4), np.uint8)}, "the shape (6, 4, 4), not (5, 4, 4)"),
        ({"labels": np.zeros(6, np.int32)}, "labels must be a int64 array, not int32"),
        ({"labels": np.zeros(5, np.int64)}, "the shape (6,), not (5,)"),
        ({"labels": np.full(6, 3)}, "labels must lie in 0..2, but they run from 3 to 3"),
        ({"labels": np.full(6, -1)}, "labels must lie in 0..2, but they run from -1 to -1"),
        ({"load_train": lambda _folder: (1, 2)}, "must return LabelledRows, not tuple"),
        ({"load_train": lambda _folder: 1 / 0}, "ours failed: ZeroDivisionError"),
        ({"missing": lambda _folder, _part: 1 / 0}, "ours failed: ZeroDivisionError"),
    ],
)
def test_rows_that_do_not_fit_their_description_are_refused(
    offer: Offer, data_home: Path, changes: dict[str, Any], message: str
) -> None:
    offer("ours", lambda: Custom(**changes))
    with pytest.raises(DataError) as caught:
        hpo.data.load_train("ours")
    assert message in str(caught.value)
    assert "ours" in str(caught.value)


def test_status_tells_what_is_missing(offer: Offer, tiny: Tiny, data_home: Path) -> None:
    offer("tiny", tiny.dataset())
    before = hpo.data.status("tiny")
    assert (before.present, before.bytes, len(before.missing)) == (False, 0, 4)
    tiny.write(data_home / "tiny")
    (data_home / "tiny" / "test-labels").unlink()
    partly = hpo.data.status("tiny")
    assert (partly.present, partly.missing) == (False, ("test-labels",))
    tiny.write(data_home / "tiny")
    after = hpo.data.status("tiny")
    assert (after.present, after.folder) == (True, data_home / "tiny")
    assert after.bytes == sum(map(len, tiny.content.values()))
