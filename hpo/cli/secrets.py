"""Keeping passwords out of whatever is printed: errors, log lines, tracebacks.

The rooms below show no secret of their own accord; this is the last door, for what a driver or
the command line's parser says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

__all__ = ["Scrubber"]

_MARK = "://"
_HIDDEN = "***"
_SECRET_KEY = re.compile(r"pass|secret|token", re.IGNORECASE)


class Scrubber:
    """Replaces the URLs of this run, and the passwords in them, wherever a text has them.

    Args:
        arguments: the command line, without the program's name.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        words = [word for argument in arguments for word in (argument, *argument.split("=", 1))]
        words.append(os.environ.get("HPO_STORAGE", ""))
        self._urls = {word.strip() for word in words if _MARK in word}
        self._secrets = {form for url in self._urls for form in _secrets_in(url)}

    def __call__(self, text: str) -> str:
        """`text` without secrets; its line breaks stay."""
        for url in sorted(self._urls, key=len, reverse=True):
            if url in text:
                text = text.replace(url, _redacted(url))
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        return text


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
        plain = (secret, unquote(secret), unquote_plus(secret))
        for form in plain:
            yield from (form, quote(form), quote(form, safe=""), quote_plus(form))
            yield repr(form)[1:-1]
