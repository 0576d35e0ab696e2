"""The token: who has shown it, and how often it may be guessed.

A browser shows it once, on the login page, and gets a session: a random number that says nothing
about the token and ends with the process at the latest. A program sends it with each request.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from hpo.errors import UsageError

__all__ = ["MINIMUM", "SESSION_SECONDS", "Keys", "Throttled"]

MINIMUM = 16
"""Characters that a token must have at least."""

SESSION_SECONDS = 12 * 3600

_K = TypeVar("_K")
_V = TypeVar("_V")

_MOST = 1000  # sessions, and addresses that guessed, that are remembered
_FREE_GUESSES = 5
_LONGEST_PAUSE = 60.0


class Throttled(Exception):  # noqa: N818 - it is no fault
    """Too many wrong tokens came from an address.

    Attributes:
        seconds: until the next one is looked at, at least 1.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many wrong tokens; wait {seconds:.0f} s")
        self.seconds = max(1, round(seconds))


class Keys:
    """One token and the sessions that were opened with it; for several threads at once.

    Args:
        token: at least `MINIMUM` characters.
        clock: seconds that never go back.

    Raises:
        UsageError: the token is too short.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        if len(token) < MINIMUM:
            raise UsageError(
                f"HPO_DASHBOARD_TOKEN has fewer than {MINIMUM} characters; make a long one, "
                "for example with openssl rand -hex 16"
            )
        self._token = _digest(token)
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, float] = {}
        self._guesses: dict[str, tuple[int, float]] = {}

    def is_token(self, given: str, address: str) -> bool:
        """Whether `given`, which came from `address`, is the token.

        Raises:
            Throttled: the address guessed wrong too often; `given` was not looked at.
        """
        with self._lock:
            guesses, until = self._guesses.get(address, (0, 0.0))
            now = self._clock()
            if now < until:
                raise Throttled(until - now)
            # Digests, so that not even the length can be told from the time.
            if hmac.compare_digest(_digest(given), self._token):
                self._guesses.pop(address, None)
                return True
            pause = 0.0
            if guesses + 1 >= _FREE_GUESSES:
                pause = min(_LONGEST_PAUSE, 2.0 ** (guesses + 1 - _FREE_GUESSES))
            _remember(self._guesses, address, (guesses + 1, now + pause))
            return False

    def open_session(self) -> str:
        """A new session's secret, for the cookie of whoever has shown the token."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            _remember(self._sessions, _digest(secret), self._clock() + SESSION_SECONDS)
        return secret

    def is_session(self, secret: str) -> bool:
        """Whether a session with this secret is open."""
        with self._lock:
            return self._clock() < self._sessions.get(_digest(secret), 0.0)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _remember(found: dict[_K, _V], key: _K, value: _V) -> None:
    """Note it as the newest, and forget the oldest where there are too many."""
    found.pop(key, None)
    found[key] = value
    if len(found) > _MOST:
        found.pop(next(iter(found)))
