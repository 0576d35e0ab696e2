"""The whole job through its commands: search, resume, retrain; real data, a real database."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from hpo.config import TrialConfig
from hpo.data import load_test
from hpo.models.alone import build_module
from tests.commands import HPO, here, hpo, read, start
from tests.watching import in_folder, until, write_slow_study

TRIALS = "10"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the digits study was searched with ten trials and retrained."""
    folder = tmp_path_factory.mktemp("digits")
    hpo(folder, "optimize", "--study", "digits", "--trials", TRIALS)
    hpo(folder, "retrain-best", "--study", "digits", "--format", "json")
    return folder


@pytest.fixture
def slow_study(tmp_path: Path) -> Path:
    """A folder with a study that trains long enough to be interrupted, and prunes nothing."""
    return write_slow_study(tmp_path)


def outcomes(folder: Path, study: str = "digits") -> list[tuple[Any, ...]]:
    trials = read(folder, "trials", "--study", study)
    return [(t["number"], t["state"], t["value"], t["params"], t["epochs"]) for t in trials]


def test_status_counts_exactly_what_was_asked_for(finished: Path) -> None:
    status = read(finished, "status", "--study", "digits")
    assert status["budget"] == status["finished"] == int(TRIALS)
    assert status["complete"] + status["pruned"] + status["failed"] == int(TRIALS)
    assert status["running"] == status["waiting"] == 0
    trials = {trial["number"]: trial for trial in read(finished, "trials", "--study", "digits")}
    best = trials[status["best_trial"]]
    assert best["value"] == status["best_value"]
    assert best["params"] == status["best_params"]
    complete = [trial["value"] for trial in trials.values() if trial["state"] == "complete"]
    assert best["value"] == max(complete)


def test_every_trial_says_what_it_was_and_what_became_of_it(finished: Path) -> None:
    for trial in read(finished, "trials", "--study", "digits"):
        assert trial["epochs"] >= 1
        assert 0 < trial["train_seconds"] < trial["total_seconds"]
        assert trial["worker"]
        assert trial["device"]
        assert trial["reason"]
        assert 0 <= trial["value"] <= 1
    best = read(finished, "best", "--study", "digits")
    assert (
        TrialConfig.from_dict(best["config"]).batch_size == best["params"]["training.batch_size"]
    )


def test_asked_again_it_does_nothing_and_says_so(finished: Path) -> None:
    before = outcomes(finished)
    again = here(finished, "optimize", "--study", "digits", "--trials", TRIALS)
    assert "nothing to do" in again.stdout
    assert outcomes(finished) == before


def test_the_artifact_is_whole_and_its_numbers_are_true(finished: Path) -> None:
    folder = finished / "results" / "digits"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"study", "winner", "params", "validation", "test", "artifact"} <= metrics.keys()
    test = metrics["test"]
    assert test["n"] == len(test["values"]) == 5
    assert test["mean"] == pytest.approx(np.mean(test["values"]))
    assert test["std"] == pytest.approx(np.std(test["values"], ddof=1))
    low, high = stats.t.interval(0.95, 4, test["mean"], test["std"] / math.sqrt(5))
    assert test["ci95"] == pytest.approx([low, high])

    data = json.loads((folder / "config.json").read_text())
    extra = {"trained_epochs", "image_shape", "classes", "normalization", "seeds"}
    config = TrialConfig.from_dict({k: v for k, v in data.items() if k not in extra})
    rows = load_test("digits")
    features = torch.from_numpy(np.array(rows.images)).float().flatten(1)
    features = (features - data["normalization"]["mean"][0]) / data["normalization"]["std"][0]
    for place, value in enumerate(test["values"]):
        model = build_module(config.model, data["image_shape"], data["classes"]).eval()
        state = load_file(folder / "seeds" / f"{place}.safetensors")
        model.load_state_dict(state, strict=False)
        right = (model(features).argmax(1).numpy() == rows.labels).mean()
        assert right == pytest.approx(value)
    assert (folder / "model.safetensors").read_bytes() == (
        folder / "seeds" / "0.safetensors"
    ).read_bytes()
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["torch"] == torch.__version__


def test_the_test_set_stays_closed_while_nothing_has_changed(finished: Path) -> None:
    model = finished / "results" / "digits" / "model.safetensors"
    written = model.stat().st_mtime_ns
    again = here(finished, "retrain-best", "--study", "digits", "--format", "json")
    assert "stays closed" in again.stderr
    metrics = json.loads((finished / "results" / "digits" / "metrics.json").read_text())
    assert json.loads(again.stdout)["test"] == metrics["test"]
    assert model.stat().st_mtime_ns == written


def test_an_artifact_that_was_moved_is_named_where_it_lies(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "results").rename(folder / "final")
    again = here(folder, "retrain-best", "--study", "digits", "--output", "final")
    assert "stays closed" in again.stderr
    assert again.stdout.endswith("artifact: final/digits\n")


def test_asking_for_fewer_trials_does_not_open_the_test_set_again(finished: Path) -> None:
    here(finished, "optimize", "--study", "digits", "--trials", "5")
    again = here(finished, "retrain-best", "--study", "digits")
    assert "stays closed" in again.stderr
    assert not (finished / "results" / "digits.1").exists()


def test_a_longer_search_makes_a_new_artifact_and_keeps_the_old(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    here(folder, "optimize", "--study", "digits", "--trials", "12")
    here(folder, "retrain-best", "--study", "digits")
    assert (folder / "results" / "digits" / "metrics.json").exists()
    assert (folder / "results" / "digits.1" / "metrics.json").exists()
    assert len(outcomes(folder)) == 12


def test_one_worker_and_one_seed_give_the_same_trials_and_values(
    finished: Path, tmp_path: Path
) -> None:
    here(tmp_path, "optimize", "--study", "digits", "--trials", TRIALS)
    assert outcomes(tmp_path) == outcomes(finished)
    other = here(
        tmp_path,
        "optimize",
        "--study",
        "digits",
        "--name",
        "other",
        "--seed",
        "1",
        "--trials",
        "4",
    )
    assert other.returncode == 0
    assert outcomes(tmp_path, "other") != outcomes(finished)[:4]


def test_a_search_in_two_parts_has_each_trial_once(tmp_path: Path) -> None:
    here(tmp_path, "optimize", "--study", "digits", "--trials", "3")
    here(tmp_path, "optimize", "--study", "digits", "--trials", "6")
    assert [number for number, *_ in outcomes(tmp_path)] == list(range(6))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_hands_back_what_runs_and_the_search_resumes(
    slow_study: Path, number: signal.Signals
) -> None:
    process = start(slow_study, "optimize", "--study", "slow", epochs_last=0.5)
    until(lambda: in_folder(slow_study).is_training())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    status = read(slow_study, "status", "--study", "slow")
    assert status["running"] == 0
    assert status["waiting"] > 0
    begun = {trial["number"] for trial in read(slow_study, "trials", "--study", "slow")}
    here(slow_study, "optimize", "--study", "slow")
    status = read(slow_study, "status", "--study", "slow")
    assert status["finished"] == status["complete"] == 6
    resumed = outcomes(slow_study, "slow")
    assert begun <= {trial[0] for trial in resumed} == set(range(6))
    # A trial that is taken over begins again where it began, so it comes to the same.
    here(slow_study, "optimize", "--study", "slow", "--name", "unbroken")
    for trial, other in zip(resumed, outcomes(slow_study, "unbroken"), strict=True):
        assert trial[3] == other[3]
        assert trial[2] == pytest.approx(other[2], abs=0.01)


def test_two_signals_end_it_at_once(slow_study: Path) -> None:
    process = start(slow_study, "optimize", "--study", "slow", "--set", "training.epochs=100000")
    until(lambda: in_folder(slow_study).is_training())
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143)


def test_a_killed_search_goes_on_at_once_with_the_same_trials(slow_study: Path) -> None:
    lease = ("--lease", "3600")
    process = start(slow_study, "optimize", "--study", "slow", *lease, epochs_last=0.5)
    until(lambda: in_folder(slow_study).is_training())
    process.kill()
    process.communicate()
    # The lease has an hour to go, but its holder is known to be dead.
    here(slow_study, "optimize", "--study", "slow")
    status = read(slow_study, "status", "--study", "slow")
    assert status["finished"] == status["complete"] == 6
    assert len(outcomes(slow_study, "slow")) == 6


def test_the_time_limit_stops_and_the_rest_is_done_later(slow_study: Path) -> None:
    arguments = ("--study", "slow", "--set", "training.epochs=100000", "--trials", "2")
    stopped = here(slow_study, "optimize", *arguments, "--timeout", "2")
    assert "the time is up" in stopped.stdout
    assert read(slow_study, "status", "--study", "slow")["finished"] < 2


def test_same_parameters_are_not_trained_twice(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "dataset: {name: digits}\n"
        "model: {mlp: {widths: [16], activation: {choice: [relu, tanh]}}}\n"
        "optimizer: {adam: {lr: 0.01}}\n"
        "training: {batch_size: 32, epochs: 2}\n"
    )
    here(tmp_path, "optimize", "--study", "./tiny.yaml", "--trials", "12", "--population", "1")
    trials = read(tmp_path, "trials", "--study", "tiny")
    trained = [trial for trial in trials if trial["epochs"] > 0]
    assert len(trials) == 12
    assert len(trained) == 2
    values = {trial["params"]["mlp.activation"]: trial["value"] for trial in trained}
    for trial in trials:
        assert trial["value"] == values[trial["params"]["mlp.activation"]]
        assert trial["epochs"] > 0 or "same parameters as trial" in trial["reason"]


def test_time_runs_out_also_where_nothing_is_left_to_train(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "dataset: {name: digits}\n"
        "model: {mlp: {widths: [8]}}\n"
        "optimizer: {adam: {lr: 0.01}}\n"
        "training: {batch_size: 64, epochs: 1}\n"
        "search: {sampler: random}\n"
    )
    many = ("--study", "one.yaml", "--trials", "20000")
    stopped = here(tmp_path, "optimize", *many, "--timeout", "6")
    assert "the time is up" in stopped.stdout
    status = read(tmp_path, "status", "--study", "one")
    assert 1 < status["finished"] < 20000
    assert here(tmp_path, "best", "--study", "one", "--format", "json").stdout


def test_a_smaller_budget_finishes_what_has_begun(slow_study: Path) -> None:
    process = start(slow_study, "optimize", "--study", "slow", epochs_last=0.5)
    until(lambda: len(in_folder(slow_study).running()) > 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    begun = len(outcomes(slow_study, "slow"))
    done = here(slow_study, "optimize", "--study", "slow", "--trials", "2")
    assert f"{begun} of {begun} trials finished" in done.stdout


def test_retrain_asks_for_its_place_before_it_works(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = f"sqlite:///{finished}/hpo.db"
    place = ("--output", str(tmp_path / "file"))
    refused = here(
        tmp_path, "retrain-best", "--study", "digits", "--storage", storage, *place, expect=74
    )
    assert "finalist" not in refused.stderr


def test_a_diverged_member_fails_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "wild.yaml").write_text(
        "dataset: {name: digits}\n"
        "model: {mlp: {widths: [16, 16]}}\n"
        "optimizer: {sgd: {lr: {choice: [0.05, 1.0e+30]}}}\n"
        "training: {batch_size: 32, epochs: 3}\n"
        "search: {trials: 8, pruner: none, sampler: random}\n"
    )
    here(tmp_path, "optimize", "--study", "wild.yaml")
    trials = read(tmp_path, "trials", "--study", "wild")
    failed = [trial for trial in trials if trial["state"] == "failed"]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert len(failed) + len(complete) == 8
    assert failed
    assert all(t["params"]["sgd.lr"] == 1e30 and "diverged" in t["reason"] for t in failed)
    assert all(t["params"]["sgd.lr"] == 0.05 and t["value"] > 0.5 for t in complete)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    shown = here(tmp_path, "optimize", "--study", "digits", "--dry-run").stdout
    assert "mlp.layers: int 1 to 3" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_study_goes_on_from_the_database_alone(slow_study: Path) -> None:
    here(slow_study, "optimize", "--study", "slow", "--trials", "1")
    (slow_study / "studies" / "slow.yaml").unlink()
    here(slow_study, "optimize", "--study", "slow", "--trials", "2")
    assert read(slow_study, "status", "--study", "slow")["finished"] == 2


BAD_INPUT: list[tuple[list[str], int, str]] = [
    (["--study", "mnits"], 2, "did you mean `mnist`"),
    (["--study", "digits", "--trials", "0"], 2, "--trials: 0"),
    (["--study", "digits", "--trials", "-3"], 2, "--trials: -3"),
    (
        ["--study", "digits", "--set", "training.batch_size=5000"],
        2,
        "larger than the 1150 training",
    ),
    (["--study", "digits", "--set", "model.mlp.dropout={float: [0.6, 0.1]}"], 2, "0.6"),
    (["--study", "digits", "--set", "dataset.name=digitz"], 2, "digits"),
    (["--study", "digits", "--population", "0"], 2, "--population: 0"),
    (["--study", "digits", "--storage", "sqlite:////proc/nowhere/hpo.db"], 74, "/proc/nowhere"),
    (["--study", "digits", "--storage", "oracle://u:s3cr3t@h/d"], 69, "oracle"),
    (["--study", "digits", "--name", "../x"], 2, "../x"),
    (["--study", "digits", "--set", "training.device=cuda:7"], 2, "cuda:7"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD_INPUT, ids=lambda value: str(value))
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    result = here(tmp_path, "optimize", *arguments, expect=code)
    assert words in result.stderr
    assert "s3cr3t" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_changed_space_is_refused_with_its_differences(tmp_path: Path) -> None:
    here(tmp_path, "optimize", "--study", "digits", "--trials", "1")
    before = outcomes(tmp_path)
    changed = ("--set", "model.mlp.dropout={float: [0.0, 0.2]}")
    refused = here(tmp_path, "optimize", "--study", "digits", *changed, expect=2)
    assert "mlp.dropout" in refused.stderr
    assert "--name" in refused.stderr
    assert outcomes(tmp_path) == before
    here(tmp_path, "optimize", "--study", "digits", *changed, "--name", "new", "--trials", "1")


def test_retrain_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    absent = here(tmp_path, "retrain-best", "--study", "digits", expect=69)
    assert "hpo.db" in absent.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_artifact(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text(
        "dataset: {name: digits}\n"
        "model: {mlp: {widths: [1024, 1024]}}\n"
        "optimizer: {adam: {lr: 0.001}}\n"
        "training: {batch_size: 256, epochs: 1}\n"
        "retrain: {finalists: 1, seeds: 1}\n"
    )
    here(tmp_path, "optimize", "--study", "large.yaml", "--trials", "1")
    command = 'ulimit -f 2048; exec "$@"'  # 2 MiB: enough for the database, not for the weights
    result = subprocess.run(
        ["bash", "-c", command, "bash", *HPO, "retrain-best", "--study", "large"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 74, result.stderr
    assert "results/large" in result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.slow
def test_mnist_passes_97_percent_in_a_short_real_run(tmp_path: Path) -> None:
    short = ("--trials", "4", "--set", "training.epochs=4", "--set", "retrain.finalists=1")
    narrow = ("--set", "model.mlp.width={int: [128, 256], log: true}", "--set", "retrain.seeds=2")
    here(tmp_path, "optimize", "--study", "mnist", *short, *narrow)
    result = read(tmp_path, "retrain-best", "--study", "mnist")
    assert result["test"]["mean"] > 0.97
    assert result["test"]["n"] == 2
