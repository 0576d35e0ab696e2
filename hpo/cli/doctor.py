"""`hpo doctor`: what this machine has, and whether hpo can work on it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import typer

from hpo import __version__
from hpo.cli.options import MACHINE_PANEL, StorageUrl, TextFormat, TextOutputFormat, storage_url
from hpo.errors import FileError, HpoError

if TYPE_CHECKING:
    import torch

__all__ = ["register"]

_PACKAGES = ("torch", "torchvision", "optuna", "sqlalchemy")
_BROKEN_DEVICE = "update the driver and torch, or train with --set training.device=cpu"
_LARGEST_ERROR = 1e-2  # ten times TF32's; a wrong product is off by about 1


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: `ok`, `warning` (hpo works, but not as well as it could) or `error`.
        advice: what to do; empty where all is well.
    """

    check: str
    state: str
    found: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=MACHINE_PANEL)(doctor)


def doctor(storage: StorageUrl = None, output: TextOutputFormat = TextFormat.TABLE) -> None:
    """What this machine has, which device would train, and proof that it multiplies right.

    The exit code is 1 if the device, the database or the data folder does not work.
    """
    from hpo.cli import rendering

    findings = [*_machine(), *_versions(), *_devices(), *_data(), *_database(storage)]
    rows = [asdict(finding) for finding in findings]
    if output is TextFormat.JSON:
        rendering.write_json(rows)
    else:
        advised = any(finding.advice for finding in findings)
        columns = ["check", "state", "found", *(["advice"] if advised else [])]
        rendering.write_rows(rows, columns, "")
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(1)


def _machine() -> Iterator[Finding]:
    from hpo.training.machine import installed_memory, usable_cores

    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("platform", "ok", platform.platform())
    yield Finding("cores", "ok", f"{usable_cores()} of {os.cpu_count()}")
    yield Finding("memory", "ok", f"{installed_memory() / 2**30:.1f} GiB")


def _versions() -> Iterator[Finding]:
    yield Finding("hpo", "ok", __version__)
    for package in _PACKAGES:
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "error", "not installed", f"run pip install {package}")
    yield Finding("sqlite", "ok", sqlite3.sqlite_version)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        yield Finding("device", "error", f"torch: {reason[0]}", "install torch again")
        return
    yield _cuda(torch.version.cuda)
    from hpo.training.devices import usable_gpus

    for index in range(usable_gpus()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.1f} GiB"
        yield Finding(f"cuda:{index}", "ok", f"{properties.name}, {memory}")
    yield from _proof()


def _cuda(build: str | None) -> Finding:
    """Whether this build of torch can use a GPU, and whether one goes unused."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        works = torch.cuda.is_available()
    name = f"build for CUDA {build}" if build else "build without CUDA"
    if works or shutil.which("nvidia-smi") is None:
        return Finding("cuda", "ok", name if works else f"{name}, no GPU")
    said = [str(one.message).strip().splitlines()[0] for one in caught if str(one.message).strip()]
    advice = "update the NVIDIA driver, or install a build of torch for it (pytorch.org)"
    if build is None:
        advice = "install a build of torch with CUDA (pytorch.org)"
    return Finding("cuda", "warning", "; ".join([f"{name}, the GPU is not used", *said]), advice)


def _proof() -> Iterator[Finding]:
    """The device that `auto` picks, and a matrix product on it."""
    import torch

    from hpo.training.devices import device_name, pick_device, pick_precision

    device = pick_device("auto")
    try:
        name = device_name(device)
        precision = str(pick_precision("auto", device)).removeprefix("torch.")
    except RuntimeError as problem:
        reason = str(problem).strip().splitlines()[0]
        yield Finding("device", "error", f"{device} cannot be used: {reason}", _BROKEN_DEVICE)
        return
    threads = f", threads: {torch.get_num_threads()}" if device.type == "cpu" else ""
    yield Finding("device", "ok", f"{name}{threads}, precision: {precision}")
    yield _product(device)


def _product(device: torch.device) -> Finding:
    from hpo.training.devices import prove

    try:
        rate, error = prove(device)
    except RuntimeError as problem:
        reason = str(problem).strip().splitlines()[0]
        return Finding("matrix product", "error", f"it fails: {reason}", _BROKEN_DEVICE)
    found = f"{rate:.0f} GFLOP/s, relative error {error:.1e}"
    if not error < _LARGEST_ERROR:  # also where it is NaN
        return Finding("matrix product", "error", f"wrong: {found}", _BROKEN_DEVICE)
    return Finding("matrix product", "ok", found)


def _data() -> Iterator[Finding]:
    from hpo import data

    try:
        folder = data.data_folder()
    except FileError as error:
        yield _refused("data folder", error)
        return
    there = "" if os.access(folder, os.F_OK) else " (not there yet)"
    yield Finding("data folder", "ok", f"{folder}{there}")
    for name in data.names():
        try:
            found = data.status(name)
        except FileError as error:
            yield _refused(f"dataset {name}", error)
            continue
        except HpoError as error:
            yield Finding(f"dataset {name}", "warning", str(error), "install its package again")
            continue
        here = "here" if found.present else f"not here; hpo data fetch {name} brings it"
        yield Finding(f"dataset {name}", "ok", here)


def _database(storage: str | None) -> Iterator[Finding]:
    from hpo.search.status import count_studies
    from hpo.search.url import redact

    url = storage_url(storage)
    try:
        count = count_studies(url)
    except HpoError as error:
        yield _refused("storage", error)
        return
    holds = "not there yet; hpo optimize makes it" if count is None else f"opens, studies: {count}"
    yield Finding("storage", "ok", f"{redact(url)}: {holds}")


def _refused(check: str, error: HpoError) -> Finding:
    """An error whose sentence ends with what to do."""
    found, mark, advice = str(error).rpartition("; ")
    return Finding(check, "error", found if mark else advice, advice if mark else "")
