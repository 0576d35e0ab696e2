from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.search.storage import open_storage
from hpo.search.study import DEFINITION

from .conftest import STUDY, Filler, Run, hpo

STATUS = "study budget finished complete pruned failed running waiting best_trial best_value "
STATUS += "best_params"
TRIAL = "number state value params epochs train_seconds total_seconds worker device reason"


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- status


def test_status_of_a_study_is_an_object_with_the_promised_fields(run: Run, database: str) -> None:
    done = run("status", "--study", "digits", "--storage", database, "--format", "json")
    assert done.code == 0
    found = json.loads(done.out)
    assert list(found) == STATUS.split()
    counts = {key: found[key] for key in STATUS.split()[1:8]}
    assert counts == {
        "budget": 12,
        "finished": 5,
        "complete": 3,
        "pruned": 1,
        "failed": 1,
        "running": 1,
        "waiting": 2,
    }
    assert found["study"] == "digits"
    assert (found["best_trial"], found["best_value"]) == (1, 0.95)
    assert "mlp.layers" in found["best_params"]


@pytest.mark.parametrize("study", ["digits", "fresh", "loss"])
def test_status_trials_and_best_agree(run: Run, database: str, study: str) -> None:
    where = ["--study", study, "--storage", database, "--format", "json"]
    status = json.loads(run("status", *where).out)
    states = [trial["state"] for trial in json.loads(run("trials", *where).out)]
    for state in ("complete", "pruned", "failed", "running", "waiting"):
        assert status[state] == states.count(state)
    if status["complete"]:
        best = json.loads(run("best", *where).out)
        assert [status[f"best_{key}"] for key in ("trial", "value", "params")] == [
            best[key] for key in ("number", "value", "params")
        ]


def test_a_lower_loss_is_better(run: Run, database: str) -> None:
    found = json.loads(
        run("status", "--study", "loss", "--storage", database, "--format", "json").out
    )
    assert (found["best_trial"], found["best_value"]) == (1, 0.25)


def test_status_without_a_study_lists_all_of_hpo(run: Run, database: str) -> None:
    found = json.loads(run("status", "--storage", database, "--format", "json").out)
    assert [one["study"] for one in found] == ["digits", "fresh", "loss"]
    fresh = found[1]
    assert fresh["budget"] == 3
    assert fresh["finished"] == 0
    assert (fresh["best_trial"], fresh["best_value"], fresh["best_params"]) == (None, None, None)


@pytest.mark.parametrize("repair", [[], ["--repair"]])
def test_status_warns_of_a_study_that_it_cannot_read_and_shows_the_others(
    run: Run, repair: list[str]
) -> None:
    with open_storage("sqlite:///hpo.db") as storage:
        for name in ("first", "newer", "last"):
            study = Filler(storage, name, [], budget=2).study
            if name == "newer":
                study.set_user_attr(DEFINITION, '{"name": "newer", "warp": 9}')
        optuna.create_study(storage=storage.optuna, study_name="stock")
    done = run("status", "--format", "json", *repair)
    assert done.code == 0
    assert [one["study"] for one in json.loads(done.out)] == ["first", "last"]
    *others, warning = done.err.splitlines()
    assert warning.startswith("warning: study `newer` is left out: this version of hpo cannot")
    assert [line.split(":")[0] for line in others] == (["first", "last"] if repair else [])
    assert run("status", "--study", "newer").code == 2


def test_status_as_csv_and_as_a_table(run: Run, database: str) -> None:
    rows = table(run("status", "--storage", database, "--format", "csv").out)
    assert [row["finished"] for row in rows] == ["5", "0", "2"]
    assert rows[0]["best_param.mlp.layers"]
    assert rows[1]["best_param.mlp.layers"] == ""
    for arguments in ([], ["--study", "digits"]):
        done = run("status", "--storage", database, *arguments)
        assert done.code == 0
        assert "digits" in done.out
        assert "0.95" in done.out


def test_the_storage_comes_from_the_environment(
    run: Run, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_STORAGE", database)
    assert json.loads(run("status", "--format", "json").out)[0]["study"] == "digits"
    elsewhere = run("status", "--storage", "sqlite:///elsewhere.db")
    assert elsewhere.code == 69
    assert "sqlite:///elsewhere.db" in elsewhere.err


def test_the_default_storage_is_a_file_in_the_working_folder(run: Run, database: str) -> None:
    Path("hpo.db").symlink_to(database.removeprefix("sqlite:///"))
    assert run("status", "--study", "digits").code == 0


# --- trials


def trials(run: Run, database: str, *arguments: str) -> list[dict[str, Any]]:
    done = run(
        "trials", "--study", "digits", "--storage", database, "--format", "json", *arguments
    )
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_trials_have_the_promised_fields(run: Run, database: str) -> None:
    found = trials(run, database)
    assert all(list(trial) == TRIAL.split() for trial in found)
    assert [trial["number"] for trial in found] == list(range(8))
    states = ["complete"] * 3 + ["pruned", "failed", "running", "waiting", "waiting"]
    assert [trial["state"] for trial in found] == states
    assert found[0]["train_seconds"] == 1.5
    assert found[0]["total_seconds"] == 2.25
    assert found[0]["device"] == "cpu"
    assert found[0]["worker"].count(":") == 2
    assert found[4]["reason"] == "diverged in epoch 1"


def test_a_trial_without_a_result_says_what_is_known(run: Run, database: str) -> None:
    found = trials(run, database)
    assert found[3]["value"] == 0.6  # the best epoch of a pruned trial
    assert found[4]["value"] is None
    assert (found[5]["epochs"], found[5]["value"], found[5]["reason"]) == (2, 0.7, None)
    assert found[6]["epochs"] == 0


def test_trials_are_filtered_sorted_and_cut(run: Run, database: str) -> None:
    def numbers(*arguments: str) -> list[int]:
        return [trial["number"] for trial in trials(run, database, *arguments)]

    assert numbers("--state", "pruned", "--state", "failed") == [3, 4]
    assert numbers("--sort", "value") == [1, 2, 0, 5, 3, 4, 6, 7]
    assert numbers("--sort", "value", "--state", "complete", "--limit", "2") == [1, 2]
    assert run("trials", "--study", "digits", "--limit", "0").code == 2


def test_trials_as_csv_have_a_column_a_parameter(run: Run, database: str) -> None:
    done = run("trials", "--study", "digits", "--storage", database, "--format", "csv")
    rows = table(done.out)
    same = trials(run, database)
    assert [row["param.optimizer"] for row in rows] == [t["params"]["optimizer"] for t in same]
    assert float(rows[0]["value"]) == 0.9
    assert rows[4]["value"] == ""
    assert not any(key == "params" for key in rows[0])


def test_a_table_without_rows_is_a_sentence(run: Run, database: str) -> None:
    assert "no such trial" in run("trials", "--study", "fresh", "--storage", database).out


def test_no_terminal_no_frame_and_no_colour(run: Run, database: str) -> None:
    for arguments in (["trials", "--study", "digits"], ["status"], ["best", "--study", "digits"]):
        out = run(*arguments, "--storage", database).out
        assert "\x1b" not in out
        assert not set(out) & set("│┃━─╭")
        assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_table_fits_the_terminal_and_cuts_no_number(
    run: Run, database: str, columns: int
) -> None:
    arguments = ["trials", "--study", "digits", "--state", "complete", "--storage", database]
    shown = on_a_terminal(arguments, columns)
    assert max(len(line) for line in shown) <= columns
    words = " ".join(shown).split()
    for trial in json.loads(run(*arguments, "--format", "json").out):
        assert f"{trial['value']:g}" in words
        assert f"{trial['train_seconds']:g}" in words
    assert "…" not in " ".join(shown)


def on_a_terminal(arguments: list[str], columns: int) -> list[str]:
    """What `hpo` writes to a terminal of so many columns, without colour."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "hpo", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        read = b""
        try:
            while chunk := os.read(ours, 4096):
                read += chunk
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
        assert process.wait(60) == 0, read
    text = re.sub(r"\x1b\[[0-9;]*m", "", read.decode())
    return [line.rstrip() for line in text.splitlines()]


# --- best


def test_best_tells_all_about_the_first_of_the_best(run: Run, database: str) -> None:
    done = run("best", "--study", "digits", "--storage", database, "--format", "json")
    found = json.loads(done.out)
    assert (found["study"], found["number"], found["value"]) == ("digits", 1, 0.95)
    assert found["metric"] == "accuracy"
    assert (found["epochs"], found["best_epoch"], found["seed"]) == (2, 2, 7)
    assert found["config"]["optimizer"]["name"] == found["params"]["optimizer"]
    (row,) = table(run("best", "--study", "digits", "--storage", database, "--format", "csv").out)
    assert row["param.optimizer"] == found["params"]["optimizer"]


def test_best_of_nothing_is_one_sentence(run: Run, database: str) -> None:
    done = run("best", "--study", "fresh", "--storage", database)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "hpo: study `fresh` has no complete trial yet; "
        "hpo status --study fresh shows how far it is\n"
    )


# --- which study


def test_a_study_can_be_named_by_its_file(run: Run, database: str) -> None:
    found = run("best", "--study", str(STUDY), "--storage", database, "--format", "json")
    assert json.loads(found.out)["study"] == "digits"


@pytest.mark.parametrize("command", ["status", "trials", "best"])
def test_an_unknown_study_is_refused_with_the_nearest(
    run: Run, database: str, command: str
) -> None:
    done = run(command, "--study", "digit", "--storage", database)
    assert (done.code, done.out) == (2, "")
    assert "did you mean `digits`?" in done.err
    assert done.err.count("\n") == 1


def test_a_study_of_stock_optuna_is_refused(run: Run, database: str) -> None:
    done = run("trials", "--study", "stock", "--storage", database)
    assert done.code == 2
    assert "was not made by hpo" in done.err


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/../../b",
        "..%2fb",
        "x\0y",
        "-rf",
        "$(id)",
        "x" * 513,
        ".",
        "",
        "mnіst",
        "trailing.",
        "no.yaml",
    ],
)
@pytest.mark.parametrize("command", ["status", "trials", "best"])
def test_hostile_names_are_refused_in_one_line(
    run: Run, database: str, command: str, name: str
) -> None:
    done = run(command, f"--study={name}", "--storage", database)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("hpo: ")
    assert done.err.count("\n") == 1
    assert done.err.rstrip("\n").isprintable()


# --- the database


@pytest.mark.parametrize("command", ["status", "trials", "best"])
def test_a_missing_database_is_not_created(run: Run, command: str) -> None:
    study = [] if command == "status" else ["--study", "digits"]
    done = run(command, *study)
    assert (done.code, done.out) == (69, "")
    assert "there is no such file" in done.err
    assert list(Path.cwd().iterdir()) == []


def test_what_is_no_database_is_left_as_it_is(run: Run) -> None:
    Path("notes.db").write_text("not a database, " * 100)
    before = Path("notes.db").read_bytes()
    done = run("status", "--storage", "sqlite:///notes.db")
    assert done.code == 69
    assert "not an SQLite database" in done.err
    assert Path("notes.db").read_bytes() == before
    assert [path.name for path in Path.cwd().iterdir()] == ["notes.db"]


def test_looking_changes_nothing(run: Run, database: str) -> None:
    file = Path(database.removeprefix("sqlite:///"))
    before = file.read_bytes()
    for arguments in (["status"], ["trials", "--study", "digits"], ["best", "--study", "digits"]):
        assert run(*arguments, "--storage", database).code == 0
    assert file.read_bytes() == before


def test_a_reader_that_leaves_ends_the_command_quietly(database: str) -> None:
    # Small output reaches a closed pipe only at the flush; both pipes are closed at once.
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hpo", "trials", "--study", "digits", "--storage", database]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


def test_looking_does_not_import_torch(database: str) -> None:
    code = (
        "import sys; from hpo.cli import main; study = ['--study', 'digits']; "
        "codes = [main([*words, *study]) for words in (['status'], ['trials'], ['best'])]; "
        "print(codes, {'torch', 'sklearn', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "HPO_STORAGE": database},
    )
    assert done.stderr == "[0, 0, 0] set()\n"


def test_the_installed_command_splits_data_from_words(database: str) -> None:
    done = hpo("status", "--study", "digits", "--format", "json", HPO_STORAGE=database)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["study"] == "digits"
    done = hpo("best", "--study", "fresh", "--format", "json", HPO_STORAGE=database)
    assert (done.code, done.out) == (1, "")
