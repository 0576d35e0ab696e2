"""`hpo optimize` and `hpo submit`: the budget, what they advise, and how little they may say."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

import hpo.search.storage
from hpo.search.storage import Storage, open_storage
from tests.commands import HPO, environment, here, start
from tests.watching import in_folder, until

from .conftest import Filler, Run

STUDY = """# studies/own.yaml: tiny networks
dataset: {name: digits}
model: {mlp: {widths: [4]}}
optimizer: {sgd: {lr: {float: [0.01, 0.1]}}}
training: {batch_size: 64, epochs: 2}
search: {trials: 2, sampler: random, pruner: none}
retrain: {finalists: 1, seeds: 1}
"""
WILD = STUDY.replace("{float: [0.01, 0.1]}", "{choice: [1.0e+37, 1.0e+38]}")
OTHER = ("--storage", "sqlite:///the other.db")


@pytest.fixture
def own() -> Path:
    """The study `own` of the working folder, with two trials."""
    file = Path("studies/own.yaml")
    file.parent.mkdir()
    file.write_text(STUDY)
    return file


def submitted(run: Run, *arguments: str) -> int:
    """The budget that the study has after `hpo submit`."""
    done = run("submit", "--study", "own", "--format", "json", *arguments)
    assert done.code == 0, done
    return int(json.loads(done.out)["budget"])


def last_line(text: str) -> str:
    return text.splitlines()[-1]


# --- the budget


@pytest.mark.parametrize(
    "nothing",
    [(), ("--set", "search={sampler: random, pruner: none}"), ("--set", "search.retries=1")],
)
def test_who_does_not_say_how_many_trials_leaves_a_larger_budget_alone(
    run: Run, own: Path, nothing: tuple[str, ...]
) -> None:
    assert submitted(run, "--trials", "120") == 120
    assert submitted(run, *nothing) == 120
    own.unlink()  # what is stored says so, too
    shown = run("studies", "show", "own", "--format", "json")
    assert json.loads(shown.out)["search"]["trials"] == 120
    assert submitted(run) == 120


@pytest.mark.parametrize(
    "fewer",
    [
        ("--trials", "3"),
        ("--set", "search.trials=3"),
        ("--set", "search={trials: 3, sampler: random, pruner: none}"),
    ],
)
def test_who_asks_for_fewer_trials_gets_fewer(run: Run, own: Path, fewer: tuple[str, ...]) -> None:
    submitted(run, "--trials", "9")
    assert submitted(run, *fewer) == 3
    assert submitted(run) == 3
    own.write_text(STUDY.replace("trials: 2", "trials: 5"))
    assert submitted(run) == 5


def test_a_file_whose_number_no_command_asked_for_changes_it_both_ways(
    run: Run, own: Path
) -> None:
    for trials in (5, 3, 4):
        own.write_text(STUDY.replace("trials: 2", f"trials: {trials}"))
        assert submitted(run) == trials


def test_a_dry_run_plans_what_would_run(run: Run, own: Path) -> None:
    plan = ("optimize", "--study", own.stem, "--dry-run")
    assert "study: own, 2 trials" in run(*plan).out
    submitted(run, "--trials", "120")
    assert "study: own, 120 trials" in run(*plan).out
    assert "study: own, 3 trials" in run(*plan, "--trials", "3").out
    assert submitted(run) == 120


def test_a_running_search_goes_on_to_the_budget_of_the_newest_command(own: Path) -> None:
    folder = Path.cwd()
    arguments = ("optimize", "--study", "own", "--population", "1", "--trials", "4")
    process = start(folder, *arguments, epochs_last=0.5)
    until(lambda: in_folder(folder).is_training())
    here(folder, "submit", "--study", "own")
    here(folder, "submit", "--study", "own", "--trials", "5")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "own: 5 of 5 trials finished (5 complete" in said


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_trials_that_have_begun_are_finished_where_fewer_are_asked_for(
    run: Run, quiet: tuple[str, ...]
) -> None:
    short = ["search.pruner=none", "training.epochs=1"]
    with open_storage("sqlite:///hpo.db") as storage:
        worker = Filler(storage, "digits", short, budget=3)
        for value in (0.5, 0.6):
            worker.finish(worker.begin(), TrialState.COMPLETE, value, [value], "finished")
        slot, _ = worker.begin()
        worker.ledger.release(worker.holder, [slot])
    changes = [word for change in ("search.sampler=random", *short) for word in ("--set", change)]
    command = ("optimize", "--study", "digits", "--trials", "2", *changes)
    done = run(*command, *quiet)
    assert done.code == 0, done
    said = "" if quiet else "3 trials have begun already; all of them are finished\n"
    assert done.err == said
    assert "digits: 3 of 3 trials finished" in done.out
    again = run(*command)
    assert again.out.startswith("digits: 3 trials have finished and 2 were asked for; nothing")


# --- what they advise


def test_the_advice_names_the_database_that_the_command_line_named(
    run: Run, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised = "hpo worker --storage 'sqlite:///the other.db', on any machine"
    assert advised in run("submit", "--study", "own", *OTHER).out
    done = run("optimize", "--study", "own", *OTHER)
    advised = "next: hpo retrain-best --study own --storage 'sqlite:///the other.db'"
    assert last_line(done.out) == advised
    # Whoever has it in the environment need not repeat it.
    monkeypatch.setenv("HPO_STORAGE", OTHER[1])
    done = run("optimize", "--study", "own", "--trials", "3")
    assert last_line(done.out) == "next: hpo retrain-best --study own"
    done = run("optimize", "--study", "own", "--storage", "sqlite:///hpo.db")
    assert last_line(done.out).endswith("--study own --storage sqlite:///hpo.db")


def test_the_advice_does_not_repeat_a_password(
    run: Run, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(url: str, **options: Any) -> Storage:
        assert "s3cr3t" in url
        return open_storage("sqlite:///hpo.db", **options)

    monkeypatch.setattr(hpo.search.storage, "open_storage", elsewhere)
    done = run("submit", "--study", "own", "--storage", "postgresql://ann:s3cr3t@host/db")
    assert "start workers with hpo worker (with the same --storage), on any" in done.out
    assert "s3cr3t" not in done.out + done.err


def test_where_every_trial_failed_more_are_advised(run: Run, own: Path) -> None:
    own.write_text(WILD)
    done = run("optimize", "--study", "own", "--storage", "sqlite:///other.db")
    assert "2 failed" in done.out
    advised = "hpo optimize --study own --trials 4 --storage sqlite:///other.db"
    assert last_line(done.out) == f"next: {advised}"
    refused = run("retrain-best", "--study", "own", "--storage", "sqlite:///other.db")
    assert refused.code == 1
    assert refused.err.endswith(f"no trial that trained to its end; run {advised} first\n")


def test_where_every_cell_of_a_grid_failed_no_more_are_advised(run: Run, own: Path) -> None:
    own.write_text(WILD.replace("sampler: random", "sampler: grid"))
    done = run("optimize", "--study", "own", "--trials", "1")
    assert last_line(done.out) == "next: hpo optimize --study own --trials 2"
    done = run("optimize", "--study", "own")
    assert "2 of 2 trials finished" in done.out
    assert last_line(done.out) == (
        "next: every cell of the grid failed or was pruned, so search other ranges under another "
        "--name"
    )
    refused = run("retrain-best", "--study", "own")
    assert refused.code == 1
    assert "every cell of the grid of study `own` failed" in refused.err


# --- how little they may say


def on_a_terminal(*arguments: str) -> str:
    """What a command says on a stderr that is a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*HPO, *arguments],
        env=environment(TERM="xterm"),
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    said = b""
    try:
        while some := os.read(master, 4096):
            said += some
    except OSError:  # how Linux says that nobody is left who could write
        pass
    os.close(master)
    assert process.wait() == 0, said
    return said.decode()


def test_quiet_draws_nothing_on_a_terminal_either(own: Path) -> None:
    assert on_a_terminal("optimize", "--study", "own")
    assert on_a_terminal("optimize", "--study", "own", "--trials", "3", "--quiet") == ""
    assert on_a_terminal("retrain-best", "--study", "own")
    assert on_a_terminal("retrain-best", "--study", "own", "--output", "new", "--quiet") == ""


def test_quiet_does_not_say_that_an_artifact_is_up_to_date(run: Run, own: Path) -> None:
    run("optimize", "--study", "own")
    run("retrain-best", "--study", "own")
    again = "results/own is up to date; the test set stays closed\n"
    assert run("retrain-best", "--study", "own").err == again
    assert run("retrain-best", "--study", "own", "--quiet").err == ""
