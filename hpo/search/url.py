"""The address of a study database: read strictly, and shown without its secrets.

`sqlite:///hpo.db` (relative to the working folder), `sqlite:////var/lib/hpo.db` (absolute),
`postgresql://user:password@host:port/database?sslmode=require`. `postgresql://` and
`postgres://` mean psycopg 3. The password of a URL without one may lie in a file, which the
environment variable HPO_STORAGE_PASSWORD_FILE names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

import sqlalchemy as sa

from hpo.errors import StorageError
from hpo.search.secret_file import STORAGE_PASSWORD_FILE, secret_in_file

__all__ = ["Address", "parse", "redact"]

# Strict on purpose: a password with a bare `@`, `/` or `?` in it could be taken for a host or
# a database, and would then be printed. Such a URL matches nothing here and is not shown.
_SERVER = re.compile(
    r"(?P<scheme>[A-Za-z][\w+]*)://"
    r"(?:(?P<user>[^:@/?\s]*)(?P<password>:[^@/?\s]*)?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@/?#&\[\]\s]*)(?P<port>:[0-9]{0,5})?"
    r"(?P<database>/[^?@#\s]*)?"
    r"(?:\?(?P<query>[^?@#\s]*))?"
)
_FILE = re.compile(r"(?P<scheme>sqlite(?:\+\w+)?)://(?P<path>/[^?\0]*)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][\w+]{0,30})://")
_OPEN_KEYS = frozenset(
    {"application_name", "connect_timeout", "dbname", "host", "port", "sslmode"}
)
_EXAMPLES = "write sqlite:///hpo.db or postgresql://user:password@host/database"


@dataclass(frozen=True)
class Address:
    """Where a database is.

    Attributes:
        shown: the URL for people, without secrets.
        url: the URL for SQLAlchemy, without password and query.
        path: the file of an SQLite database, absolute; None for a server.
        options: what `url` lacks, as arguments of the driver's connect; never shown.
    """

    shown: str
    url: str
    path: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def scrub(self, text: str) -> str:
        """`text`, which a driver wrote, with every form of a secret replaced by `***`."""
        secrets = [value for key, value in self.options.items() if "pass" in key.lower()]
        for secret in filter(None, secrets):
            for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(form, "***")
        return text


def parse(url: str) -> Address:
    """Read a storage URL.

    Raises:
        StorageError: it cannot be read, or names a database that hpo does not keep studies in.
        FileError: the file with its password cannot be read.
    """
    url = url.strip()
    if (scheme := _SCHEME.match(url)) is None:
        raise StorageError(f"the storage URL cannot be read; {_EXAMPLES}")
    dialect, _, driver = scheme[1].lower().partition("+")
    if dialect == "sqlite" and driver in ("", "pysqlite"):
        return _file(url)
    if dialect in ("postgres", "postgresql") and driver in ("", "psycopg"):
        return _server(url)
    raise StorageError(
        f"{redact(url)}: hpo keeps studies in SQLite or in PostgreSQL through psycopg 3; "
        f"{_EXAMPLES}"
    )


def redact(url: str) -> str:
    """A storage URL that can be shown: no password, nothing that could be a part of one.

    A URL that is not written by the rules is cut down to its scheme.
    """
    url = url.strip()
    if _FILE.fullmatch(url) is not None:
        return url
    if (server := _SERVER.fullmatch(url)) is None or server["scheme"].startswith("sqlite"):
        scheme = _SCHEME.match(url)
        return f"{scheme[1]}://***" if scheme else "***"
    login = server["user"] or ""
    login += ":***" if server["password"] else ""
    at = "@" if server["user"] is not None else ""
    place = server["host"] + (server["port"] or "") + (server["database"] or "")
    query = f"?{_shown_query(server['query'])}" if server["query"] else ""
    return f"{server['scheme']}://{login}{at}{place}{query}"


def _shown_query(query: str) -> str:
    shown = []
    for item in query.split("&"):
        key = unquote_plus(item.partition("=")[0])
        if key in _OPEN_KEYS and "=" in item:
            shown.append(item)
        else:
            shown.append(f"{key}=***" if key in ("password", "sslpassword") else "***")
    return "&".join(shown)


def _file(url: str) -> Address:
    # SQLAlchemy decodes %20 in a file's name from 2.1 on; whatever it does is done here as well.
    name = sa.make_url(url).database if _FILE.fullmatch(url) else None
    if not name or name == ":memory:" or "\0" in name or name.startswith("file:"):
        raise StorageError(
            f"{redact(url)}: this names no database file; write sqlite:///hpo.db, without options"
        )
    path = Path(name).absolute()
    whole = sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    return Address(shown=redact(url), url=whole, path=path)


def _server(whole: str) -> Address:
    match = _SERVER.fullmatch(whole)
    if match is None:
        raise StorageError(
            f"{redact(whole)}: the storage URL cannot be read; in a user name or a password write "
            "@ as %40, / as %2F and ? as %3F"
        )
    options = {"password": unquote(match["password"][1:])} if match["password"] else {}
    options |= dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    # As with libpq's PGPASSWORD, what the URL itself says goes first.
    if not options.get("password") and "passfile" not in options:
        filed = secret_in_file(STORAGE_PASSWORD_FILE)
        options |= {"password": filed} if filed is not None else {}
    plain = sa.URL.create(
        "postgresql+psycopg",
        username=unquote(match["user"]) if match["user"] else None,
        host=match["host"].strip("[]") or None,
        port=int(match["port"][1:]) if match["port"] and match["port"] != ":" else None,
        database=unquote(match["database"][1:]) if match["database"] else None,
    )
    url = plain.render_as_string(hide_password=False)
    return Address(shown=redact(whole), url=url, options=options)
