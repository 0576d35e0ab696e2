"""The studies `linear`, `freefall` and `sine`: in small, and one whole job to its mark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hpo.config import TrialConfig
from hpo.data import MeasuredRows, describe, load_test
from hpo.models.alone import build_module
from tests.commands import here, read

SHORT = ("--trials", "2", "--set", "training.epochs=2")
FEW = ("--set", "retrain={finalists: 1, seeds: 2}")
METRICS = {"loss", "mse", "rmse", "mae", "r2"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    return tmp_path


def predictions(artifact: Path, inputs: Tensor) -> np.ndarray:
    """Of the artifact's network in the targets' own units, as docs/artifact.md says."""
    data = json.loads((artifact / "config.json").read_text())
    fields = TrialConfig.__dataclass_fields__
    config = TrialConfig.from_dict({key: data[key] for key in fields if key in data})
    model = build_module(config.model, (data["features"],), data["targets"]).eval()
    model.load_state_dict(load_file(artifact / "model.safetensors"), strict=False)
    mean, std, target_mean, target_std = map(torch.tensor, data["normalization"].values())
    with torch.inference_mode():
        predicted = model((inputs - mean) / std) * target_std + target_mean
    return np.asarray(predicted, np.float64)


def test_several_workers_train_a_regression(place: Path) -> None:
    here(place, "optimize", "--study", "linear", "--workers", "2", *SHORT)
    assert read(place, "status", "--study", "linear")["complete"] == 2


def test_the_artifact_does_not_depend_on_the_locale(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has signs in it that ASCII lacks."""
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)
    here(place, "optimize", "--study", "linear", *SHORT, *FEW)
    here(place, "retrain-best", "--study", "linear")
    page = (place / "results" / "linear" / "prediction.html").read_text(encoding="utf-8")
    assert not page.isascii()


@pytest.mark.parametrize("name", ["linear", "freefall", "sine"])
def test_a_study_in_small(place: Path, name: str) -> None:
    here(place, "optimize", "--study", name, *SHORT, *FEW)
    done = here(place, "retrain-best", "--study", name)
    page = Path("results") / name / "prediction.html"
    assert done.stdout.endswith(f"artifact: {page.parent}\nprediction: {page}\n")
    again = here(place, "retrain-best", "--study", name)
    assert again.stdout == done.stdout
    metric = read(place, "best", "--study", name)["metric"]

    artifact = place / "results" / name
    metrics = json.loads((artifact / "metrics.json").read_text())
    assert metrics["test"]["metric"] == metric
    assert metrics["test"]["values"] == metrics["test_metrics"][metric]
    assert metrics["test_metrics"].keys() == METRICS
    rows = load_test(name, MeasuredRows)
    errors = predictions(artifact, torch.from_numpy(rows.inputs)) - rows.targets
    assert np.mean(errors**2) == pytest.approx(metrics["test_metrics"]["mse"][0], rel=1e-4)
    assert np.abs(errors).mean() == pytest.approx(metrics["test_metrics"]["mae"][0], rel=1e-4)
    config = json.loads((artifact / "config.json").read_text())
    assert not config.keys() & {"classes", "image_shape"}
    assert list(config["normalization"]) == ["mean", "std", "target_mean", "target_std"]
    text = (place / page).read_text()
    assert text.startswith("<!doctype html>")
    assert "mean prediction of 2 seeds" in text
    assert len(text) > 1_000_000  # it needs no other file


def test_the_page_of_curves_shows_every_metric_and_no_trial_says_accuracy(place: Path) -> None:
    here(place, "optimize", "--study", "sine", *SHORT)
    here(place, "curves", "--study", "sine", "--out", "curves.html")
    text = (place / "curves.html").read_text()
    figures = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    drawn = {line["name"] for line in figures[0]["data"]}
    assert drawn == {"training loss", "validation loss", "mse", "rmse", "mae", "r2"}
    best = read(place, "best", "--study", "sine")
    status = read(place, "status", "--study", "sine")
    values = [trial["value"] for trial in read(place, "trials", "--study", "sine")]
    assert best["value"] == status["best_value"] == min(values)


def test_folds_of_a_regression(place: Path) -> None:
    folds = ("--set", "dataset={name: freefall, folds: 3}")
    here(place, "optimize", "--study", "freefall", *folds, *SHORT, *FEW)
    here(place, "retrain-best", "--study", "freefall")
    curve = read(place, "curves", "--study", "freefall", "--out", "x.html")["trials"][0]["curve"]
    for epoch in curve:
        assert epoch["rmse"] == pytest.approx(np.mean(epoch["folds"]))


def test_the_sine_is_drawn_to_within_its_mark(place: Path) -> None:
    """The whole study as it ships."""
    here(place, "optimize", "--study", "sine")
    here(place, "retrain-best", "--study", "sine")
    metrics = json.loads((place / "results" / "sine" / "metrics.json").read_text())
    assert metrics["test"]["n"] == 5
    assert max(metrics["test"]["values"]) < 0.02
    assert min(metrics["test_metrics"]["r2"]) > 0.99
    # On its whole range, not where the test rows lie.
    x = np.linspace(-2 * np.pi, 2 * np.pi, 4001, dtype=np.float32)[:, None]
    errors = predictions(place / "results" / "sine", torch.from_numpy(x)) - np.sin(x)
    assert np.sqrt(np.mean(errors**2)) < 0.02


def test_the_line_is_as_good_as_its_noise_allows(place: Path) -> None:
    here(place, "optimize", "--study", "linear")
    here(place, "retrain-best", "--study", "linear")
    metrics = json.loads((place / "results" / "linear" / "metrics.json").read_text())
    assert min(metrics["test_metrics"]["r2"]) > 0.99
    rows = load_test("linear", MeasuredRows)
    noise = np.sqrt(np.mean((rows.targets - 3 * rows.inputs - 4) ** 2))
    assert max(metrics["test_metrics"]["rmse"]) < 1.02 * noise
    assert describe("linear").targets == 1


def test_variations_of_a_regression_are_scored_on_the_test_rows(place: Path) -> None:
    (place / "studies").mkdir()
    (place / "studies" / "steps.yaml").write_text(
        "# studies/steps.yaml: three rates\n"
        "dataset: {name: linear, validation: 0.2}\n"
        "model: {mlp: {widths: []}}\n"
        "optimizer: {sgd: {lr: 0.1}}\n"
        "training: {batch_size: 50, epochs: 5, diagnostics: [gradient_norms]}\n"
        "search: {metric: r2}\n"
        "variations:\n"
        "  - {}\n"
        "  - {optimizer.sgd.lr: 0.0001}\n"
    )
    done = here(place, "optimize", "--study", "steps")
    assert "test r2: of its network after the last epoch" in done.stdout
    good, poor = read(place, "trials", "--study", "steps")
    assert good["test_r2"] > 0.99
    assert good["test_r2"] > poor["test_r2"]
    assert "test_accuracy" not in good
