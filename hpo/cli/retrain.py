"""`hpo retrain-best`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.cli.options import (
    SEARCH_PANEL,
    StorageUrl,
    StudyName,
    TextFormat,
    TextOutputFormat,
    storage_url,
    study_name,
)

__all__ = ["register"]

_LEARNING = ("learning", "overfitting_since")
_Output = Annotated[
    Path, typer.Option("--output", help="The folder in which the artifact gets a folder.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("retrain-best", rich_help_panel=SEARCH_PANEL)(retrain_best)


def retrain_best(
    study: StudyName,
    storage: StorageUrl = None,
    output: _Output = Path("results"),
    form: TextOutputFormat = TextFormat.TABLE,
) -> None:
    """Score the finalists again, retrain the winner over seeds, and test it once.

    The artifact is OUTPUT/STUDY. As long as the study has not changed since, its result is
    shown again and the test set stays closed.
    """
    from hpo.cli.logs import stderr_console
    from hpo.cli.progress import Spinner
    from hpo.cli.signals import Stop
    from hpo.errors import Interrupted
    from hpo.results import artifact
    from hpo.results.retrain import retrain_best as run
    from hpo.search.storage import open_storage
    from hpo.search.study import load
    from hpo.training.population import Stopped

    name = study_name(study)
    folder = output / name
    with Stop() as stop, open_storage(storage_url(storage), must_exist=True) as opened:
        search, definition = load(opened, name)
        with opened.guard():
            state = artifact.fingerprint(search, definition)
        known = artifact.read_metrics(folder)
        if known is not None and known.get("study_state") == state:
            typer.echo(f"{folder} is up to date; the test set stays closed", err=True)
            _show_result(known, form)
            return
        artifact.check_place(folder)
        try:
            with Spinner(stderr_console()) as spinner, opened.guard():
                result = run(search, definition, stop, spinner)
        except Stopped:
            message = "stopped; nothing was tested and no artifact was written"
            raise Interrupted(message, stop.signal_number or 2) from None
        metrics = result.report(definition, name, str(folder))
        everything = {**metrics, **result.details(), "study_state": state}
        artifact.write(folder, result, definition, everything)
    _show_result(metrics, form)


def _show_result(metrics: dict[str, Any], form: TextFormat) -> None:
    import json

    from hpo.cli import rendering

    keys = ("study", "winner", "params", "validation", *_LEARNING, "test", "artifact")
    if form is TextFormat.JSON:
        # An artifact of an earlier version says nothing of the learning.
        typer.echo(json.dumps({key: metrics.get(key) for key in keys}))
        return
    validation, test = metrics["validation"], metrics["test"]
    typer.echo(f"{metrics['study']}: the winner is trial {metrics['winner']}")
    rendering.write_params(metrics["params"])
    typer.echo(f"validation {test['metric']}: {_spread(validation)}, fresh seeds")
    if learning := metrics.get("learning"):
        typer.echo(f"learning in the search: {learning}")
    interval = ""
    if test["ci95"]:
        low, high = test["ci95"]
        interval = f", 95 % interval {low:.4f} to {high:.4f}"
    typer.echo(f"test {test['metric']}: {_spread(test)}{interval}")
    typer.echo(f"artifact: {metrics['artifact']}")


def _spread(numbers: dict[str, Any]) -> str:
    spread = "" if numbers["std"] is None else f" +- {numbers['std']:.4f}"
    return f"{numbers['mean']:.4f}{spread} (n = {numbers['n']})"
