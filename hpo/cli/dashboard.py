"""`hpo dashboard`: the studies of a database in the browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import RESULTS_PANEL, StorageUrl, storage_url
from hpo.errors import Interrupted, UsageError

__all__ = ["register"]

_TOKEN = "HPO_DASHBOARD_TOKEN"  # noqa: S105 (its name)

_Host = Annotated[
    str,
    typer.Option(
        "--host",
        help=f"The address to listen on. What other machines can reach needs a token in {_TOKEN}.",
    ),
]
_Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")
]
_AllowWrites = Annotated[
    bool,
    typer.Option("--allow-writes", help="Let the page change and delete what it shows."),
]
_AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A further host name under which browsers may reach it; may be repeated.",
        show_default=False,
    ),
]
_Artifacts = Annotated[
    Path | None,
    typer.Option(
        "--artifacts",
        metavar="DIR",
        help="The folder of Optuna's artifacts; without it none are shown.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel=RESULTS_PANEL)(dashboard)


def dashboard(
    storage: StorageUrl = None,
    host: _Host = "127.0.0.1",
    port: _Port = 8080,
    allow_writes: _AllowWrites = False,
    allow_host: _AllowHost = None,
    artifacts: _Artifacts = None,
) -> None:
    """Show the studies of a database in the browser, until Ctrl-C.

    Only this machine reaches it, and nothing can be changed, unless you say so. With
    HPO_DASHBOARD_TOKEN in the environment, whoever wants to see it must show that token.
    """
    from hpo.cli.signals import Stop
    from hpo.web.dashboard import Options, serve

    options = Options(
        host=host,
        port=port,
        token=_token(),
        allow_writes=allow_writes,
        allow_hosts=tuple(allow_host or ()),
        artifacts=artifacts,
    )
    with Stop() as stop:
        serve(storage_url(storage), options, stop, typer.echo)
    raise Interrupted("the dashboard has ended", stop.signal_number or 2)


def _token() -> str:
    """Of the environment, else of a file; empty where there is none."""
    from hpo.search.secret_file import DASHBOARD_TOKEN_FILE, secret_in_file

    if token := os.environ.get(_TOKEN, "").strip():
        return token
    secret = secret_in_file(DASHBOARD_TOKEN_FILE)
    # Blanks around it are taken off what a browser sends, too.
    if secret is not None and not secret.strip():
        raise UsageError(f"{DASHBOARD_TOKEN_FILE}: the file holds blanks only; put a token in it")
    return (secret or "").strip()
