"""What an error of the database means, in one sentence for a person, without secrets."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import optuna
import sqlalchemy as sa

from hpo.errors import FileError, HpoError, StorageError
from hpo.files import free_bytes
from hpo.search.url import Address

__all__ = ["driver_error", "explain"]


def explain(error: BaseException, address: Address) -> HpoError:
    """What an error of the database means, in one sentence without secrets."""
    cause = driver_error(error)
    if isinstance(cause, ModuleNotFoundError):
        return StorageError(
            f"{address.shown}: PostgreSQL needs psycopg; run pip install 'hpo[postgres]'"
        )
    if isinstance(cause, sqlite3.Error):
        return _explain_sqlite(cause, address)
    if isinstance(cause, OSError | ValueError) and address.path is not None:
        return FileError(f"{address.shown}: {_first_line(cause, address)}; name another file")
    text = _first_line(cause, address)
    state = getattr(cause, "sqlstate", None) or ""
    for said in filter(None, (state, text)):  # a text may hold a word that means another state
        for pattern, sentence in _SERVER_REASONS:
            if re.search(pattern, said, re.IGNORECASE):
                return StorageError(f"{address.shown}: {sentence}")
    return StorageError(f"{address.shown}: the database refuses ({text}); see the server's log")


def driver_error(error: BaseException) -> BaseException:
    """What the driver said, below the wrappers of Optuna and SQLAlchemy."""
    if isinstance(error, ImportError) and isinstance(error.__cause__, ImportError):
        return error.__cause__
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, sa.exc.PendingRollbackError) and error.__context__:
        # Optuna asks again, on a connection that broke, while it handles the break itself.
        return driver_error(error.__context__)
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        return error.orig
    return error


def _first_line(error: BaseException, address: Address) -> str:
    lines = address.scrub(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _explain_sqlite(error: sqlite3.Error, address: Address) -> HpoError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return FileError(
            f"{address.shown}: the file or its folder cannot be written; "
            "change their permissions or name another file"
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_TOOBIG):
        return FileError(
            f"{address.shown}: the disk refuses ({_first_line(error, address)}, "
            f"{free_bytes(address.path or Path('/'))}); make room, then run the same command again"
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StorageError(
            f"{address.shown}: this is not an SQLite database, or it is damaged; name another file"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"{address.shown}: another program keeps it locked; "
            "end that program and run the same command again"
        )
    return StorageError(
        f"{address.shown}: the database refuses ({_first_line(error, address)}); "
        "name another file or update hpo"
    )


# What PostgreSQL or its client says (SQLSTATE and the message's first line), for a person.
_SERVER_REASONS = (
    (
        r"password|authentication|no pg_hba|28P01|28000",
        "the server refuses this login; check user and password",
    ),
    (
        r"3D000|database .* does not exist",
        "the server has no such database; create it with createdb or name another",
    ),
    (r"role .* does not exist", "the server knows no such user; check the user name"),
    (
        r"resolve|translate host|name or service|nodename|name resolution",
        "the host is not known; check its name",
    ),
    (
        r"refused|no such file|no route|unreachable|timeout|timed out|silent",
        "no server answers there; check host and port, and that it runs",
    ),
    (
        r"53300|too many clients|connection slots",
        "the server has no connection left; raise its max_connections or run fewer workers",
    ),
    (
        r"40001|40P01|55P03|57014|deadlock|lock timeout",
        "others keep what is needed here locked; run the same command again",
    ),
    (
        r"57P0[1235]|25P03|starting up|shutting down|terminat|closed the connection|08\d\d\d",
        "the connection to the server was lost; run the same command again once it is back",
    ),
    (
        r"25006|read-only transaction",
        "the server takes no changes (perhaps a standby); name the one that does",
    ),
    (r"42501|permission denied", "the user may not create or write tables; grant the rights"),
    (r"53100|no space left", "the server's disk is full; make room on it"),
    (
        r"invalid connection option|invalid .* value",
        "PostgreSQL does not know an option of the URL; check what follows the question mark",
    ),
)
