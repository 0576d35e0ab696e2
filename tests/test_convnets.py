"""The studies `mnist_cnn` and `mnist_numpy_cnn` in small: on digits, whose images are 8 x 8."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from safetensors.torch import load_file

from hpo.config import TrialConfig
from hpo.data import load_test
from hpo.models.alone import build_module
from tests.commands import here, read, start
from tests.watching import Study, until

SHORT = ("--set", "training.epochs=1", "--set", "retrain={finalists: 1, seeds: 2}")
ON_DIGITS = {
    "mnist_cnn": (
        *("--set", "dataset={name: digits}", "--set", "model.cnn.kernel=3"),
        *("--set", "model.cnn.stages=2", "--set", "training.batch_size=32"),
    ),
    "mnist_numpy_cnn": (
        *("--set", "dataset={name: digits}", "--set", "model.numpy_cnn.pool=2"),
        *("--set", "model.numpy_cnn.kernel={choice: [1, 3]}", "--set", "training.batch_size=32"),
    ),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.mark.parametrize("name", ON_DIGITS)
def test_the_whole_job_in_small(place: Path, name: str) -> None:
    given = ("--study", name, "--trials", "3", *ON_DIGITS[name], *SHORT)
    here(place, "optimize", *given)
    here(place, "retrain-best", "--study", name)
    assert read(place, "status", "--study", name)["finished"] == 3
    trials = read(place, "trials", "--study", name)
    if name == "mnist_numpy_cnn":
        assert {trial["device"] for trial in trials} == {"cpu"}
    artifact = place / "results" / name
    metrics = json.loads((artifact / "metrics.json").read_text())
    assert predicted(artifact) == pytest.approx(metrics["test"]["values"][0])
    assert metrics["test"]["mean"] > 0.3  # a tenth would be chance


def predicted(artifact: Path) -> float:
    """The accuracy of the artifact's network on the test rows, as docs/artifact.md says."""
    data = json.loads((artifact / "config.json").read_text())
    fields = TrialConfig.__dataclass_fields__
    config = TrialConfig.from_dict({key: data[key] for key in fields})
    model = build_module(config.model, data["image_shape"], data["classes"]).eval()
    missing, unexpected = model.load_state_dict(
        load_file(artifact / "model.safetensors"), strict=False
    )
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    rows = load_test("digits")
    images = torch.from_numpy(rows.images).float().flatten(1)
    mean, std = (data["normalization"][key][0] for key in ("mean", "std"))
    with torch.inference_mode():
        classes = model((images - mean) / std).argmax(1).numpy()
    return float((classes == rows.labels).mean())


def test_a_network_in_numpy_goes_on_after_a_kill(place: Path) -> None:
    """Its trial comes to the curve, to the last bit, of a search that nobody stopped."""
    few = ("--trials", "1", "--set", "training.epochs=5", "--population", "1")
    given = (*few, *ON_DIGITS["mnist_numpy_cnn"], "--study", "mnist_numpy_cnn")
    whole = curve(place, "whole", *given)

    stopped = (*given, "--name", "stopped", "--storage", "sqlite:///stopped.db")
    process = start(place, "optimize", *stopped, epochs_last=0.5)
    study = Study(f"sqlite:///{place}/stopped.db")
    until(lambda: max(study.running().values(), default=0) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert study.finished() == 0
    assert curve(place, "stopped", *given, "-v") == whole
    study.assert_exactly(1)


def curve(place: Path, name: str, *given: str) -> list[tuple[float, ...]]:
    """The learning curve that the only trial of a search comes to, without times."""
    url = f"sqlite:///{name}.db"
    done = here(place, "optimize", *given, "--name", name, "--storage", url)
    assert ("goes on after epoch" in done.stderr) == (name == "stopped")
    (trial,) = optuna.load_study(study_name=name, storage=f"sqlite:///{place}/{name}.db").trials
    keys = ("epoch", "train_loss", "loss", "accuracy")
    return [tuple(epoch[key] for key in keys) for epoch in trial.user_attrs["hpo:curve"]]


ALL = """
dataset: {name: digits}
model:
  mlp: {widths: [16]}
  cnn: {stages: 2, channels: 4}
  numpy_cnn: {stages: 1, channels: {int: [2, 4]}}
optimizer: {sgd: {lr: {choice: [0.1, 1.0e+30]}, momentum: 0.9}}
training: {batch_size: 64, epochs: 2, precision: auto}
search: {trials: 18, sampler: random, pruner: none}
"""


def test_families_are_searched_side_by_side_and_what_diverges_says_why(place: Path) -> None:
    (place / "all.yaml").write_text(ALL)
    here(place, "optimize", "--study", "./all.yaml", "--population", "6")
    Study(f"sqlite:///{place}/hpo.db").assert_exactly(18)
    trials: list[dict[str, Any]] = read(place, "trials", "--study", "all")
    assert {trial["params"]["model"] for trial in trials} == {"mlp", "cnn", "numpy_cnn"}
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert {trial["params"]["sgd.lr"] for trial in failed} == {1e30}
    of_numpy = [
        trial
        for trial in failed
        if trial["params"]["model"] == "numpy_cnn" and "same parameters" not in trial["reason"]
    ]
    assert of_numpy
    for trial in of_numpy:
        assert trial["reason"].startswith("diverged in epoch 1: the loss is ")
        assert "likely causes are a learning rate that is too high" in trial["reason"]
    here(place, "retrain-best", "--study", "all")


def test_shipped_studies_fit_their_images(place: Path) -> None:
    done = here(place, "studies", "validate", "mnist_cnn", "mnist_numpy_cnn")
    assert done.stdout.count(": valid, ") == 2
