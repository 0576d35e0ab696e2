"""Opening a study database safely: SQLite by default, PostgreSQL for a team.

SQLite runs in WAL mode with a long busy timeout and every commit on the disk. Several processes
may open an empty database at once; one sets it up while the others wait. Whatever goes wrong
becomes one sentence that names the database without its password.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import Connection, Engine

from hpo.errors import FileError, HpoError, StorageError
from hpo.search import tables
from hpo.search.ledger import Ledger
from hpo.search.url import Address, parse, redact

__all__ = ["Storage", "explain", "open_storage", "redact"]

_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Storage:
    """An open study database; close it, or use it as a context manager.

    Attributes:
        address: where it is; `address.shown` is fit for people.
        optuna: Optuna's storage, with Optuna's own cache around it.
        ledger: budgets and leases.
        engine: the one engine, and pool of connections, that both of them use.
    """

    address: Address
    optuna: BaseStorage
    ledger: Ledger
    engine: Engine

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn an error of the database inside the block into one sentence for a person.

        Raises:
            StorageError, FileError: as `explain` has them.
        """
        try:
            yield
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise explain(error, self.address) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process out of the same block while this one is in it.

        For what is done once a study, such as creating it. It ends with the process, also by
        kill -9.
        """
        with _alone(self.address):
            yield


def open_storage(url: str, *, must_exist: bool = False) -> Storage:
    """Open the database at `url`, and set it up where that was not done yet.

    Args:
        url: `sqlite:///hpo.db` or `postgresql://user:password@host/database`.
        must_exist: for commands that only read: nothing is created, and a database that hpo has
            not set up is an error.

    Raises:
        FileError: the disk or the file's folder refuses (SQLite).
        StorageError: anything else; the message names the URL without its secrets.
    """
    address = parse(url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return _open(address, must_exist)
    except HpoError:
        raise
    except Exception as error:  # noqa: BLE001 (a driver may raise anything; see `explain`)
        problem = explain(error, address)
    # Not from within `except`: the driver's error may carry the password.
    raise problem


def explain(error: BaseException, address: Address) -> HpoError:
    """What an error of the database means, in one sentence without secrets."""
    cause = _root(error)
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
    for pattern, sentence in _SERVER_REASONS:
        if re.search(pattern, f"{state} {text}", re.IGNORECASE):
            return StorageError(f"{address.shown}: {sentence}")
    return StorageError(f"{address.shown}: the database refuses ({text}); see the server's log")


def _open(address: Address, must_exist: bool) -> Storage:
    if address.path is not None:
        _check_path(address, address.path, must_exist)
    if not _is_set_up(address):
        if must_exist:
            raise StorageError(f"{address.shown}: there is no study yet; hpo optimize starts one")
        with _alone(address):
            if not _is_set_up(address):
                return _connect(address, fresh=True)
    return _connect(address, fresh=False)


def _check_path(address: Address, path: Path, must_exist: bool) -> None:
    if path.is_dir():
        raise FileError(f"{address.shown}: this is a folder; name a file in it")
    if must_exist and not path.exists():
        raise StorageError(
            f"{address.shown}: there is no such file; name the right one with --storage, "
            "or hpo optimize starts one"
        )
    if not path.parent.is_dir():
        raise FileError(
            f"{address.shown}: there is no folder {path.parent}; create it or name another"
        )


def _is_set_up(address: Address) -> bool:
    """Whether hpo's tables are there, which are created after Optuna's; creates nothing."""
    if address.path is not None and not address.path.exists():
        return False
    with _probe(address) as connection:
        return tables.version(connection) > 0


def _connect(address: Address, *, fresh: bool) -> Storage:
    if fresh:
        with _probe(address) as connection:
            if address.path is not None:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            # A database of stock Optuna: if it is an older one, new tables would be in the way
            # of its upgrade.
            fresh = not sa.inspect(connection).has_table("alembic_version")
    # Optuna fills templates in a URL; a brace that belongs to a name is doubled.
    backend = _Backend(
        address.url.replace("{", "{{").replace("}", "}}"),
        engine_kwargs=_engine_options(address),
        skip_compatibility_check=True,
        skip_table_creation=not fresh,
    )
    try:
        _check_version(backend, address)
        ledger = Ledger(backend.engine)
    except BaseException:
        backend.engine.dispose()
        raise
    return Storage(address, optuna.storages.get_storage(backend), ledger, backend.engine)


def _check_version(backend: RDBStorage, address: Address) -> None:
    found = backend.get_current_version()
    if found == backend.get_head_version():
        return
    remedy = (
        "an older Optuna wrote it; save a copy, then run optuna storage upgrade --storage URL"
        if found in backend.get_all_versions()
        else "a newer Optuna wrote it; update hpo and optuna"
    )
    raise StorageError(f"{address.shown}: its tables are of version {found}: {remedy}")


class _Backend(RDBStorage):
    """Optuna's storage, with a change of a trial's state that is atomic on SQLite too.

    Optuna reads the state and then writes, under `SELECT ... FOR UPDATE`, which SQLite lacks; so
    two processes could both tell the same trial there.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._exclusive = threading.local()
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "begin", self._begin)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self._exclusive.wanted = True
        try:
            return super().set_trial_state_values(trial_id, state, values)
        finally:
            self._exclusive.wanted = False

    def _begin(self, connection: Connection) -> None:
        if getattr(self._exclusive, "wanted", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


class _SqliteConnection(sqlite3.Connection):
    """A connection whose commits are on the disk when they return, whatever SQLite was built for.

    FULL and not NORMAL: a result that was told must survive a power cut.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            self.execute("PRAGMA synchronous=FULL")
            self.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            self.close()
            raise


def _engine_options(address: Address) -> dict[str, Any]:
    """Arguments of `create_engine`."""
    if address.path is not None:
        return {"connect_args": {"timeout": _BUSY_SECONDS, "factory": _SqliteConnection}}
    # A dead server is noticed within half a minute; a worker holds two connections, so that
    # 40 workers fit into a server's default of 100.
    defaults = {
        "connect_timeout": 5,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "hpo",
    }
    return {
        "connect_args": {**defaults, **address.options},
        "pool_pre_ping": True,
        "pool_size": 2,
        "max_overflow": 2,
        "pool_recycle": 300,
    }


@contextmanager
def _probe(address: Address) -> Iterator[Connection]:
    """One connection with nothing around it."""
    options = _engine_options(address)["connect_args"]
    engine = sa.create_engine(address.url, connect_args=options, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def _alone(address: Address) -> Iterator[None]:
    if address.path is None:
        with _probe(address) as connection, connection.begin():
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(tables.LOCK, -1)))
            yield
        return
    # The folder is locked, not the file: SQLite loses its own locks when anybody in the process
    # closes the file.
    folder = os.open(address.path.parent, os.O_RDONLY)
    try:
        _lock(folder, address)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, address: Address) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{address.shown}: another process has been setting it up for "
                    f"{_BUSY_SECONDS:.0f} s; end that process and try again"
                ) from None
            time.sleep(0.02)
        else:
            return


def _root(error: BaseException) -> BaseException:
    """What the driver said, below the wrappers of Optuna and SQLAlchemy."""
    if isinstance(error, ImportError) and isinstance(error.__cause__, ImportError):
        return error.__cause__
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        error = error.__cause__
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
            f"{_free(address)}); make room, then run the same command again"
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StorageError(
            f"{address.shown}: this is not an SQLite database, or it is damaged; name another file"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"{address.shown}: another program has kept it locked for {_BUSY_SECONDS:.0f} s; "
            "end that program and run the same command again"
        )
    return StorageError(
        f"{address.shown}: the database refuses ({_first_line(error, address)}); "
        "name another file or update hpo"
    )


def _free(address: Address) -> str:
    try:
        stat = os.statvfs(address.path.parent if address.path else "/")
    except OSError:
        return "free space unknown"
    return f"{stat.f_bavail * stat.f_frsize:,} bytes free"


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
        r"refused|no such file|no route|unreachable|timeout|timed out",
        "no server answers there; check host and port, and that it runs",
    ),
    (
        r"53300|too many clients|connection slots",
        "the server has no connection left; raise its max_connections or run fewer workers",
    ),
    (
        r"57P0[123]|starting up|shutting down|terminat|closed the connection|08\d\d\d",
        "the connection to the server was lost; run the same command again once it is back",
    ),
    (r"42501|permission denied", "the user may not create or write tables; grant the rights"),
    (r"53100|no space left", "the server's disk is full; make room on it"),
    (
        r"invalid connection option|invalid .* value",
        "PostgreSQL does not know an option of the URL; check what follows the question mark",
    ),
)
