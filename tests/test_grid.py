"""Grid search and folds, as a person runs them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from hpo import studies
from hpo.definition import load_definition
from hpo.grid import cells

from .commands import here, hpo, read, start
from .watching import in_folder, until

GRID = """
dataset: {name: digits, folds: 3}
model:
  mlp: {layers: {int: [1, 2]}, width: {choice: [8, 16]}, activation: {choice: [relu, swish]}}
optimizer:
  adam: {lr: {choice: [0.001, 0.01]}}
  sgd: {lr: {float: [0.1, 0.3], step: 0.1}}
training: {batch_size: 64, epochs: 2}
search: {sampler: grid, pruner: none}
retrain: {finalists: 2, seeds: 2}
"""
SHAPES: list[dict[str, Any]] = [
    {"mlp.layers": 1, "mlp.width_0": 8},
    {"mlp.layers": 1, "mlp.width_0": 16},
    *(
        {"mlp.layers": 2, "mlp.width_0": first, "mlp.width_1": second}
        for first, second in itertools.product((8, 16), repeat=2)
    ),
]
OPTIMIZERS: list[dict[str, Any]] = [
    *({"optimizer": "adam", "adam.lr": lr} for lr in (0.001, 0.01)),
    *({"optimizer": "sgd", "sgd.lr": lr} for lr in (0.1, 0.2, 0.3)),
]
CELLS = {
    tuple(sorted({**shape, **optimizer, "mlp.activation": activation}.items()))
    for shape, optimizer, activation in itertools.product(SHAPES, OPTIMIZERS, ("relu", "silu"))
}


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "cells.yaml").write_text(GRID)
    return tmp_path


def visited(folder: Path) -> list[tuple[tuple[str, Any], ...]]:
    trials = read(folder, "trials", "--study", "cells")
    return [tuple(sorted(trial["params"].items())) for trial in trials]


def test_every_cell_is_visited_once_over_kills_and_workers(grid: Path) -> None:
    first = start(grid, "optimize", "--study", "./cells.yaml", "--lease", "5", epochs_last=0.2)
    until(lambda: in_folder(grid).is_training())
    first.kill()
    first.communicate()
    hpo(grid, "optimize", "--study", "cells", "--workers", "2")
    seen = visited(grid)
    assert len(seen) == len(CELLS) == 60
    assert set(seen) == CELLS
    status = read(grid, "status", "--study", "cells")
    assert (status["budget"], status["complete"]) == (60, 60)


def test_a_part_of_a_grid_is_a_part_of_its_cells_and_the_rest_comes_later(grid: Path) -> None:
    here(grid, "optimize", "--study", "./cells.yaml", "--trials", "7")
    some = visited(grid)
    assert len(set(some)) == 7
    assert len({dict(cell)["mlp.activation"] for cell in some}) == 2  # not the first in a row
    here(grid, "optimize", "--study", "./cells.yaml", "--trials", "9")
    assert visited(grid)[:7] == some
    assert len(set(visited(grid))) == 9


def test_a_slot_keeps_its_cell_whatever_changes_here(grid: Path) -> None:
    """Otherwise a grid that is gone on with would leave cells out, and visit others again."""
    first, second, *_ = cells(load_definition(grid / "cells.yaml"))
    rest = {"mlp.activation": "relu", "optimizer": "sgd", "sgd.lr": 0.1}
    assert first == {"mlp.layers": 2, "mlp.width_0": 8, "mlp.width_1": 8, **rest}
    assert second == {"mlp.layers": 1, "mlp.width_0": 16, **rest}


def test_cells_come_in_waves_of_one_batch_size() -> None:
    """So that those who train side by side read the same batches, from the first to the last."""
    found = cells(load_definition(studies.find("fashion_mnist_grid")))
    sizes = [cell["training.batch_size"] for cell in found]
    changes = sum(before != after for before, after in itertools.pairwise(sizes))
    assert sizes.count(512) == sizes.count(1024) == 72
    assert changes < 2 * -(-72 // 16)
    first = found[:16]
    for name in ("mlp.activation", "optimizer", "mlp.input_dropout"):
        assert {cell[name] for cell in first} == {cell[name] for cell in found}


def test_more_trials_than_cells_are_refused(grid: Path) -> None:
    refused = here(grid, "optimize", "--study", "./cells.yaml", "--trials", "61", expect=2)
    assert "--set search.trials: 61 trials are more than the 60 cells" in refused.stderr
    assert not (grid / "hpo.db").exists()


def test_more_trials_than_cells_are_told_with_their_line(grid: Path) -> None:
    file = grid / "cells.yaml"
    text = file.read_text()
    assert "trials:" not in text
    file.write_text(text.replace("search: {", "search: {trials: 61, "))
    rows = file.read_text().splitlines()
    line = next(number for number, row in enumerate(rows, 1) if "search:" in row)
    for command in (["studies", "validate", "./cells.yaml"], ["optimize", "--study", file.name]):
        refused = here(grid, *command, expect=2)
        assert f"cells.yaml:{line}: search.trials: 61 trials are more than" in refused.stderr


def test_a_grid_that_nobody_can_visit_is_refused(grid: Path) -> None:
    change = "training.label_smoothing={float: [0.0, 0.9], step: 0.0005}"
    command = (grid, "optimize", "--study", "./cells.yaml", "--trials", "2", "--set", change)
    refused = here(*command, expect=2)
    assert "has 108060 cells, more than 100000; make ranges smaller" in refused.stderr


def test_a_continuous_range_is_refused_with_its_line(grid: Path) -> None:
    file = grid / "cells.yaml"
    file.write_text(
        file.read_text().replace("{float: [0.1, 0.3], step: 0.1}", "{float: [0.1, 0.3]}")
    )
    refused = here(grid, "optimize", "--study", "./cells.yaml", expect=2)
    assert "cells.yaml:7: optimizer.sgd.lr: float 0.1 to 0.3 is continuous" in refused.stderr
    assert "step" in refused.stderr


def test_a_study_does_not_become_a_grid_on_its_way(grid: Path) -> None:
    """A trial of a grid has its cell from its slot, so others would leave cells out."""
    command = (grid, "optimize", "--study", "./cells.yaml")
    here(*command, "--set", "search.sampler=random", "--trials", "1")
    refused = here(*command, "--trials", "2", expect=2)
    assert "search.sampler: was not a grid, is grid" in refused.stderr
    again = here(*command, "--set", "search.sampler=tpe", "--trials", "2")
    assert "2 of 2 trials finished" in again.stdout


def test_a_trial_of_folds_is_their_mean_and_the_winner_is_retrained_on_all_rows(
    grid: Path,
) -> None:
    here(grid, "optimize", "--study", "./cells.yaml", "--trials", "4")
    from optuna import load_study

    study = load_study(study_name="cells", storage=f"sqlite:///{grid}/hpo.db")
    for trial in study.trials:
        for record in trial.user_attrs["hpo:curve"]:
            assert len(record["folds"]) == 3
            assert record["accuracy"] == pytest.approx(sum(record["folds"]) / 3)
    winner = read(grid, "retrain-best", "--study", "cells")
    assert winner["test"]["n"] == 2
    assert winner["test"]["mean"] > 0.8


def test_a_plan_tells_of_the_folds(grid: Path) -> None:
    plan = here(grid, "optimize", "--study", "./cells.yaml", "--dry-run").stdout
    assert "60 trials" in plan
    assert "in each of 3 folds" in plan


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("{name: digits, folds: 3, validation: 0.2}", "`validation` cannot be given too"),
        ("{name: digits, folds: 1}", "there are 2 to 100 folds"),
        ("{name: digits, folds: {int: [2, 3]}}", "folds"),
    ],
)
def test_bad_folds_are_refused_with_their_line(grid: Path, dataset: str, sentence: str) -> None:
    file = grid / "cells.yaml"
    file.write_text(file.read_text().replace("{name: digits, folds: 3}", dataset))
    refused = here(grid, "optimize", "--study", "./cells.yaml", expect=2)
    assert "cells.yaml:2: dataset" in refused.stderr
    assert sentence in refused.stderr
    assert not (grid / "hpo.db").exists()


def test_another_number_of_folds_is_another_study(grid: Path) -> None:
    here(grid, "optimize", "--study", "./cells.yaml", "--trials", "1")
    refused = here(
        *(grid, "optimize", "--study", "./cells.yaml", "--trials", "2"),
        *("--set", "dataset.folds=4"),
        expect=2,
    )
    assert "dataset.validation: was 3 folds, is 4 folds" in refused.stderr
