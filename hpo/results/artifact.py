"""The artifact: one folder with all that a retrain came to.

    model.safetensors      the network of the first seed, named before the test set was opened
    seeds/N.safetensors    the network of every seed
    config.json            how it is built, trained, and fed (shape, classes or targets,
                           normalisation)
    definition.json        the study
    metrics.json           winner, finalists, validation and test, as `--format json` prints them
    versions.json          of everything that took part, and the device
    prediction.html        what it predicts over the test rows, of one number from one

It is made in a hidden folder beside its place, and moved there when it is whole. Whatever can be
written before the test set is opened is; then what was seen cannot be lost to a full disk. What an
artifact replaces is kept under the same name with a number.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from optuna.trial import FrozenTrial

from hpo import __version__
from hpo.data import describe
from hpo.definition import StudyDefinition
from hpo.errors import FileError
from hpo.files import Exclusive, disk_errors, sync_folder, write_whole
from hpo.results.prediction import PAGE, draw
from hpo.results.retrain import Trained, Verdict
from hpo.results.states import REMEDY, SavedStates
from hpo.search.records import SURPLUS

__all__ = ["Draft", "fingerprint", "read_metrics"]

_PACKAGES = ("torchvision", "optuna", "numpy", "safetensors", "scikit-learn")
_LAST = "metrics.json"  # where it is there, the artifact is whole


class Draft:
    """An artifact in the making, by one process at a time.

    What a killed process has left is moved to its place where it was whole, and else removed.

    Args:
        folder: the artifact's place; what stands there is moved aside.

    Attributes:
        states: gets the networks.

    Raises:
        FileError: another process is at it, or the disk refuses.
    """

    states: SavedStates

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder.with_name(f".{folder.name}.draft")
        with disk_errors(folder, REMEDY):
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._claim = Exclusive(folder.with_name(f".{folder.name}.lock"))
        if not self._claim.held:
            message = f"{folder}: another hpo retrain-best is at work on it; let it end"
            raise FileError(f"{message}, or name another folder with --output")
        try:
            with disk_errors(folder, REMEDY):
                if (self._path / _LAST).exists():
                    self._move()
                shutil.rmtree(self._path, ignore_errors=True)
                (self._path / "seeds").mkdir(parents=True)
        except BaseException:
            self._claim.release()
            raise
        self.states = SavedStates(self._path / "seeds", folder)

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        self._claim.release()

    def describe(self, trained: Trained, definition: StudyDefinition) -> None:
        """Write all that is known before the test set is opened.

        Raises:
            FileError: the disk refuses.
        """
        with disk_errors(self._folder, REMEDY):
            shutil.copyfile(self.states.path(0), self._path / "model.safetensors")
            _write_json(self._path / "config.json", _config(trained, definition))
            _write_json(self._path / "definition.json", json.loads(definition.to_json()))
            _write_json(self._path / "versions.json", _versions(trained))
            _sync_all(self._path)

    def put_in_place(self, name: str, verdict: Verdict, metrics: dict[str, Any]) -> None:
        """Write what the test set showed, and move the artifact to its place.

        Args:
            name: of the study, for the page.
            metrics: what goes into `metrics.json`.

        Raises:
            FileError: the disk refuses; what stood there is unchanged.
        """
        with disk_errors(self._folder, REMEDY):
            if verdict.prediction is not None:
                page = draw(name, verdict.prediction, [_tested(metrics)])
                (self._path / PAGE).write_text(page, encoding="utf-8")
                _sync(self._path / PAGE)
            write_whole(self._path / _LAST, _json(metrics))
            self._move()

    def _move(self) -> None:
        self._path.chmod(0o755)
        if self._folder.exists():
            self._folder.rename(_free_name(self._folder))
        self._path.rename(self._folder)
        sync_folder(self._folder.parent)


def fingerprint(trials: Iterable[FrozenTrial], definition: StudyDefinition) -> dict[str, Any]:
    """What an artifact follows from: it is out of date when this changes.

    The trials that have finished count; how many there are to be, and by what means they are
    found, does not.
    """
    data = json.loads(definition.to_json())
    for key in ("trials", "sampler", "pruner", "retries", "max_failed"):
        del data["search"][key]
    finished = [
        [trial.number, trial.state.name, trial.params, trial.value]
        for trial in trials
        if trial.state.is_finished() and SURPLUS not in trial.user_attrs
    ]
    return {
        "finished_trials": len(finished),
        "trials_sha256": _sum(finished),
        "definition_sha256": _sum(data),
    }


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """What `metrics.json` says; None where there is no artifact.

    Raises:
        FileError: there is one, but it cannot be read.
    """
    path = folder / _LAST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read ({error}); move the folder away and run again"
        raise FileError(message) from None
    return found if isinstance(found, dict) else None


def _config(trained: Trained, definition: StudyDefinition) -> dict[str, Any]:
    normalization = trained.data.task.normalization
    return {
        **trained.winner.config.to_dict(),
        "trained_epochs": trained.winner.epochs,
        **_fed(trained, definition),
        "normalization": {
            name: values.tolist()
            for name in ("mean", "std", "target_mean", "target_std")
            if (values := getattr(normalization, name)) is not None
        },
        "seeds": trained.seeds,
    }


def _versions(trained: Trained) -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": trained.device,
        "torch": torch.__version__,  # with its build, such as +cpu
        "hpo": __version__,
        **{package: version(package) for package in _PACKAGES},
    }


def _fed(trained: Trained, definition: StudyDefinition) -> dict[str, Any]:
    """What goes into a network, and how much comes out."""
    task, classes = trained.data.task, describe(definition.dataset.name).classes
    if classes:
        return {"image_shape": list(task.shape), "classes": classes}
    return {"features": math.prod(task.shape), "targets": task.outputs}


def _tested(metrics: dict[str, Any]) -> str:
    """The mean of every metric on the test rows, in a sentence."""
    means = {name: sum(values) / len(values) for name, values in metrics["test_metrics"].items()}
    shown = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
    return f"Mean over {metrics['test']['n']} seeds on the test rows: {shown}"


def _sum(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _json(data: dict[str, Any]) -> bytes:
    return f"{json.dumps(data, indent=2)}\n".encode()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_bytes(_json(data))


def _sync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
        else:
            sync_folder(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return aside
