"""Members that diverge, run out of memory or raise: F13 and F14 of the field notes.

What a member does is injected through `broken_members.py`, which replaces a class in a process of
its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import environment, here, read
from tests.watching import Study

BROKEN = Path(__file__).with_name("broken_members.py")
QUICK = """
dataset: {name: digits}
model: {mlp: {widths: [16], activation: {choice: [relu, tanh]}, dropout: {float: [0.0, 0.5]}}}
optimizer: {adam: {lr: {float: [1.0e-3, 1.0e-2], log: true}}}
training: {batch_size: 64, epochs: 3}
search: {trials: 12, pruner: none, sampler: random}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "quick.yaml").write_text(QUICK)
    return tmp_path


def broken(
    place: Path, fault: str, *arguments: str, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    """`hpo optimize` of the quick study with a fault in it."""
    done = subprocess.run(
        [sys.executable, str(BROKEN), fault, "optimize", "--study", "quick", *arguments],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def trials(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(place, "trials", "--study", "quick")
    return found


def url(place: Path) -> str:
    return f"sqlite:///{place}/hpo.db"


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_f13_what_diverges_fails_with_its_reason_and_is_never_the_best(
    place: Path, metric: str
) -> None:
    wild = "optimizer={sgd: {lr: {choice: [0.05, 1.0e+4, 1.0e+30]}, momentum: 0.9}}"
    here(
        place,
        "optimize",
        "--study",
        "quick",
        "--trials",
        "20",
        "--set",
        wild,
        "--set",
        f"search.metric={metric}",
    )
    Study(url(place)).assert_exactly(20)
    failed = [trial for trial in trials(place) if trial["state"] == "failed"]
    assert failed
    for trial in failed:
        assert "diverged in epoch" in trial["reason"]
        assert trial["epochs"] == int(trial["reason"].split("epoch ")[1].split(":")[0])
    best = read(place, "best", "--study", "quick")
    assert best["number"] not in {trial["number"] for trial in failed}


def test_f14_memory_that_is_short_in_company_is_enough_for_fewer(place: Path) -> None:
    done = broken(place, "memory-in-company", "--population", "8")
    assert "8 trials side by side ran out of memory; going on with 4 at a time" in done.stderr
    assert "4 trials side by side ran out of memory; going on with 2 at a time" in done.stderr
    Study(url(place)).assert_exactly(12)
    assert {trial["state"] for trial in trials(place)} == {"complete"}


def test_f14_a_trial_that_is_too_large_alone_fails_and_the_others_go_on(place: Path) -> None:
    broken(place, "memory-of-trial-3", "--population", "4")
    Study(url(place)).assert_exactly(12)
    states = {trial["number"]: trial for trial in trials(place)}
    assert states.pop(3)["reason"] == "out of memory, also on its own"
    assert {trial["state"] for trial in states.values()} == {"complete"}


def test_f14_memory_of_the_machine_that_is_really_short(place: Path) -> None:
    wide = ("--set", "model.mlp.widths=[1024, 1024]", "--set", "training.epochs=1")
    done = broken(place, "address-space", "--population", "4", "--trials", "4", *wide)
    assert "out of memory" in done.stderr
    Study(url(place)).assert_exactly(4)


def test_an_exception_is_tried_again_alone_and_then_fails_with_its_reason(place: Path) -> None:
    done = broken(place, "error-of-trial-3", "--population", "4")
    Study(url(place)).assert_exactly(12)
    states = {trial["number"]: trial for trial in trials(place)}
    assert states.pop(3)["reason"] == "RuntimeError: trial 3 is cursed (tried 3 times)"
    assert {trial["state"] for trial in states.values()} == {"complete"}
    assert done.stderr.count("cursed") == 4  # once in company, three times alone


def test_an_exception_that_passes_costs_nobody_anything(place: Path) -> None:
    broken(place, "error-once", "--population", "4")
    Study(url(place)).assert_exactly(12)
    assert {trial["state"] for trial in trials(place)} == {"complete"}
    values = {trial["number"]: trial["value"] for trial in trials(place)}
    here(place, "optimize", "--study", "quick", "--name", "well", "--population", "4")
    # The first four begin together; who follows joins when there is room, which differs.
    for trial in read(place, "trials", "--study", "well")[:4]:
        assert values[trial["number"]] == pytest.approx(trial["value"], abs=0.02)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_search_of_which_too_much_fails_stops_and_says_why(place: Path, workers: str) -> None:
    many = ("--trials", "60", "--set", "search.retries=0", "--workers", workers)
    wild = (
        *("--set", "optimizer={sgd: {lr: {choice: [1.0e+30, 2.0e+30]}}}"),
        *("--set", "model.mlp.widths=[16, 16]", "--set", "model.mlp.activation=relu"),
    )
    stopped = here(place, "optimize", "--study", "quick", *wild, *many, expect=1)
    assert "search.max_failed" in stopped.stderr
    assert "diverged in epoch 1" in stopped.stderr
    status = read(place, "status", "--study", "quick")
    assert 10 <= status["failed"] < 60
    assert status["running"] == 0
    # Asked again, it tries again.
    here(place, "optimize", "--study", "quick", *wild, *many, expect=1)
    assert read(place, "status", "--study", "quick")["failed"] > status["failed"]


def test_a_trial_that_kills_its_workers_fails_in_the_end(place: Path) -> None:
    """Each worker dies without a word, as under the kernel's memory killer."""
    for _ in range(40):
        done = subprocess.run(
            [sys.executable, str(BROKEN), "death-of-trial-3", "optimize", "--study", "quick"],
            cwd=place,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
    Study(url(place)).assert_exactly(12)
    states = {trial["number"]: trial for trial in trials(place)}
    assert "6 workers in a row died" in states.pop(3)["reason"]
    assert {trial["state"] for trial in states.values()} == {"complete"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_trials(place: Path) -> None:
    done = broken(place, "watch-memory", "--trials", "220", "--population", "4")
    early, late = (int(word) for word in done.stdout.split("resident: ")[1].split()[:2])
    assert late - early < 60 * 2**20, (early, late)
