"""Studies with variations, as one meets them: a table of runs, whatever dies, and bad input."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.commands import here, hpo, read, start
from tests.watching import Study, in_folder, until

STUDY = """\
# studies/steps.yaml: small MLPs, one change at a time
dataset: {name: digits, validation: 0.2}
model: {mlp: {widths: [16], activation: relu}}
optimizer: {adam: {lr: 0.001}}
training: {batch_size: 32, epochs: 4, diagnostics: [gradient_norms]}
variations:
  - {}
  - {training.batch_size: 16}
  - {optimizer.adam.lr: 0.01}
  - {optimizer: {sgd: {lr: 0.001}}}
  - {}
  - {training.gradient_reset: false}
"""
RUNS = 6
FILE = "sqlite:///hpo.db"
SMALL = "{cnn: {stages: 4, channels: 4}}"
PLAIN = ("--set", "training.diagnostics=[]")
WORDS = [
    "baseline",
    "training.batch_size 16",
    "optimizer.adam.lr 0.01",
    "optimizer sgd (lr 0.001)",
    "baseline",
    "training.gradient_reset false",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the study `steps` and a state folder of its own."""
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "steps.yaml").write_text(STUDY)
    return tmp_path


def runs(folder: Path, study: str = "steps", url: str = FILE) -> list[dict[str, Any]]:
    """The trials in the order of the variations."""
    found: list[dict[str, Any]] = read(folder, "trials", "--study", study, "--storage", url)
    return sorted(found, key=lambda trial: int(trial["params"]["variation"]))


def results(folder: Path, url: str = FILE) -> list[tuple[Any, ...]]:
    """What came out, without times and workers."""
    keys = ("variation", "state", "value", "test_accuracy", "epochs")
    return [tuple(run[key] for key in keys) for run in runs(folder, url=url)]


def assert_each_once(folder: Path, url: str = FILE) -> None:
    assert [run["params"]["variation"] for run in runs(folder, url=url)] == list(range(RUNS))
    study = in_folder(folder) if url == FILE else Study(url)
    study.assert_exactly(RUNS)


def test_a_list_of_runs_ends_in_a_table_and_shows_it_again(place: Path) -> None:
    done = here(place, "optimize", "--study", "steps")
    assert_each_once(place)
    found = runs(place)
    assert [run["variation"] for run in found] == WORDS
    assert all(run["state"] == "complete" and run["epochs"] == 4 for run in found)
    assert all(0 < run["test_accuracy"] <= 1 for run in found)
    assert all(run["device"] == "cpu" for run in found)
    assert all(0 < run["train_seconds"] < run["total_seconds"] for run in found)
    head, *rows = done.stdout[done.stdout.index("variation ") :].splitlines()
    for column in ("value", "test accuracy", "train seconds", "total seconds", "device"):
        assert column in head
    for row, run in zip(rows, found, strict=False):
        assert row.startswith(run["variation"])
        assert f"{run['test_accuracy']:.5g}" in row
        assert f"{run['value']:.5g}" in row
        assert row.rstrip().endswith("cpu")
    assert "each run was scored on the test rows, once" in done.stdout
    assert "retrain-best" not in done.stdout
    again = here(place, "optimize", "--study", "steps")
    assert "6 trials have finished and 6 were asked for; nothing to do" in again.stdout
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]
    table = here(place, "trials", "--study", "steps").stdout
    assert all(words in table for words in WORDS)
    rows_of_csv = list(
        csv.DictReader(
            io.StringIO(here(place, "trials", "--study", "steps", "--format", "csv").stdout)
        )
    )
    assert [row["variation"] for row in rows_of_csv] == [
        trial["variation"] for trial in read(place, "trials", "--study", "steps")
    ]


def test_the_fields_of_a_run_are_told_of(place: Path) -> None:
    here(place, "optimize", "--study", "steps", "--set", "training.epochs=1")
    here(place, "optimize", "--study", "digits", "--trials", "1", "--set", "training.epochs=1")
    own = set(runs(place)[0]) - set(read(place, "trials", "--study", "digits")[0])
    assert own == {"variation", "test_accuracy"}
    page = (Path(__file__).parents[1] / "docs" / "commands.md").read_text()
    assert all(f"| `{field}` |" in page for field in own)


def test_equal_variations_are_both_trained_and_come_to_the_same(place: Path) -> None:
    """All runs begin with one seed, and those of one batch size read the same batches."""
    here(place, "optimize", "--study", "steps", "--population", "1")
    first, *_, last, _ = results(place)
    assert first == last
    assert first[-1] == 4
    others = results(place)[1:4]
    assert all(other[2:4] != first[2:4] for other in others)


def test_two_workers_come_to_what_one_does(place: Path, url: str) -> None:
    """On both kinds of database."""
    here(place, "optimize", "--study", "steps", "--population", "1")
    two = ("--workers", "2", "--population", "1")
    hpo(place, "optimize", "--study", "steps", *two, HPO_STORAGE=url)
    assert_each_once(place, url)
    assert results(place, url) == results(place)


def test_after_a_kill_each_run_is_still_trained_once_and_scored(place: Path) -> None:
    few = ("--study", "steps", "--population", "1", "-v")
    here(place, "optimize", *few)
    unbroken = results(place)
    (place / "hpo.db").unlink()
    study: Study = in_folder(place)
    for epoch in (2, 3):
        process = start(place, "optimize", *few, epochs_last=0.3)
        until(lambda: max(study.running().values(), default=0) >= epoch)  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    again = here(place, "optimize", *few)
    assert "goes on after epoch" in again.stderr
    assert_each_once(place)
    assert results(place) == unbroken


def test_a_run_that_fails_says_why_and_the_others_go_on(place: Path) -> None:
    wild = "variations=[{}, {optimizer: {sgd: {lr: 1.0e+38}}}]"
    done = here(place, "optimize", "--study", "steps", "--set", wild)
    good, bad = runs(place)
    assert (good["state"], bad["state"]) == ("complete", "failed")
    assert bad["test_accuracy"] is None
    assert "optimizer sgd (lr 1e+38): diverged in epoch" in done.stdout


def test_runs_of_all_families_lie_in_one_table(place: Path) -> None:
    conv = "{stages: 1, channels: 4}"
    families = f"variations=[{{}}, {{model: {{cnn: {conv}}}}}, {{model: {{numpy_cnn: {conv}}}}}]"
    free = ("--set", families, "--set", "training.diagnostics=[]")
    here(place, "optimize", "--study", "steps", *free)
    found = runs(place)
    assert [run["variation"] for run in found] == [
        "baseline",
        "model cnn (stages 1, channels 4)",
        "model numpy_cnn (stages 1, channels 4)",
    ]
    assert all(run["state"] == "complete" and run["test_accuracy"] > 0.1 for run in found)


def test_the_test_rows_stay_closed_if_the_study_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str) -> None:
        raise AssertionError(f"the test rows of {name} were opened")

    monkeypatch.setattr("hpo.search.final_score.load_test", opened)
    closed = ("--set", "search.look_at_test=false", "--set", "training.epochs=1")
    done = here(place, "optimize", "--study", "steps", *closed)
    assert "the test rows stay closed" in done.stdout
    assert "test accuracy" not in done.stdout
    assert all(run["test_accuracy"] is None for run in runs(place))
    # Nor does a search ever open them.
    here(place, "optimize", "--study", "digits", "--trials", "2", "--set", "training.epochs=1")
    assert "test_accuracy" not in read(place, "trials", "--study", "digits")[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--trials", "3"), "--set search.trials: a study with variations trains each once, so"),
        (("--set", "variations=[{dataset.name: mnist}]"), "a variation cannot change `dataset`"),
        (("--set", "model.mlp.dropout={float: [0, 0.5]}"), "this is a range, and a study with"),
        (("--set", "variations=[{training.batch_size: 5000}]"), "a batch of 5000 is larger than"),
        (("--set", f"variations=[{{model: {SMALL}}}]", *PLAIN), "stage 3 reads images of 2x2"),
        (("--around-best",), "there is no study"),
        (("--around-best", "--name", "a/b"), "cannot be a study's name"),
        (("--around-best", "--name", "digits"), "has no variations, so it is not one around a"),
    ],
)
def test_bad_input_is_one_sentence(place: Path, arguments: tuple[str, ...], sentence: str) -> None:
    here(place, "optimize", "--study", "digits", "--trials", "1", "--set", "training.epochs=1")
    done = here(place, "optimize", "--study", "steps", *arguments, expect=2)
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr


def test_another_list_does_not_go_on_with_the_runs_of_this_one(place: Path) -> None:
    short = ("--set", "training.epochs=1")
    here(place, "optimize", "--study", "steps", *short, "--trials", "6")
    other = ("--set", "variations=[{}, {training.batch_size: 8}, {}, {}, {}, {}]")
    done = here(place, "optimize", "--study", "steps", *short, *other, expect=2)
    assert "started with another definition (variations[1]: was" in done.stderr


def test_a_dry_run_lists_the_runs(place: Path) -> None:
    done = here(place, "optimize", "--study", "steps", "--dry-run")
    assert "variations: 6, each trained once" in done.stdout
    assert "  3: optimizer sgd (lr 0.001)" in done.stdout
    assert not (place / "hpo.db").exists()
    valid = here(place, "studies", "validate", "steps").stdout
    assert valid == "studies/steps.yaml: valid, 6 variations, each trained once\n"


def test_gradient_norms_lie_with_the_learning_curve(place: Path) -> None:
    here(place, "optimize", "--study", "steps")
    study = optuna.load_study(study_name="steps", storage=f"sqlite:///{place}/hpo.db")
    for trial in study.trials:
        curve = trial.user_attrs["hpo:curve"]
        assert [len(epoch["gradient_norms"]) for epoch in curve] == [2] * 4
        assert all(norm > 0 for epoch in curve for norm in epoch["gradient_norms"])
    drawn = here(place, "plot", "--study", "steps", "--what", "gradient_norms")
    assert drawn.stdout == "steps-gradient_norms.html\n"
    page = (place / "steps-gradient_norms.html").read_text()
    assert "hidden layer 1" in page
    assert "<h2>output</h2>" in page
    assert all(f"{number}: {words}" in page for number, words in enumerate(WORDS))
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)  # it asks no network
    (place / "pages").mkdir()
    inside = here(place, "plot", "--study", "steps", "--out", "pages")
    assert inside.stdout == "pages/steps-gradient_norms.html\n"
    assert (place / inside.stdout.strip()).is_file()


def test_a_plot_of_what_was_not_noted_says_how_to_get_it(place: Path) -> None:
    short = ("--set", "training.epochs=1", "--set", "training.diagnostics=[]")
    here(place, "optimize", "--study", "steps", *short)
    done = here(place, "plot", "--study", "steps", expect=1)
    assert "ask for them with `training.diagnostics: [gradient_norms]`" in done.stderr
    (place / "wall").write_text("")
    here(place, "optimize", "--study", "steps", "--name", "noted", "--set", "training.epochs=1")
    done = here(place, "plot", "--study", "noted", "--out", "wall/page.html", expect=74)
    assert "name another file with --out" in done.stderr


def test_the_sensitivity_study_in_small(place: Path) -> None:
    """Its own runs on digits, an epoch each."""
    small = ("--set", "dataset.name=digits", "--set", "training.epochs=1")
    done = here(place, "optimize", "--study", "fashion_mnist_sensitivity", *small)
    found = runs(place, "fashion_mnist_sensitivity")
    assert [run["variation"] for run in found] == [
        "baseline",
        "training.batch_size 16",
        "training.batch_size 64",
        "optimizer.adam.lr 0.01",
        "optimizer.adam.lr 0.0001",
        "optimizer sgd (lr 0.001)",
        "training.gradient_reset false",
    ]
    assert all(run["state"] == "complete" and run["test_accuracy"] > 0 for run in found)
    assert "parameter" in done.stdout


SEARCHED = """\
dataset: {name: digits, validation: 0.2}
model: {mlp: {layers: {int: [1, 2]}, width: {int: [8, 32]}, activation: {choice: [relu, tanh]}}}
optimizer:
  adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}
  sgd: {lr: {float: [0.01, 0.1]}}
training: {batch_size: {choice: [32, 64]}, epochs: 2}
search: {trials: 4, sampler: random, pruner: none}
"""


def test_one_factor_at_a_time_around_the_best_trial_of_a_search(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str) -> None:
        raise AssertionError(f"the test rows of {name} were opened")

    monkeypatch.setattr("hpo.search.final_score.load_test", opened)
    (place / "studies" / "wide.yaml").write_text(SEARCHED)
    here(place, "optimize", "--study", "wide")
    best = read(place, "best", "--study", "wide")
    done = here(place, "optimize", "--study", "wide", "--around-best")
    found = runs(place, "wide-around-best")
    assert found[0]["variation"] == "baseline"
    assert all(run["state"] == "complete" for run in found)
    configs = {
        trial.number: trial.user_attrs["hpo:config"]
        for trial in optuna.load_study(
            study_name="wide-around-best", storage=f"sqlite:///{place}/hpo.db"
        ).trials
    }
    assert configs[found[0]["number"]] == best["config"]
    differing = [configs[run["number"]] != best["config"] for run in found[1:]]
    assert differing == [True] * len(differing)
    spread = done.stdout[done.stdout.index("parameter ") :]
    for name in best["params"]:
        assert f"\n{name} " in spread
    assert "the test rows stay closed" in done.stdout
    again = here(place, "optimize", "--study", "wide", "--around-best")
    assert "nothing to do" in again.stdout
    rows = read(place, "effects", "--study", "wide")
    assert {row["parameter"] for row in rows} >= {"mlp.layers", "optimizer"}
    assert "mlp.activation" in here(place, "effects", "--study", "wide").stdout
    head = here(place, "effects", "--study", "wide", "--format", "csv").stdout.splitlines()[0]
    assert head == "parameter,level,trials,incomplete,mean,best,effect"


def test_around_best_needs_a_trial_and_ranges(place: Path) -> None:
    (place / "studies" / "wide.yaml").write_text(SEARCHED)
    here(place, "submit", "--study", "wide")
    done = here(place, "optimize", "--study", "wide", "--around-best", expect=1)
    assert "has no complete trial yet" in done.stderr
    here(place, "optimize", "--study", "steps", "--set", "training.epochs=1")
    done = here(place, "optimize", "--study", "steps", "--around-best", expect=1)
    assert "has no ranges, so there is nothing around its best trial" in done.stderr
