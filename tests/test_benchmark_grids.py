"""The benchmarks of grids, growth, quality and fullness count rightly, and run when made small."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest
import torch

import hpo.grid
from benchmarks import fullness, grid, growth, growth_rules, quality, quality_tables
from benchmarks.fullness import Stay
from benchmarks.search_runs import TrialRun
from hpo import studies
from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import load_train
from hpo.data.tensors import ImageTensors
from hpo.definition import load_definition
from hpo.training.population import Member, Population
from hpo.training.streams import Stream
from hpo.training.task import Task


@pytest.fixture(scope="module")
def task() -> Task:
    examples = ImageTensors(load_train("digits"), torch.device("cpu"))
    return Task(examples, 10, examples.normalization(torch.arange(len(examples))))


def rows(shown: str, first: str) -> list[list[str]]:
    """The cells of a table's rows that begin so."""
    lines = [line for line in shown.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


# --- grid


SMALL = (
    *("--set", "dataset.name=digits", "--set", "training.epochs=2"),
    *("--set", "training.batch_size=64"),
)


def test_the_study_has_144_cells_and_the_published_one_is_among_them() -> None:
    cells = hpo.grid.cells(load_definition(studies.find("fashion_mnist_grid")))
    assert len(cells) == 144
    assert grid.PUBLISHED in cells


def test_the_grid_is_timed_and_its_cells_are_ranked(capfd: pytest.CaptureFixture[str]) -> None:
    grid.main([*SMALL, "--trials", "5", "--sample", "0", "--workers", "1"])
    shown = capfd.readouterr().out
    [timed] = rows(shown, "hpo")
    assert float(timed[1]) > 0
    ranked = rows(shown, "1 of 5") + rows(shown, "5 of 5")
    best, worst = (float(row[2].split()[0]) for row in ranked)
    assert 100 >= best >= worst > 0


@pytest.mark.slow
def test_the_grid_is_timed_beside_scikit_learn(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skorch")
    grid.main([*SMALL, "--trials", "3", "--sample", "2"])
    shown = capfd.readouterr().out
    [own], [peer], [ratio] = (rows(shown, name) for name in ("hpo", "GridSearchCV", "ratio"))
    expected = float(peer[1].split()[0]) / float(own[1])
    assert float(ratio[1].split()[0]) == pytest.approx(expected, abs=0.06 + 0.01 * expected)
    assert "On the 2 sampled cells" in shown


# --- growth


def test_the_cost_of_every_point_is_measured_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    growth.main(
        [
            *("--dataset", "digits", "--members", "1,3", "--widths", "16,32"),
            *("--batches", "32,4096", "--seconds", "0.01", "--rounds", "2"),
            *("--out", str(tmp_path)),
        ]
    )
    facts = json.loads((tmp_path / "growth_cpu.json").read_text())
    points = {(p["members"], p["width"], p["batch"]): p for p in facts["points"]}
    assert len(points) == 8
    for (_, _, batch), point in points.items():
        if batch == 4096:  # more rows than digits has
            assert point["seconds"] is None
        else:
            assert point["seconds"] == pytest.approx(fmean(point["rounds"]))
            assert min(point["rounds"]) > 0
    assert points[3, 16, 32]["memory"] == 3 * points[1, 16, 32]["memory"]
    assert (tmp_path / "growth_cpu.html").stat().st_size > 0
    assert len(rows(capsys.readouterr().out, "16")) == 2


def test_a_parameter_count_is_that_of_the_network(task: Task, tmp_path: Path) -> None:
    growth.main(
        [
            *("--dataset", "digits", "--members", "1", "--widths", "24", "--batches", "32"),
            *("--seconds", "0.01", "--rounds", "1", "--out", str(tmp_path)),
        ]
    )
    [point] = json.loads((tmp_path / "growth_cpu.json").read_text())["points"]
    config = _config(24)
    population = Population(task, Stream(torch.arange(64), 32, 0))
    member = Member(0, config, 0)
    population.add([member])
    state = population.state(member)
    trained = [value.numel() for name, value in state.items() if "running" not in name]
    assert point["parameters"] == sum(trained)


def test_what_takes_too_long_is_left_out(task: Task) -> None:
    assert growth.measure(task, 1, _config(16), seconds=0.01, longest=0.0) is None
    assert (growth.measure(task, 1, _config(16), seconds=0.01, longest=60.0) or 0) > 0


def _config(width: int) -> TrialConfig:
    return TrialConfig(
        model=MlpConfig(widths=(width, width), batch_norm=True, dropout=0.2),
        optimizer=OptimizerConfig(name="adam", lr=1e-3),
        batch_size=32,
    )


# --- quality


def trial(began: float, ended: float | None, *reports: tuple[float, float]) -> TrialRun:
    return TrialRun(began, ended, reports)


def test_the_best_so_far_is_by_number_by_report_and_by_end() -> None:
    run = [
        trial(0.0, 5.0, (1.0, 0.5), (4.0, 0.75)),
        trial(0.0, 2.0, (1.5, 0.25)),
        trial(2.0, 2.5),
        trial(2.5, None, (6.0, 0.875)),
    ]
    by_trials = [quality_tables.at_trials(run, count) for count in (1, 3, 4, 5)]
    assert by_trials == [75, 75, None, None]
    by_seconds = [quality_tables.at_seconds(run, at) for at in (0.9, 1.0, 3.9, 4.0, 100.0)]
    assert by_seconds == [None, 50, 50, 75, 87.5]
    ended = [quality_tables.ended_at_seconds(run, at) for at in (1.9, 2.0, 5.0, 100.0)]
    assert ended == [None, 25, 75, 75]


def test_the_tables_have_means_errors_and_gaps_by_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs: quality_tables.Runs = {
        "random": [[trial(0.0, 1.0, (1.0, 0.80))], [trial(0.0, 2.0, (2.0, 0.90))]],
        "hpo, auto": [[trial(0.0, 1.0, (1.0, 0.82))], [trial(0.0, 1.0, (0.2, 0.92))]],
    }
    quality_tables.show(runs, 1)
    shown = capsys.readouterr().out
    of_random = [row[1] for row in rows(shown, "random")]
    assert of_random == ["85.00 +- 5.00", "-", "-", "1"]
    assert rows(shown, "hpo, auto, less random")[0][1] == "+2.00 +- 0.00"


@pytest.mark.slow
def test_all_four_search_and_are_not_run_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = ["--datasets", "digits", "--seeds", "1", "--trials", "3"]
    asked = [*small, "--set", "training.epochs=2", "--out", str(tmp_path)]
    quality.main(asked)
    kept = (tmp_path / "quality.jsonl").read_text()
    runs = {row["job"]["contestant"]: row["run"] for row in map(json.loads, kept.splitlines())}
    assert sorted(runs) == sorted(quality_tables.CONTESTANTS)
    for run in runs.values():
        assert len(run) == 3
        for each in run:
            moments = [each["began"], *(at for at, _ in each["reports"]), each["ended"]]
            assert moments == sorted(moments)
            assert each["reports"]
            assert all(0 < value <= 1 for _, value in each["reports"])
    capfd.readouterr()
    quality.main(asked)
    assert (tmp_path / "quality.jsonl").read_text() == kept
    assert len(rows(capfd.readouterr().out, "optuna")) == 4


# --- fullness


def stay(start: float, end: float, memory: int = 1, worker: str = "a") -> Stay:
    return Stay(worker, start, end, memory, training=end - start)


def test_fullness_is_averaged_until_the_last_trial_begins() -> None:
    found = fullness.fullness([stay(0, 10), stay(0, 4), stay(8, 20)], members=2, memory=100)
    # Two run for 4 s, one for 4 s, and then the last joins.
    assert found.share == pytest.approx((2 * 4 + 1 * 4) / (2 * 8))
    assert found.running == pytest.approx(12 / 8)
    assert found.seconds == (8, 20)
    assert found.training == pytest.approx(26 / 20)


def test_whom_the_memory_does_not_bear_is_not_missed() -> None:
    stays = [stay(0, 10, memory=60), stay(10, 20, memory=60)]
    assert fullness.fullness(stays, members=2, memory=100).share == 1
    assert fullness.fullness(stays, members=2, memory=120).share == pytest.approx(0.5)


def test_every_worker_is_to_be_full() -> None:
    stays = [stay(0, 10), stay(0, 5, worker="b"), stay(10, 12)]
    assert fullness.fullness(stays, members=1, memory=100).share == pytest.approx(15 / 20)


def test_the_database_and_the_training_loop_agree_on_who_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--study", "digits", "--trials", "10", "--population", "3", "--cross-check"]
    fullness.main([*small, "--set", "training.epochs=4"])
    shown = capsys.readouterr().out
    [database], [loop] = rows(shown, "by the database"), rows(shown, "by the training loop")
    assert 0 < float(loop[1]) <= float(database[1]) + 10
    assert 0 < float(database[1]) <= 100
    assert database[2].endswith("of 3")


@pytest.mark.slow
def test_the_fullness_of_hpo_optimize_is_read_from_its_database(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fullness.main(
        [
            *("--study", "digits", "--trials", "6", "--population", "2"),
            *("--set", "training.epochs=2"),
        ]
    )
    [database] = rows(capsys.readouterr().out, "by the database")
    assert 0 < float(database[1]) <= 100


def test_a_rule_loses_what_its_choice_takes_longer_than_the_best() -> None:
    point = {"batch": 64, "parameters": 10, "memory": 0}
    points = [
        {**point, "members": members, "width": width, "seconds": seconds}
        for width, members, seconds in (
            *((128, 1, 4.0), (128, 2, 2.0), (128, 4, 1.0)),
            *((256, 1, 3.0), (256, 2, 6.0), (256, 4, None)),
        )
    ]
    losses = {loss.rule: loss for loss in growth_rules.losses_of(points)}
    assert losses["2 members"].worst == pytest.approx(2)
    assert losses["2 members"].mean == pytest.approx(2)
    assert losses["256 units a layer"].mean == pytest.approx(2**0.5)
    assert losses["256 units a layer"].members == pytest.approx(1.5)
