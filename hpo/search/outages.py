"""Living through a database that is away: the one place through which its calls go.

A call that fails for a reason that passes (a server that restarts, a lock that somebody holds) is
made again after a pause, until it works or patience runs out. Pauses grow and are drawn at random
from 0 to their ceiling ("full jitter": Brooker, Exponential Backoff And Jitter, AWS Architecture
Blog, 2015), so that the workers do not all come back at the same moment.
"""

from __future__ import annotations

import logging
import random
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from hpo.search.explain import driver_error
from hpo.search.waiting import stopped_within

__all__ = ["Patience", "is_contention", "is_transient"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_LONGEST_TURN = 1.0  # between tries to get what others hold and soon let go
_QUIET_SECONDS = 10.0  # for which waiting one's turn is nothing to speak of


class Patience:
    """Makes a call again while its error is one that passes.

    One object serves all threads and all calls of an open database. An outage is one for all of
    them: `seconds` count from its first error, it is logged when it begins and when it is over,
    and a call made within another (each through this object) adds nothing to it.

    Only a call that may be made twice may be made through it: the answer to the first may have
    been lost after the database had done its work.

    Args:
        seconds: how long an outage may last; 0 raises every error at once.
        stopping: asked between tries, from any thread; once it is true nothing is waited for.

    Attributes:
        explain: what an error means, for the log; `open_storage` sets it to one that shows no
            secrets.
    """

    def __init__(self, seconds: float = 0.0, stopping: Callable[[], bool] = lambda: False) -> None:
        self.seconds = seconds
        self.stopping = stopping
        self.explain: Callable[[BaseException], str] = lambda error: type(error).__name__
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last: BaseException | None = None

    @property
    def away(self) -> bool:
        """Whether the last call, of any thread, found no database."""
        return self._since is not None

    def __call__(self, call: Callable[[], _T]) -> _T:
        """Make a call, again and again where its error passes, and return what it returns.

        Raises:
            Exception: the error itself, when it does not pass, when the outage has lasted for
                `seconds`, or when `stopping` says so.
        """
        if self._since is not None and self._last is not None and self.stopping():
            raise self._last  # it was away a moment ago, and there is no time to see for oneself
        began, tries, told = None, 0, False
        while True:
            tried = time.monotonic()
            try:
                result = call()
            except Exception as error:
                if self.seconds <= 0 or not is_transient(error):
                    raise
                now = time.monotonic()
                began = now if began is None else began
                turn = is_contention(error)
                ceiling = min(_FIRST_PAUSE * 2**tries, _LONGEST_TURN if turn else _LONGEST_PAUSE)
                left = self._left(error, now, began, turn=turn)
                if left <= 0 or self.stopping():
                    raise
                if turn and not told and now - began > _QUIET_SECONDS:
                    _log.warning("%s; still trying", self.explain(error))
                    told = True
                if turn:
                    # A try that has waited for its turn (SQLite's do) is a pause, too.
                    ceiling = max(0.0, ceiling - (now - tried))
                pause = random.uniform(0, ceiling)  # noqa: S311
                if stopped_within(min(pause, left), self.stopping):
                    raise
            else:
                if self._since is not None:
                    self._over()
                return result
            tries = min(tries + 1, 10)

    def _left(self, error: BaseException, now: float, began: float, *, turn: bool) -> float:
        """Seconds that are left for tries; an outage that begins is noted and logged."""
        with self._lock:
            if turn:
                return began + self.seconds - now
            self._last = error
            if self._since is None:
                self._since = now
                _log.warning(
                    "%s; trying again for up to %.0f s", self.explain(error), self.seconds
                )
            return min(began, self._since) + self.seconds - now

    def _over(self) -> None:
        with self._lock:
            if self._since is not None:
                lasted = time.monotonic() - self._since
                _log.warning("the database answers again, after %.1f s", lasted)
            self._since = self._last = None


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later, with nobody doing anything about it.

    So is a database that cannot be reached, goes down, starts up, has no connection left or has
    something locked; not so are a wrong password, a missing database or right, a full disk, a
    damaged file, and mistakes in a program.
    """
    if isinstance(error, sa.exc.TimeoutError) or is_contention(error):
        return True
    cause = driver_error(error)
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(cause, psycopg.Error):
        return False
    if cause.sqlstate is not None:
        return re.match(_PASSING_STATES, cause.sqlstate) is not None
    # What fails while connecting, or with the connection, has only a text, which may be in any
    # language: whatever is not known to last is taken to pass.
    if isinstance(cause, psycopg.OperationalError):
        return re.search(_LASTING_TEXTS, str(cause), re.IGNORECASE) is None
    return isinstance(cause, psycopg.InterfaceError) and "connection" in str(cause)


def is_contention(error: BaseException) -> bool:
    """Whether the database is there, and only others are in the way for a moment."""
    cause = driver_error(error)
    if isinstance(cause, sa.exc.TimeoutError):
        return True  # every connection of the pool is in use
    if isinstance(cause, sqlite3.OperationalError):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
    return getattr(cause, "sqlstate", None) in _TURN_STATES


# Class 08 and: serialization failure, deadlock, lock not available, a statement that took longer
# than the server allows (as behind a lock), too many connections, shutdown by an administrator or
# after a crash, starting up, a session ended for being idle, and a standby that answers after a
# failover.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING_STATES = r"08|40001|40P01|55P03|57014|53300|57P0[1235]|25P0[34]|25006"
_TURN_STATES = ("40001", "40P01", "55P03", "57014", "53300")
_LASTING_TEXTS = (
    r"password|authentication|pg_hba|does not exist|permission denied|certificate|"
    r"not support SSL|SSL is not|invalid .*(option|value|port)"
)
