"""`hpo curves`: learning curves on one page, and what they say."""

from __future__ import annotations

from typing import Annotated

import typer

from hpo.cli.options import (
    RESULTS_PANEL,
    StorageUrl,
    StudyName,
    TextFormat,
    TextOutputFormat,
    storage_url,
    study_name,
)
from hpo.cli.pages import PageFile, write_page
from hpo.errors import UsageError

__all__ = ["register"]

_Trial = Annotated[
    list[int] | None,
    typer.Option(
        "--trial",
        metavar="N",
        help="A trial by its number; may be repeated. The best if left out.",
        show_default=False,
    ),
]
_Best = Annotated[
    int | None,
    typer.Option(
        "--best",
        min=1,
        max=100,
        metavar="N",
        help="The N best complete trials, in place of --trial.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=RESULTS_PANEL)(curves)


def curves(
    study: StudyName,
    trial: _Trial = None,
    best: _Best = None,
    out: PageFile = None,
    storage: StorageUrl = None,
    output: TextOutputFormat = TextFormat.TABLE,
) -> None:
    """Learning curves as an HTML page, and whether the networks overfit.

    Shows the loss on training and validation rows, and the metric, epoch by epoch. The page
    needs neither a network nor another file.
    """
    from hpo.cli import rendering
    from hpo.results.curves import choose, draw
    from hpo.results.overfitting import fields
    from hpo.search.status import read_trials
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    if trial and best:
        raise UsageError("--trial and --best exclude each other")
    name = study_name(study)
    with open_storage(storage_url(storage), must_exist=True) as opened:
        found, maximize = read_trials(opened, name)
        metric = load(opened, name)[1].search.metric
    chosen = choose(name, found, trial or (), best or 1, maximize=maximize)
    path = write_page(out, f"{name}-curves.html", draw(name, metric, chosen))
    rows = [
        {"number": one.number, "value": one.value, **fields(one.curve), "curve": one.curve}
        for one in chosen
    ]
    if output is TextFormat.JSON:
        rendering.write_json({"study": name, "page": path, "trials": rows})
        return
    rendering.write(str(path))
    for row in rows:
        rendering.write(f"trial {row['number']}: {row['learning']}")
