"""`hpo plot`: what was noted with every epoch, drawn."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import RESULTS_PANEL, StorageUrl, StudyName, storage_url, study_name

__all__ = ["register"]


class What(StrEnum):
    """What can be drawn."""

    GRADIENT_NORMS = "gradient_norms"


_What = Annotated[What, typer.Option("--what", help="What to draw.")]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The page; STUDY-WHAT.html in the working folder if left out. An older one is "
        "replaced.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel=RESULTS_PANEL)(plot)


def plot(
    study: StudyName,
    what: _What = What.GRADIENT_NORMS,
    out: _Out = None,
    storage: StorageUrl = None,
) -> None:
    """Draw a diagnostic of a study's trials against the epoch, as an HTML page.

    The page needs neither a network nor another file.
    """
    from hpo.cli import rendering
    from hpo.files import disk_errors, write_whole
    from hpo.results.plots import gradient_norms
    from hpo.search.status import read_trials
    from hpo.search.storage import open_storage

    name = study_name(study)
    path = Path(f"{name}-{what}.html") if out is None else out
    with open_storage(storage_url(storage), must_exist=True) as opened:
        found, _ = read_trials(opened, name)
    page = gradient_norms(name, found)
    with disk_errors(path, "name another file with --out"):
        write_whole(path, page.encode())
    rendering.write(str(path))
