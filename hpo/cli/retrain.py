"""`hpo retrain-best`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    SEARCH_PANEL,
    StorageUrl,
    StudyName,
    TextFormat,
    TextOutputFormat,
    same_storage,
    storage_url,
    study_name,
)

if TYPE_CHECKING:
    from hpo.cli.signals import Stop
    from hpo.definition import StudyDefinition
    from hpo.results.artifact import Draft
    from hpo.results.finalists import Finalist

__all__ = ["register"]

_log = logging.getLogger(__name__)
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
    from hpo.cli.signals import Stop
    from hpo.results import artifact
    from hpo.results.finalists import choose
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    name = study_name(study)
    folder = output / name
    url = storage_url(storage)
    with Stop() as stop, open_storage(url, must_exist=True) as opened:
        search, definition = load(opened, name)
        with opened.guard():
            # Workers may go on meanwhile: what is chosen and what is noted are of one moment.
            trials = search.get_trials(deepcopy=False)
            state = artifact.fingerprint(trials, definition)
            known = _up_to_date(folder, state)
            if known is None:
                finalists = choose(trials, definition, same_storage(url))
                with artifact.Draft(folder) as draft:
                    # Another process may have been at it until now.
                    known = _up_to_date(folder, state) or _make(
                        draft, name, folder, finalists, definition, state, stop
                    )
    _show_result({**known, "artifact": str(folder)}, form)


def _up_to_date(folder: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """What the artifact says, if it is of this state of the study."""
    from hpo.results import artifact

    known = artifact.read_metrics(folder)
    if known is None or known.get("study_state") != state:
        return None
    _log.info("%s is up to date; the test set stays closed", folder)
    return known


def _make(
    draft: Draft,
    name: str,
    folder: Path,
    finalists: Sequence[Finalist],
    definition: StudyDefinition,
    state: dict[str, Any],
    stop: Stop,
) -> dict[str, Any]:
    """Retrain, look at the test set, and put the artifact in its place; returns its metrics."""
    from hpo.cli.logs import stderr_console
    from hpo.cli.progress import Spinner
    from hpo.errors import Interrupted
    from hpo.results import retrain
    from hpo.training.population import Stopped

    try:
        with Spinner(stderr_console()) as spinner:
            trained = retrain.retrain(finalists, definition, draft.states, stop, spinner)
    except Stopped:
        message = "stopped; nothing was tested and no artifact was written"
        raise Interrupted(message, stop.signal_number or 2) from None
    draft.describe(trained, definition)
    verdict = retrain.open_test_set(trained, definition, draft.states)
    report = retrain.report(trained, verdict, definition, name, str(folder))
    metrics = {**report, **retrain.details(trained, verdict), "study_state": state}
    draft.put_in_place(definition.name, verdict, metrics)
    return metrics


def _show_result(metrics: dict[str, Any], form: TextFormat) -> None:
    from hpo.cli import rendering
    from hpo.results.prediction import PAGE

    keys = ("study", "winner", "params", "validation", *_LEARNING, "test", "artifact")
    if form is TextFormat.JSON:
        # An artifact of an earlier version says nothing of the learning.
        rendering.write_json({key: metrics.get(key) for key in keys}, indent=None)
        return
    validation, test = metrics["validation"], metrics["test"]
    rendering.write(f"{metrics['study']}: the winner is trial {metrics['winner']}")
    rendering.write_params(metrics["params"])
    rendering.write(f"validation {test['metric']}: {_spread(validation)}, fresh seeds")
    if learning := metrics.get("learning"):
        rendering.write(f"learning in the search: {learning}")
    interval = ""
    if test["ci95"]:
        low, high = test["ci95"]
        shown = [rendering.metric(bound, like=test["mean"]) for bound in (low, high)]
        interval = f", 95 % interval {' to '.join(shown)}"
    rendering.write(f"test {test['metric']}: {_spread(test)}{interval}")
    rendering.write(f"artifact: {metrics['artifact']}")
    if (page := Path(metrics["artifact"]) / PAGE).exists():
        rendering.write(f"prediction: {page}")


def _spread(numbers: dict[str, Any]) -> str:
    from hpo.cli.rendering import metric

    mean, std = numbers["mean"], numbers["std"]
    spread = "" if std is None else f" +- {metric(std, like=mean)}"
    return f"{metric(mean)}{spread} (n = {numbers['n']})"
