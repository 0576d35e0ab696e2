"""The artifact: one folder with all that a retrain came to.

    model.safetensors      the network of the first seed, named before the test set was opened
    seeds/N.safetensors    the network of every seed
    config.json            how it is built, trained, and fed (shape, classes or targets,
                           normalisation)
    definition.json        the study
    metrics.json           winner, finalists, validation and test, as `--format json` prints them
    versions.json          of everything that took part, and the device
    prediction.html        what it predicts over the test rows, of one number from one

A folder is written beside its place and moved there when it is whole. What it replaces is kept
under the same name with a number.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import torch

from hpo.definition import StudyDefinition
from hpo.errors import FileError
from hpo.files import disk_errors
from hpo.results.prediction import PAGE, draw
from hpo.results.retrain import Retrained
from hpo.results.states import REMEDY, SavedStates
from hpo.search.study import SURPLUS

__all__ = ["fingerprint", "read_metrics", "write"]

_PACKAGES = ("hpo", "torchvision", "optuna", "numpy", "safetensors", "scikit-learn")


def write(
    folder: Path,
    retrained: Retrained,
    states: SavedStates,
    definition: StudyDefinition,
    metrics: dict[str, Any],
) -> None:
    """Write the artifact; a folder that stands there already is moved aside.

    Args:
        states: the networks.
        metrics: what goes into `metrics.json`.

    Raises:
        FileError: the disk refuses; what stood there is unchanged.
    """
    with disk_errors(folder, REMEDY):
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _fill(draft, retrained, states, definition, metrics)
            draft.chmod(0o755)
            if folder.exists():
                folder.rename(_free_name(folder))
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def fingerprint(study: optuna.Study, definition: StudyDefinition) -> dict[str, Any]:
    """What an artifact follows from: it is out of date when this changes.

    The trials that have finished count; how many there are to be, and by what means they are
    found, does not.
    """
    data = json.loads(definition.to_json())
    for key in ("trials", "sampler", "pruner", "retries", "max_failed"):
        del data["search"][key]
    finished = [
        [trial.number, trial.state.name, trial.params, trial.value]
        for trial in study.get_trials(deepcopy=False)
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
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read ({error}); move the folder away and run again"
        raise FileError(message) from None
    return found if isinstance(found, dict) else None


def _fill(
    draft: Path,
    retrained: Retrained,
    states: SavedStates,
    definition: StudyDefinition,
    metrics: dict[str, Any],
) -> None:
    seeds = draft / "seeds"
    seeds.mkdir()
    for place, content in enumerate(states.encoded()):
        (seeds / f"{place}.safetensors").write_bytes(content)
    shutil.copyfile(seeds / "0.safetensors", draft / "model.safetensors")
    normalization = retrained.normalization
    _write_json(
        draft / "config.json",
        {
            **retrained.winner.config.to_dict(),
            "trained_epochs": retrained.winner.epochs,
            **_fed(retrained),
            "normalization": {
                name: values.tolist()
                for name in ("mean", "std", "target_mean", "target_std")
                if (values := getattr(normalization, name)) is not None
            },
            "seeds": retrained.seeds,
        },
    )
    if retrained.prediction is not None:
        page = draw(definition.name, retrained.prediction, [_tested(metrics)])
        (draft / PAGE).write_text(page, encoding="utf-8")
    _write_json(draft / "definition.json", json.loads(definition.to_json()))
    _write_json(draft / "metrics.json", metrics)
    _write_json(
        draft / "versions.json",
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": retrained.device,
            "torch": torch.__version__,  # with its build, such as +cpu
            **{package: version(package) for package in _PACKAGES},
        },
    )
    for path in draft.rglob("*"):
        if path.is_file():
            _sync(path)


def _fed(retrained: Retrained) -> dict[str, Any]:
    """What goes into a network, and how much comes out."""
    if retrained.classes:
        return {"image_shape": list(retrained.shape), "classes": retrained.classes}
    return {"features": math.prod(retrained.shape), "targets": retrained.outputs}


def _tested(metrics: dict[str, Any]) -> str:
    """The mean of every metric on the test rows, in a sentence."""
    means = {name: sum(values) / len(values) for name, values in metrics["test_metrics"].items()}
    shown = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
    return f"Mean over {metrics['test']['n']} seeds on the test rows: {shown}"


def _sum(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return aside
