"""The shipped studies that any images serve, each in small on the digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from .commands import here, read

SMALL = (
    *("--set", "dataset.name=digits", "--set", "training.epochs=1"),
    *("--set", "training.batch_size=64"),
)
STUDIES = {
    "digits": 3,
    "mnist": 3,
    "fashion_mnist": 3,
    "fashion_mnist_grid": 72,  # all of one batch size
    "fashion_mnist_folds": 3,
    "mlp_comparison": 36,
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_shipped_study_runs_to_its_artifact(name: str, tmp_path: Path) -> None:
    asked = () if name in ("fashion_mnist_grid", "mlp_comparison") else ("--trials", "3")
    here(tmp_path, "optimize", "--study", name, *asked, *SMALL)
    status = read(tmp_path, "status", "--study", name)
    assert status["finished"] == status["budget"] == STUDIES[name]
    result = read(tmp_path, "retrain-best", "--study", name)
    assert 0 < result["test"]["mean"] <= 1
    assert (tmp_path / result["artifact"] / "model.safetensors").exists()
