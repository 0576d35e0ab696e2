"""`hpo data`: which datasets there are, and fetching them."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

from hpo.cli.options import DATA_PANEL, Format, OutputFormat
from hpo.errors import DataError, FileError, UsageError

__all__ = ["register"]

_log = logging.getLogger(__name__)
_SIZES = ["rows", "train_rows", "test_rows", "classes", "targets"]
_LIST = ["name", *_SIZES, "present", "folder", "bytes", "origin", "licence"]
_TABLE = ["name", "rows", "classes", "targets", "present", "bytes", "folder", "licence"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="List and fetch datasets.", invoke_without_command=True)
    group.callback()(_show_help)
    group.command("list")(list_datasets)
    group.command()(fetch)
    app.add_typer(group, name="data", rich_help_panel=DATA_PANEL)


def list_datasets(output: OutputFormat = Format.TABLE) -> None:
    """The datasets that a study may name, and whether their files are here.

    The data folder is HPO_DATA, or hpo in the user's cache. What is not present is fetched by
    the command that needs it first. What cannot be read is left out with a warning, and then the
    exit code is 74.
    """
    from hpo import data
    from hpo.cli import rendering

    data.data_folder()  # one that there cannot be is told once, and not of every dataset
    rows, unreadable = [], False
    for name in data.names():
        try:
            rows.append(_row(name))
        except (DataError, FileError) as error:  # the others are still of use
            _log.warning("%s", error)
            unreadable = unreadable or isinstance(error, FileError)
    if output is Format.JSON:
        rendering.write_json(rows)
    elif output is Format.CSV:
        rendering.write_csv(rows, _LIST)
    else:
        rendering.write_rows(rows, _TABLE, "no dataset can be read")
    if unreadable:
        raise typer.Exit(FileError.exit_code)


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Names of datasets.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dataset there is.")] = False,
) -> None:
    """Bring datasets into the data folder and check them; prints the folder of each."""
    from hpo import data
    from hpo.cli import rendering

    known = data.names()
    if bool(names) == everything:
        raise UsageError(f"name datasets, or use --all; there are {', '.join(known)}")
    chosen = known if everything else list(dict.fromkeys(names or []))
    for name in chosen:
        data.describe(name)  # a wrong name is found before anything is fetched
    for name in chosen:
        before = data.status(name)
        if not before.present:
            _log.info("%s: fetching %s", name, ", ".join(before.missing))
        folder = data.fetch(name)
        what = "was here already" if before.present else "fetched"
        _log.info("%s: %s, and every row fits its description", name, what)
        rendering.write(str(folder))


def _show_help(context: typer.Context) -> None:
    """List and fetch datasets."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _row(name: str) -> dict[str, Any]:
    from hpo import data

    info, found = data.describe(name), data.status(name)
    return {
        "name": name,
        "rows": info.n_train + info.n_test,
        "train_rows": info.n_train,
        "test_rows": info.n_test,
        "classes": info.classes or None,
        "targets": info.targets or None,
        "present": found.present,
        "folder": str(found.folder),
        "bytes": found.bytes,
        "origin": info.origin,
        "licence": info.licence,
    }
