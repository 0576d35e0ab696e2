"""The benchmarks beside peers measure what they say, on a scale of seconds."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy, mark, peers, processes, rate, searches, sides, tutorial
from benchmarks.mark import Known, first_to_reach
from hpo.config import MlpConfig
from hpo.data import load_train
from hpo.data.tensors import ImageTensors

DIGITS = peers.Work("digits", validation=0.2, seed=0, epochs=6, rows=400)
NETWORK = {
    "n_layers": 2,
    **{f"n_units_l{layer}": 64 for layer in range(3)},
    **{f"dropout_l{layer}": 0.1 for layer in range(3)},
    "optimizer": "Adam",
    "lr": 3e-3,
}


def table(printed: str) -> list[list[str]]:
    """The cells of the rows below the head of a Markdown table."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_the_tutorials_rows_are_those_that_members_see() -> None:
    rows = load_train("digits")
    index, training = torch.arange(50, 60), torch.arange(200)
    seen = tutorial.PilRows(rows, index, normalized_by=training)
    examples = ImageTensors(rows, torch.device("cpu"))
    features, labels = examples.batch(index, examples.normalization(training), torch.float32)
    assert [label for _, label in seen] == labels.tolist()  # type: ignore[attr-defined]
    images = torch.stack([seen[place][0] for place in range(len(seen))])
    torch.testing.assert_close(images.flatten(1), features, rtol=1e-4, atol=1e-4)


def test_the_tutorials_loop_learns() -> None:
    values = list(peers.validation_accuracies(DIGITS, NETWORK))
    assert len(values) == 6
    assert values[0] < values[-1] > 0.6
    tests = peers.test_accuracies(DIGITS, NETWORK, seeds=2)
    assert all(0.6 < one <= 1 for one in tests)
    assert tests[0] != tests[1]


@pytest.mark.slow
def test_every_side_has_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--dataset digits --rows 300 --rounds 1 --members 1,2 --precisions float32,bfloat16"
    rate.main(words.split())
    printed = capsys.readouterr().out
    rows = {row[0]: row[1:] for row in table(printed)}
    precisions = ("float32", "bfloat16")
    populations = [f"population of {n}, {name}" for name in precisions for n in (1, 2)]
    assert list(rows) == [sides.TUTORIAL, sides.LOOP, *populations]
    assert all(float(row[0].replace(",", "")) > 0 for row in rows.values())
    assert rows[sides.TUTORIAL][1] == rows[sides.LOOP][2] == "1.00 (1.00 to 1.00)"
    assert "n = 1 epochs of 256 rows of digits on cpu, in 2 processes" in printed


@pytest.mark.slow
def test_a_process_that_cannot_start_ends_the_benchmark() -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        rate.main(["--dataset", "digits", "--rows", "300", "--precisions", "float31"])


@pytest.mark.parametrize("benchmark", [rate.main, accuracy.main])
def test_where_there_is_no_gpu_it_says_so(
    benchmark: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert callable(benchmark)
    with pytest.raises(SystemExit) as ended:
        benchmark(["--device", "cuda", "--dataset", "digits", "--rows", "1000"])
    assert ended.value.code == 2
    assert "there is no GPU" in capsys.readouterr().err


def test_a_member_and_its_twin_differ_by_their_dropout_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(sides.CONFIG.model, MlpConfig)
    dry = replace(sides.CONFIG, model=replace(sides.CONFIG.model, dropout=0.0))
    monkeypatch.setattr(accuracy, "CONFIG", dry)
    accuracy.main(["--dataset", "digits", "--rows", "1000", "--epochs", "2", "--seeds", "3"])
    [row] = table(capsys.readouterr().out)
    plain, population, difference = (float(cell.split(" +-")[0]) for cell in row[1:])
    assert row[0] == "float32"
    assert 60 < plain < 100
    assert abs(difference - (population - plain)) < 0.02  # they are rounded
    assert abs(difference) < 0.2  # two of 438 rows, of one seed of three


def known(*pairs: tuple[float, float, float]) -> tuple[list[Known], list[float]]:
    """Configs by seconds, validation and test accuracy; and the tests that were asked for."""
    asked: list[float] = []

    def config(seconds: float, value: float, test: float) -> Known:
        def retrain() -> list[float]:
            asked.append(test)
            return [test - 0.01, test + 0.01]

        return Known(seconds, value, retrain)

    return [config(*pair) for pair in pairs], asked


def reached(found: list[Known], value: float = 0.9) -> mark.Reached:
    return first_to_reach(found, value, 0.015, heard=lambda _: None)


def test_the_first_of_the_best_so_far_that_reaches_the_mark_sets_the_time() -> None:
    found, asked = known((30, 0.93, 0.92), (10, 0.89, 0.88), (20, 0.885, 0.95), (40, 0.94, 0.96))
    assert reached(found).seconds == 30
    assert asked == [0.88, 0.92]  # the third was never the best, the last came too late


def test_what_is_far_below_the_mark_is_not_retrained() -> None:
    found, asked = known((10, 0.88, 0.95), (20, 0.89, 0.89))
    assert reached(found) == mark.Reached(None, 0.89, [0.89 - 0.01, 0.89 + 0.01], 2)
    assert asked == [0.89]
    assert reached([]).seconds is None


@pytest.mark.slow
def test_the_time_to_the_mark_is_measured_on_hpo_and_the_tutorials_search(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = "--study digits --mark 0.5 --seeds 1 --trials 3 --set training.epochs=3"
    theirs = "--peers optuna:3 --rows 200 --epochs 1 --threads 1"
    mark.main([*ours.split(), *theirs.split()])
    first, second = table(capsys.readouterr().out)
    assert first[:3] == ["0", "hpo", "3"]
    assert float(first[3]) > 0
    assert float(first[6]) >= 50
    assert int(second[2]) >= 1
    assert second[4].endswith("or more") or float(second[4]) <= 3


@pytest.mark.slow
def test_a_mark_that_hpo_misses_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--study digits --mark 1.01 --seeds 1 --trials 1 --set training.epochs=1"
    mark.main([*words.split(), "--peers", "optuna:10"])
    [row] = table(capsys.readouterr().out)
    assert row[3:5] == ["not reached", ""]


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(SystemExit, match="there is no peer hyperopt; there are optuna, ray"):
        mark.main(["--peers", "hyperopt:5"])
    with pytest.raises(SystemExit, match="optuna has no limit; write optuna:5 for 5 times hpo's"):
        mark.main(["--peers", "optuna"])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra bench")
def test_ray_notes_every_trial_that_ended(tmp_path: Path) -> None:
    out = tmp_path / "trials.jsonl"
    until = time.time() + 40
    words = f"--dataset digits --validation 0.2 --seed 0 --epochs 4 --rows 200 --until {until}"
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.peer_search", "ray", *words.split()),
            *("--out", str(out)),
        ],
        cwd=processes.ROOT,
        env=searches.environment(),
        check=True,
        timeout=400,
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines
    assert all(set(line["config"]) == set(NETWORK) and 0 < line["value"] <= 1 for line in lines)
    assert len({json.dumps(line["config"]) for line in lines}) == len(lines)


@pytest.mark.slow
def test_searches_tell_what_came_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    searches.main(["--studies", "digits", "--trials", "2", "--set", "training.epochs=1"])
    [row] = table(capsys.readouterr().out)
    assert row[:3] == ["digits", "0", "2"]
    assert float(row[3]) > 0
    assert [sum(map(int, row[5:8])), row[7]] == [2, "0"]
    assert 0 < float(row[8]) <= 100
