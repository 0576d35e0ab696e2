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
    from hpo.results.states import SavedStates
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
            _show_result({**known, "artifact": str(folder)}, form)
            return
        with SavedStates(folder) as states:
            try:
                with Spinner(stderr_console()) as spinner, opened.guard():
                    result = run(search, definition, states, stop, spinner)
            except Stopped:
                message = "stopped; nothing was tested and no artifact was written"
                raise Interrupted(message, stop.signal_number or 2) from None
            metrics = result.report(definition, name, str(folder))
            everything = {**metrics, **result.details(), "study_state": state}
            artifact.write(folder, result, states, definition, everything)
    _show_result(metrics, form)


def _show_result(metrics: dict[str, Any], form: TextFormat) -> None:
    import json

    from hpo.cli import rendering
    from hpo.results.prediction import PAGE

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
        shown = [rendering.metric(bound, like=test["mean"]) for bound in (low, high)]
        interval = f", 95 % interval {' to '.join(shown)}"
    typer.echo(f"test {test['metric']}: {_spread(test)}{interval}")
    typer.echo(f"artifact: {metrics['artifact']}")
    if (page := Path(metrics["artifact"]) / PAGE).exists():
        typer.echo(f"prediction: {page}")


def _spread(numbers: dict[str, Any]) -> str:
    from hpo.cli.rendering import metric

    mean, std = numbers["mean"], numbers["std"]
    spread = "" if std is None else f" +- {metric(std, like=mean)}"
    return f"{metric(mean)}{spread} (n = {numbers['n']})"
