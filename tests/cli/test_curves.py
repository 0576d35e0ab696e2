"""`hpo curves`, and what `hpo best` and `hpo retrain-best` say, on networks that overfit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import here, read

from .conftest import Run

# Far more weights than the 143 training rows of 8 by 8 pixels can hold in check.
STUDY = """# studies/large.yaml: a network that overfits
dataset: {name: digits, validation: 0.9}
model: {mlp: {widths: [256, 256]}}
optimizer: {adam: {lr: {choice: [0.003, 0.004, 0.005]}}}
training: {batch_size: 16, epochs: 24}
search: {trials: 2, sampler: random, pruner: none}
retrain: {finalists: 1, seeds: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a search of two trials, both trained to their end."""
    made = tmp_path_factory.mktemp("curves")
    (made / "large.yaml").write_text(STUDY)
    here(made, "optimize", "--study", "./large.yaml", "--population", "2")
    return made


def test_a_network_too_large_for_its_rows_overfits(folder: Path) -> None:
    best = read(folder, "best", "--study", "large")
    since = best["overfitting_since"]
    assert 1 <= since <= 21
    assert best["learning"].startswith(f"overfitting since epoch {since}: validation loss rose")
    done = here(folder, "best", "--study", "large")
    assert best["learning"] in done.stdout
    assert (
        "overfitting since epoch"
        in here(folder, "best", "--study", "large", "--format", "csv").stdout
    )


def test_the_best_trial_is_drawn_if_none_is_named(folder: Path) -> None:
    done = here(folder, "curves", "--study", "large")
    best = read(folder, "best", "--study", "large")
    assert done.stdout == f"large-curves.html\ntrial {best['number']}: {best['learning']}\n"
    text = (folder / "large-curves.html").read_text()
    assert f"Trial {best['number']}: accuracy {best['value']:.4g}" in text
    assert best["learning"] in text
    figure = figures(text)[0]
    assert [line["name"] for line in figure["data"]] == [
        "training loss",
        "validation loss",
        "accuracy",
    ]
    assert figure["data"][0]["x"] == list(range(1, 25))
    marks = dict.fromkeys([best["overfitting_since"], best["best_epoch"]])
    assert [mark["x0"] for mark in figure["layout"]["shapes"]] == list(marks)


def figures(text: str) -> list[dict[str, Any]]:
    start = text.index('<script id="figures"')
    found: list[dict[str, Any]] = json.loads(
        text[text.index(">", start) + 1 :].split("</script>")[0]
    )
    return found


def test_trials_are_named_by_their_numbers_or_as_the_best(folder: Path, tmp_path: Path) -> None:
    place = ("--out", str(tmp_path))
    named = read(folder, "curves", "--study", "large", "--trial", "1", "--trial", "0", *place)
    assert list(named) == ["study", "page", "trials"]
    assert named["page"] == str(tmp_path / "large-curves.html")
    assert [trial["number"] for trial in named["trials"]] == [1, 0]
    assert len(figures(Path(named["page"]).read_text())) == 2
    trials = read(folder, "trials", "--study", "large", "--sort", "value")
    best = read(folder, "curves", "--study", "large", "--best", "5", *place)
    assert [one["number"] for one in best["trials"]] == [one["number"] for one in trials]
    for trial in best["trials"]:
        assert [epoch["epoch"] for epoch in trial["curve"]] == list(range(1, 25))
        assert max(epoch["accuracy"] for epoch in trial["curve"]) == trial["value"]


def test_a_page_is_replaced_and_a_place_that_refuses_is_named(
    folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "pages" / "page.html"
    page.parent.mkdir()
    page.write_text("old")
    here(folder, "curves", "--study", "large", "--out", str(page))
    assert page.read_text().startswith("<!doctype html>")
    assert list(page.parent.iterdir()) == [page]
    nowhere = tmp_path / "missing" / "page.html"
    done = here(folder, "curves", "--study", "large", "--out", str(nowhere), expect=74)
    assert done.stderr.startswith(f"hpo: {nowhere}: No such file or directory")
    assert done.stderr.endswith("name another file with --out\n")
    long = tmp_path / ("x" * 300)
    done = here(folder, "curves", "--study", "large", "--out", str(long), expect=74)
    assert done.stderr.startswith(f"hpo: {long}: File name too long")
    assert done.stderr.endswith("name another file with --out\n")


def test_the_retrain_says_what_the_winner_did(folder: Path) -> None:
    shown = here(folder, "retrain-best", "--study", "large")
    best = read(folder, "best", "--study", "large")
    assert f"learning in the search: {best['learning']}\n" in shown.stdout
    again = read(folder, "retrain-best", "--study", "large")
    assert again["overfitting_since"] == best["overfitting_since"]
    # As one of an earlier version.
    file = folder / "results" / "large" / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["learning"], metrics["overfitting_since"]
    file.write_text(json.dumps(metrics))
    assert read(folder, "retrain-best", "--study", "large")["learning"] is None
    assert "learning" not in here(folder, "retrain-best", "--study", "large").stdout


def test_stopping_on_loss_ends_an_overfitting_network_and_keeps_its_best_accuracy(
    folder: Path,
) -> None:
    stopping = ("--set", "training.early_stopping={patience: 4, metric: loss}")
    name = ("--name", "stopped", "--trials", "1")
    here(folder, "optimize", "--study", "./large.yaml", *stopping, *name)
    (trial,) = read(folder, "trials", "--study", "stopped")
    assert (trial["state"], trial["reason"]) == ("complete", "stopped early")
    curve = read(folder, "curves", "--study", "stopped")["trials"][0]["curve"]
    losses = [epoch["loss"] for epoch in curve]
    assert losses.index(min(losses)) + 1 == trial["epochs"] - 4 < 20
    assert trial["value"] == max(epoch["accuracy"] for epoch in curve)
    other = here(folder, "optimize", "--study", "./large.yaml", *name, expect=2)
    assert "training.early_stopping: was patience 4 on loss, is off" in other.stderr


# --- what cannot be drawn; the database is that of conftest.py, whose trials have no curves


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 1, "study `digits` has no complete trial with a learning curve yet"),
        (["--trial", "99"], 2, "study `digits` has no trial 99; hpo trials --study digits"),
        (["--trial", "4"], 1, "no learning curve: it is failed (diverged in epoch 1)"),
        (["--trial", "5"], 1, "no learning curve: it is running;"),
        (["--trial", "1", "--best", "2"], 2, "--trial and --best exclude each other"),
        (["--best", "0"], 2, "--best"),
    ],
)
def test_what_has_no_curve_is_one_sentence(
    run: Run, database: str, arguments: list[str], code: int, sentence: str
) -> None:
    done = run("curves", "--study", "digits", "--storage", database, *arguments)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


def test_a_best_trial_without_a_curve_has_no_sentence(run: Run, database: str) -> None:
    done = run("best", "--study", "digits", "--storage", database, "--format", "json")
    found = json.loads(done.out)
    assert (found["learning"], found["overfitting_since"]) == (None, None)
