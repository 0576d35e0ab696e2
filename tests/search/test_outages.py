from __future__ import annotations

import logging
import sqlite3
import threading
import time
from typing import Any

import optuna
import psycopg
import pytest
import sqlalchemy as sa

from hpo.search import outages
from hpo.search.outages import Patience, is_transient


def wrapped(error: BaseException) -> optuna.exceptions.StorageInternalError:
    """As a driver's error arrives through SQLAlchemy and Optuna."""
    try:
        raise optuna.exceptions.StorageInternalError("x") from sa.exc.OperationalError(
            "SELECT 1", {}, error
        )
    except optuna.exceptions.StorageInternalError as outer:
        return outer


def refused() -> psycopg.OperationalError:
    return psycopg.OperationalError("connection failed: Connection refused")


def locked(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("locked")
    error.sqlite_errorcode = code
    return error


class Shaky:
    """A call that fails so many times."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.left = failures
        self.tries = 0
        self.error = error or refused()

    def __call__(self) -> str:
        self.tries += 1
        if self.left > 0:
            self.left -= 1
            raise self.error
        return "done"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ceilings of the pauses, which are then not made."""
    found: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        found.append(high)
        return 0.0

    monkeypatch.setattr("hpo.search.outages.random.uniform", uniform)
    return found


def test_a_call_is_made_until_it_works(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    patience = Patience(60.0)
    patience.explain = lambda error: f"explained {type(error).__name__}"
    for _ in range(2):
        shaky = Shaky(8)
        assert patience(shaky) == "done"
        assert shaky.tries == 9
        assert not patience.away
    # They grow, and not for ever.
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0] * 2
    # Once when it begins and once when it is over, for each of the two.
    assert len(caplog.messages) == 4
    assert caplog.messages[0] == "explained OperationalError; trying again for up to 60 s"
    assert "answers again" in caplog.messages[1]


def test_without_patience_an_error_is_raised_at_once(caplog: pytest.LogCaptureFixture) -> None:
    shaky = Shaky(1)
    with pytest.raises(psycopg.OperationalError) as caught:
        Patience()(shaky)
    assert caught.value is shaky.error
    assert (shaky.tries, caplog.messages) == (1, [])


def test_what_does_not_pass_is_raised_at_once() -> None:
    shaky = Shaky(1, ValueError("a mistake"))
    with pytest.raises(ValueError, match="a mistake"):
        Patience(60.0)(shaky)
    assert shaky.tries == 1


def test_patience_runs_out_and_stays_so() -> None:
    """Whoever has waited in vain does not wait once more to hand back its trials."""
    patience = Patience(0.5)
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        patience(Shaky(10_000))
    assert time.monotonic() - began >= 0.5
    assert patience.away
    last = Shaky(10_000)
    with pytest.raises(psycopg.OperationalError):
        patience(last)
    assert last.tries == 1


def test_a_call_within_a_call_adds_nothing(pauses: list[float]) -> None:
    patience, inner = Patience(0.3), Shaky(10**9)
    began = time.monotonic()
    outer_tries = 0

    def outer() -> str:
        nonlocal outer_tries
        outer_tries += 1
        return patience(inner)

    with pytest.raises(psycopg.OperationalError):
        patience(outer)
    assert outer_tries == 1
    assert inner.tries == len(pauses) + 1
    assert time.monotonic() - began >= 0.3


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    patience = Patience(600.0, stop.is_set)
    threading.Timer(0.4, stop.set).start()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        patience(Shaky(10_000))
    assert time.monotonic() - began >= 0.4
    # The database was away a moment ago; what comes after a stop does not ask again.
    later = Shaky(0)
    with pytest.raises(psycopg.OperationalError):
        patience(later)
    assert later.tries == 0


def test_a_stop_while_all_is_well_lets_the_last_calls_through() -> None:
    patience = Patience(600.0, lambda: True)
    assert patience(Shaky(0)) == "done"
    busy = Shaky(1, locked(sqlite3.SQLITE_BUSY))
    with pytest.raises(sqlite3.OperationalError):
        patience(busy)
    assert patience(Shaky(0)) == "done"


def test_waiting_for_ones_turn_is_no_outage(
    pauses: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(60.0)
    assert patience(Shaky(8, locked(sqlite3.SQLITE_BUSY))) == "done"
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0], abs=0.1)
    assert caplog.messages == []
    monkeypatch.setattr(outages, "_QUIET_SECONDS", 0.0)
    assert patience(Shaky(8, locked(sqlite3.SQLITE_BUSY))) == "done"
    assert caplog.messages == ["OperationalError; still trying"]


def test_a_try_that_waited_for_its_turn_is_a_pause(pauses: list[float]) -> None:
    busy = Shaky(2, locked(sqlite3.SQLITE_BUSY))

    def call() -> str:
        time.sleep(0.45)
        return busy()

    assert Patience(60.0)(call) == "done"
    assert pauses == [0.0, 0.0]


def test_threads_share_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    patience, away = Patience(60.0), threading.Event()
    away.set()
    answers = []

    def call() -> str:
        if away.is_set():
            raise refused()
        return "done"

    threads = [threading.Thread(target=lambda: answers.append(patience(call))) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    away.clear()
    for thread in threads:
        thread.join()
    assert answers == ["done"] * 8
    assert len(caplog.messages) == 2


STATES = {
    "08006": True,  # connection failure
    "57P01": True,  # admin shutdown
    "57P02": True,  # crash shutdown
    "57P03": True,  # cannot connect now
    "57P04": False,  # the database was dropped
    "53300": True,  # too many connections
    "53100": False,  # disk full
    "40001": True,  # serialization failure
    "40P01": True,  # deadlock
    "55P03": True,  # lock not available
    "57014": True,  # longer than the server lets a statement take
    "25006": True,  # a standby, until the address is the new primary's
    "28P01": False,  # wrong password
    "3D000": False,  # no such database
    "42501": False,  # no right
    "42P01": False,  # no such table
    "XX001": False,  # damaged
}


@pytest.mark.parametrize("state", STATES)
def test_what_a_server_says_by_its_state(state: str) -> None:
    class Said(psycopg.OperationalError):
        sqlstate = state

    assert is_transient(Said("x")) is STATES[state]
    assert is_transient(wrapped(Said("x"))) is STATES[state]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('connection to server at "::1", port 5 failed: Connection refused', True),
        ("connection failed: FATAL:  the database system is starting up", True),
        ("connection failed: FATAL:  sorry, too many clients already", True),
        ("server closed the connection unexpectedly", True),
        ("connection timeout expired", True),
        ("consuming input failed: could not receive data from server: reset", True),
        ('could not translate host name "db" to address: Name or service not known', True),
        ("connection failed: FATAL:  das Datenbanksystem startet", True),
        ('FATAL:  password authentication failed for user "x"', False),
        ("fe_sendauth: no password supplied", False),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4"', False),
        ('FATAL:  database "x" does not exist', False),
        ('FATAL:  role "x" does not exist', False),
        ("server does not support SSL, but SSL was required", False),
        ("SSL error: certificate verify failed", False),
        ('invalid connection option "nonsense"', False),
    ],
)
def test_what_has_no_state_is_known_by_its_text(text: str, expected: bool) -> None:
    assert is_transient(psycopg.OperationalError(text)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (locked(sqlite3.SQLITE_BUSY), True),
        (locked(sqlite3.SQLITE_BUSY_SNAPSHOT), True),
        (locked(sqlite3.SQLITE_LOCKED), True),
        (locked(sqlite3.SQLITE_FULL), False),
        (locked(sqlite3.SQLITE_IOERR), False),
        (locked(sqlite3.SQLITE_CORRUPT), False),
        (locked(sqlite3.SQLITE_READONLY), False),
        (psycopg.InterfaceError("the connection is closed"), True),
        (psycopg.InterfaceError("cursor has no result"), False),
        (sa.exc.TimeoutError("QueuePool limit"), True),
        (sa.exc.IntegrityError("x", {}, psycopg.IntegrityError("x")), False),
        (sa.exc.ProgrammingError("x", {}, psycopg.ProgrammingError("x")), False),
        (KeyError("x"), False),
        (OSError("x"), False),
    ],
)
def test_other_errors(error: BaseException, expected: bool) -> None:
    assert is_transient(error) is expected


def test_a_second_query_on_a_lost_connection() -> None:
    """Optuna asks again inside the first error; what counts is why."""
    error: Any = None
    try:
        try:
            raise sa.exc.OperationalError("x", {}, refused())
        except sa.exc.OperationalError:
            raise sa.exc.PendingRollbackError("invalid transaction")  # noqa: B904
    except sa.exc.PendingRollbackError as second:
        error = second
    assert is_transient(error)
    assert not is_transient(sa.exc.PendingRollbackError("of itself"))


def test_the_log_shows_no_secrets(postgres_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    from hpo.errors import StorageError
    from hpo.search.storage import open_storage

    url = sa.make_url(postgres_server.tcp_url()).set(port=1).render_as_string(hide_password=False)
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageError, match="no server answers"):
        open_storage(url, patience=Patience(0.3))
    assert "no server answers there" in caplog.text
    assert "trying again for up to 0 s" in caplog.text
    assert postgres_server.password not in caplog.text
