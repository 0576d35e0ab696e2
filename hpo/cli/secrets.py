"""Keeping passwords, and what steers a terminal, out of errors, log lines and tracebacks.

The rooms below show no secret of their own accord; this is the last door, for what a driver or
the command line's parser says.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

from hpo.errors import FileError
from hpo.search.secret_file import (
    DASHBOARD_TOKEN_FILE,
    STORAGE_PASSWORD_FILE,
    secret_in_file,
)

__all__ = ["Scrubber"]

_MARK = "://"
_HIDDEN = "***"
_IN_FILES = (STORAGE_PASSWORD_FILE, DASHBOARD_TOKEN_FILE)
_IN_ENVIRONMENT = "HPO_DASHBOARD_TOKEN"
_SECRET_KEY = re.compile(r"pass|secret|token", re.IGNORECASE)


class Scrubber:
    """Replaces the URLs of this run, and their passwords, wherever a text has them.

    Args:
        arguments: the command line, without the program's name.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        words = [word for argument in arguments for word in (argument, *argument.split("=", 1))]
        words.append(os.environ.get("HPO_STORAGE", ""))
        self._urls = {word.strip() for word in words if _MARK in word}
        self._secrets = {form for url in self._urls for form in _secrets_in(url)}
        self._secrets |= {form for secret in _given() for form in _forms(secret)}

    def __call__(self, text: str) -> str:
        """`text` without secrets, and without what a terminal would obey; line breaks stay."""
        for url in sorted(self._urls, key=len, reverse=True):
            if url in text:
                text = text.replace(url, _redacted(url))
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        # A name out of a database may hold anything.
        return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)


def _redacted(url: str) -> str:
    from hpo.search.url import redact  # needs SQLAlchemy, so only where there is a URL to show

    option, mark, rest = url.partition("=")
    if mark and option.startswith("-"):
        return f"{option}={redact(rest)}"
    return redact(url)


def _secrets_in(url: str) -> Iterator[str]:
    """Every form of every password that a URL might hold, however badly it is written."""
    rest = url.split(_MARK, 1)[1]
    login, at, _ = rest.rpartition("@")
    found = [login.partition(":")[2]] if at else []
    query = rest.partition("?")[2]
    found += [value for key, value in parse_qsl(query) if _SECRET_KEY.search(key)]
    found += [item.partition("=")[2] for item in query.split("&") if _SECRET_KEY.search(item)]
    for secret in filter(None, found):
        for form in (secret, unquote(secret), unquote_plus(secret)):
            yield from _forms(form)


def _given() -> Iterator[str]:
    """The secrets besides a URL's; a file that cannot be read is for whoever needs it to say."""
    yield from filter(None, [os.environ.get(_IN_ENVIRONMENT, "").strip()])
    for variable in _IN_FILES:
        with contextlib.suppress(FileError):
            yield from filter(None, [secret_in_file(variable)])


def _forms(secret: str) -> Iterator[str]:
    """A secret as drivers, URLs and tracebacks write it."""
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield repr(secret)[1:-1]
