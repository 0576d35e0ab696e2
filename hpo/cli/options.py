"""Options that several commands share, so that they read and behave alike everywhere.

A command's module offers `register(app)`, which adds its commands; `app.py` calls it. `--debug`,
`--verbose` and `--quiet` belong to `hpo` itself and may stand anywhere on the command line.
"""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from typing import Annotated

import typer

__all__ = [
    "BROKEN_PIPE",
    "DATA_PANEL",
    "DEFAULT_STORAGE",
    "MACHINE_PANEL",
    "OUTAGE_SECONDS",
    "PANELS",
    "RESULTS_PANEL",
    "SEARCH_PANEL",
    "Budget",
    "Format",
    "Lease",
    "OutputFormat",
    "Overrides",
    "Population",
    "Seed",
    "StorageUrl",
    "StudyFilter",
    "StudyName",
    "StudyTitle",
    "TextFormat",
    "TextOutputFormat",
    "Timeout",
    "same_storage",
    "storage_url",
    "study_name",
]

SEARCH_PANEL = "Search"
RESULTS_PANEL = "Look at results"
DATA_PANEL = "Studies and data"
MACHINE_PANEL = "This machine"
PANELS = (SEARCH_PANEL, RESULTS_PANEL, DATA_PANEL, MACHINE_PANEL)
"""In the order of the help."""

DEFAULT_STORAGE = "sqlite:///hpo.db"
"""The database of whoever names none: a file in the working folder."""


OUTAGE_SECONDS = 600.0
"""How long a command that trains waits for a database that is away."""

BROKEN_PIPE = 141
"""The exit code of a program whose reader has gone (`hpo trials | head -1`): 128 + SIGPIPE."""


class Format(StrEnum):
    """How a command writes its result to stdout."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class TextFormat(StrEnum):
    """How a command writes what does not fit into the rows of a CSV file."""

    TABLE = "table"
    JSON = "json"


OutputFormat = Annotated[
    Format,
    typer.Option("--format", help="What to write to stdout: a table for people, or JSON or CSV."),
]

TextOutputFormat = Annotated[
    TextFormat,
    typer.Option("--format", help="What to write to stdout: a table for people, or JSON."),
]

StudyName = Annotated[
    str,
    typer.Option(
        "--study",
        metavar="NAME|PATH",
        help="The study: its name, or the path of a study file.",
        show_default=False,
    ),
]

StudyFilter = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME|PATH",
        help="One study: its name, or the path of its file. All of the database if left out.",
        show_default=False,
    ),
]

# No default of Typer's: the help would show what the environment holds, password and all.
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="HPO_STORAGE",
        metavar="URL",
        help=f"The study database; {DEFAULT_STORAGE} if left out. A URL with a password belongs "
        "into the environment variable, where other users of the machine cannot read it.",
        show_default=False,
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a key of the study file, such as training.epochs=3; may be repeated.",
        show_default=False,
    ),
]

Budget = Annotated[
    int | None,
    typer.Option(
        "--trials",
        metavar="N",
        help="Finished trials that the study is to have in total, over all runs; "
        "`search.trials` of the study if left out, or what was asked for before if that is more.",
    ),
]

StudyTitle = Annotated[
    str | None,
    typer.Option("--name", help="The study's name in the database; its file's if left out."),
]

Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Of the split, the draws and the training; `search.seed`."),
]

Population = Annotated[
    str, typer.Option("--population", metavar="K|auto", help="Trials to train side by side.")
]

Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Stop then, and hand back what runs."),
]

Lease = Annotated[
    float,
    typer.Option("--lease", metavar="SECONDS", help="How long a silent worker keeps its trials."),
]


def storage_url(given: str | None) -> str:
    """The database's URL: of the option, else of HPO_STORAGE (Typer reads it), else the file."""
    return given or DEFAULT_STORAGE


def same_storage(url: str) -> str:
    """What a command has to be told besides, with a space in front, to read the database at `url`.

    Empty where it reads that one anyway. What may be secret is not repeated.
    """
    if url == storage_url(os.environ.get("HPO_STORAGE")):
        return ""
    from hpo.search.url import redact

    return f" --storage {shlex.quote(url)}" if redact(url) == url else " (with the same --storage)"


def study_name(name_or_path: str) -> str:
    """What a study is called in the database, from what `--study` says.

    Raises:
        UsageError: this cannot be a name, or there is no such file.
    """
    from hpo import studies

    if studies.is_path(name_or_path):
        return studies.valid_name(studies.find(name_or_path).stem)
    return studies.valid_name(name_or_path)
