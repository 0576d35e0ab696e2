"""Connections to PostgreSQL that never wait for ever.

Keepalives and timeouts of TCP notice a machine or a network that is gone. They do not notice a
server that is stopped or stuck, whose machine goes on answering; and its own timeouts are of no
use then. So the client watches the time that it waits for an answer, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import cache
from typing import Any

import sqlalchemy as sa

from hpo.search.outages import Patience
from hpo.search.url import Address

__all__ = ["connector"]

_SILENT_SECONDS = 30.0
_SILENT_SECONDS_AT_STOP = 0.5

# A lock that a frozen worker holds is free after the second of these; whoever waits for a lock
# gives up before the server seems silent. By a statement: a pooler between refuses `options`.
_SETTINGS = (
    "SELECT set_config('lock_timeout', '20s', false), "
    "set_config('idle_in_transaction_session_timeout', '25s', false)"
)


def connector(address: Address, patience: Patience) -> Callable[[], Any]:
    """A function that opens a connection; fit for `create_engine(creator=...)`.

    Whoever has patience tries again, so that one try to connect is short; a stop is then heard
    soon. The server prepares no statements, unless the URL's `prepare_threshold` says after how
    many times one is.
    """
    url = sa.make_url(address.url)
    place = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "dbname": url.database,
        # A machine that went away is noticed within half a minute.
        "connect_timeout": 2 if patience.seconds else 5,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "hpo",
        **address.options,
    }
    given = {key: value for key, value in place.items() if value is not None}
    # A pooler that serves a transaction at a time gives the next one to another session, which
    # knows nothing of statements that were prepared in this.
    repeats = given.pop("prepare_threshold", None)
    kind = _connection_class()

    def connect() -> Any:
        connection = kind.connect(autocommit=True, **given)
        connection.stopping = patience.stopping
        connection.prepare_threshold = None if repeats is None else int(repeats)
        connection.execute(_SETTINGS)
        connection.autocommit = False
        return connection

    return connect


@cache
def _connection_class() -> Any:
    """The class of connections; psycopg is imported here, and only where it is needed."""
    import psycopg

    class Connection(psycopg.Connection[Any]):
        stopping: Callable[[], bool] = staticmethod(lambda: False)

        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            return super().wait(self._limited(gen), *arguments, **options)

        def _limited(self, gen: Any) -> Generator[Any, Any, Any]:
            """Stands between psycopg and its loop, which looks in ten times a second."""
            since = time.monotonic()
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready:
                        since = time.monotonic()
                    else:
                        self._check(time.monotonic() - since)
                    wanted = gen.send(ready)
            except StopIteration as done:
                return done.value

        def _check(self, waited: float) -> None:
            stopping = waited > _SILENT_SECONDS_AT_STOP and self.stopping()
            if stopping or waited > _SILENT_SECONDS:
                self.close()
                raise psycopg.OperationalError(f"the server was silent for {waited:.1f} s")

    return Connection
