"""Opening a study database safely: SQLite by default, PostgreSQL for a team.

SQLite runs in WAL mode with a long busy timeout, and a trial that was told is on the disk. Several
processes may open an empty database at once; one sets it up while the others wait. Whatever goes
wrong becomes one sentence that names the database without its password.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import Connection, Engine

from hpo.errors import FileError, HpoError, StorageError
from hpo.search import tables
from hpo.search.backend import Backend
from hpo.search.explain import explain
from hpo.search.ledger import Ledger
from hpo.search.outages import Patience
from hpo.search.server import connector
from hpo.search.url import Address, parse, redact

__all__ = ["Storage", "explain", "open_storage", "redact"]

_BUSY_SECONDS = 60.0
_BUSY_SECONDS_OF_THE_PATIENT = 1.0  # who try again; a stop is not heard while SQLite waits


@dataclass(frozen=True)
class Storage:
    """An open study database; close it, or use it as a context manager.

    Attributes:
        address: where it is; `address.shown` is fit for people.
        optuna: Optuna's storage, with Optuna's own cache around it.
        ledger: budgets and leases.
        engine: the one engine, and pool of connections, that both of them use.
        patience: what every call of both goes through.
    """

    address: Address
    optuna: BaseStorage
    ledger: Ledger
    engine: Engine
    patience: Patience

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """What a query gives, read through the same patience as everything else.

        Raises:
            StorageError, FileError: as `explain` has them.
        """

        def read() -> list[Any]:
            with self.engine.connect() as connection:
                return list(connection.execute(query))

        with self.guard():
            return self.patience(read)

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
        with _alone(self.address, self.patience):
            yield


def open_storage(
    url: str, *, must_exist: bool = False, patience: Patience | None = None
) -> Storage:
    """Open the database at `url`, and set it up where that was not done yet.

    Args:
        url: `sqlite:///hpo.db` or `postgresql://user:password@host/database`.
        must_exist: for commands that only read: nothing is created, and a database that hpo has
            not set up is an error.
        patience: what every call of the database goes through, this one too; without one, every
            error is raised at once.

    Raises:
        FileError: the disk or the file's folder refuses (SQLite).
        StorageError: anything else; the message names the URL without its secrets.
    """
    address = parse(url)
    patience = patience or Patience()
    patience.explain = lambda error: str(explain(error, address))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return patience(lambda: _open(address, must_exist, patience))
    except HpoError:
        raise
    except Exception as error:  # noqa: BLE001 (a driver may raise anything; see `explain`)
        problem = explain(error, address)
    # Not from within `except`: the driver's error may carry the password.
    raise problem


def _open(address: Address, must_exist: bool, patience: Patience) -> Storage:
    if address.path is not None:
        _check_path(address, address.path, must_exist)
    if not _is_set_up(address, patience):
        if must_exist:
            raise StorageError(f"{address.shown}: there is no study yet; hpo optimize starts one")
        with _alone(address, patience):
            if not _is_set_up(address, patience):
                return _connect(address, patience, fresh=True)
    return _connect(address, patience, fresh=False)


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


def _is_set_up(address: Address, patience: Patience | None = None) -> bool:
    """Whether hpo's tables are there, which are created after Optuna's; creates nothing."""
    if address.path is not None and not address.path.exists():
        return False
    with _probe(address, patience or Patience()) as connection:
        return tables.version(connection) > 0


def _connect(address: Address, patience: Patience, *, fresh: bool) -> Storage:
    if fresh:
        with _probe(address, patience) as connection:
            if address.path is not None:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            # A database of stock Optuna: if it is an older one, new tables would be in the way
            # of its upgrade.
            fresh = not sa.inspect(connection).has_table("alembic_version")
    # Optuna fills templates in a URL; a brace that belongs to a name is doubled.
    backend = Backend(
        address.url.replace("{", "{{").replace("}", "}}"),
        patience,
        engine_kwargs=_engine_options(address, patience),
        skip_compatibility_check=True,
        skip_table_creation=not fresh,
    )
    try:
        _check_version(backend, address)
        ledger = Ledger(backend.engine, patience)
    except BaseException:
        backend.engine.dispose()
        raise
    cached = optuna.storages.get_storage(backend)
    return Storage(address, cached, ledger, backend.engine, patience)


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


class _SqliteConnection(sqlite3.Connection):
    """A connection with the same settings, whatever SQLite was built for.

    With NORMAL, what was written survives the end of every process at once, and a power cut once
    a trial was told after it: the backend puts that on the disk, with all that went before. With
    FULL every report would wait for the disk, while all other writers wait for the report.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            self.execute("PRAGMA synchronous=NORMAL")
            self.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            self.close()
            raise


def _engine_options(address: Address, patience: Patience) -> dict[str, Any]:
    """Arguments of `create_engine`."""
    if address.path is not None:
        busy = _BUSY_SECONDS_OF_THE_PATIENT if patience.seconds else _BUSY_SECONDS
        return {"connect_args": {"timeout": busy, "factory": _SqliteConnection}}
    # A worker holds two connections, so that 40 workers fit into a server's default of 100.
    return {
        "creator": connector(address, patience),
        "pool_pre_ping": True,
        "pool_size": 2,
        "max_overflow": 2,
        "pool_recycle": 300,
    }


@contextmanager
def _probe(address: Address, patience: Patience) -> Iterator[Connection]:
    """One connection with nothing around it."""
    with _bare_engine(address, patience).connect() as connection:
        yield connection


def _bare_engine(address: Address, patience: Patience) -> Engine:
    options = _engine_options(address, patience)
    kept = {key: options[key] for key in ("connect_args", "creator") if key in options}
    return sa.create_engine(address.url, poolclass=sa.NullPool, **kept)


@contextmanager
def _alone(address: Address, patience: Patience) -> Iterator[None]:
    if address.path is None:
        with _locked(address, patience):
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


@contextmanager
def _locked(address: Address, patience: Patience) -> Iterator[None]:
    """A lock on the server; it is let go when its transaction ends, in whatever way."""
    engine = _bare_engine(address, patience)
    lock = sa.select(sa.func.pg_advisory_xact_lock(tables.LOCK, -1))

    def take() -> Connection:
        connection = engine.connect()
        try:
            connection.execute(lock)
        except BaseException:
            connection.close()
            raise
        return connection

    connection = patience(take)
    try:
        yield
    finally:
        # Nothing was written in it; should the server have ended it meanwhile, nothing is lost.
        with contextlib.suppress(sa.exc.DBAPIError):
            connection.close()


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
