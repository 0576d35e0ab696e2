from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo.data
from hpo.data import DatasetInfo, LabelledRows
from hpo.errors import DataError, FileError, UsageError
from tests.commands import here

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


def test_a_data_folder_in_the_home_of_nobody_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPO_DATA", "~nosuch-user/d")
    for ask in (hpo.data.data_folder, lambda: hpo.data.status("digits")):
        with pytest.raises(FileError, match=r"^HPO_DATA: there is no home folder for '~nosuch-u"):
            ask()


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
        (lambda: DatasetInfo("ours", 3, (), 6, 2, "", ""), "must be of the shape (f"),
        (lambda: DatasetInfo("ours", 3, (4, 0), 6, 2, "", ""), "each axis, not (4, 0)"),
        (lambda: DatasetInfo("ours", 3, (4, 4), 0, 2, "", ""), "1 training row or more, not 0"),
        (lambda: DatasetInfo("ours", 3, (4, 4), 6, 0, "", ""), "1 test row or more, not 0"),
        (lambda: DatasetInfo("ours", 3, (4, 4), 6, -1, "", ""), "1 test row or more, not -1"),
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


class Moody:
    """A dataset whose description fails after so many looks."""

    def __init__(self, looks: int) -> None:
        self._looks, self._rest = looks, Custom()

    @property
    def info(self) -> DatasetInfo:
        self._looks -= 1
        if self._looks < 0:
            raise RuntimeError("no luck")
        return self._rest.info

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rest, name)


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_description_that_fails_is_one_error_that_names_the_dataset(
    offer: Offer, data_home: Path, looks: int
) -> None:
    offer("ours", lambda: Moody(looks))
    with pytest.raises(DataError, match=r"the dataset ours.* failed: RuntimeError: no luck"):
        hpo.data.load_train("ours")
    if looks < 2:
        with pytest.raises(DataError, match=r"the dataset ours.* failed: RuntimeError: no luck"):
            hpo.data.describe("ours")


def test_the_other_datasets_are_listed_beside_one_whose_description_fails(
    offer: Offer, data_home: Path, tmp_path: Path
) -> None:
    offer("ours", lambda: Moody(0))
    done = here(tmp_path, "data", "list")
    assert "digits" in done.stdout
    assert "\nours" not in done.stdout
    sentence = "the dataset ours of the package rows_of_ours failed: RuntimeError: no luck"
    assert sentence in done.stderr


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
