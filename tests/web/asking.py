"""Asking a WSGI application, as a server does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIApplication


@dataclass(frozen=True)
class Reply:
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: WSGIApplication, method: str, path: str, body: bytes = b"", /, **headers: str
) -> Reply:
    """One request; `Sec_Fetch_Site` among the headers means `Sec-Fetch-Site`."""
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": headers.pop("address", "127.0.0.1"),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": headers.pop("content_type", "application/json"),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "HTTP_HOST": "127.0.0.1:8080",
    }
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    found: dict[str, Any] = {}

    def start_response(
        status: str, fields: list[tuple[str, str]], *_: object
    ) -> Callable[[bytes], object]:
        names = [name.lower() for name, _ in fields]
        assert len(set(names)) == len(names), f"a header twice: {names}"
        found.update(status=int(status[:3]), headers={n.lower(): v for n, v in fields})
        return lambda _: None

    answer = app(environ, start_response)
    try:
        whole = b"".join(answer)
    finally:
        getattr(answer, "close", lambda: None)()
    return Reply(found["status"], found["headers"], whole)
