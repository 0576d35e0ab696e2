"""`hpo plot`: what was noted with every epoch, drawn."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hpo.cli.options import RESULTS_PANEL, StorageUrl, StudyName, storage_url, study_name
from hpo.cli.pages import PageFile, write_page

__all__ = ["register"]


class What(StrEnum):
    """What can be drawn."""

    GRADIENT_NORMS = "gradient_norms"


_What = Annotated[What, typer.Option("--what", help="What to draw.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel=RESULTS_PANEL)(plot)


def plot(
    study: StudyName,
    what: _What = What.GRADIENT_NORMS,
    out: PageFile = None,
    storage: StorageUrl = None,
) -> None:
    """Draw a diagnostic of a study's trials against the epoch, as an HTML page.

    The page needs neither a network nor another file.
    """
    from hpo.cli import rendering
    from hpo.results.plots import gradient_norms
    from hpo.search.status import read_trials
    from hpo.search.storage import open_storage

    name = study_name(study)
    with open_storage(storage_url(storage), must_exist=True) as opened:
        found, _ = read_trials(opened, name)
    page = gradient_norms(name, found)
    rendering.write(str(write_page(out, f"{name}-{what}.html", page)))
