"""The door's own answers: refusals, redirections, and the page that asks for the token."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["LOGIN_POLICY", "Answer", "login_page", "moved", "refusal"]

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:24rem;margin:15vh auto;padding:0 1rem;color:#222}"
    "input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin-top:.5rem}"
    "[role=alert]{color:#a40000}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

LOGIN_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The login page's Content-Security-Policy: it runs nothing and loads nothing."""


@dataclass(frozen=True)
class Answer:
    """A whole answer, ready to be sent.

    Attributes:
        status: as HTTP has it, such as `403 Forbidden`.
    """

    status: str
    content_type: str
    body: str
    headers: tuple[tuple[str, str], ...] = ()

    def send(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send it, as a WSGI application does; to HEAD without its body."""
        body = self.body.encode()
        length = ("Content-Length", str(len(body)))
        start_response(self.status, [("Content-Type", self.content_type), length, *self.headers])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def refusal(status: str, reason: str, *headers: tuple[str, str]) -> Answer:
    """No, and why; in the form in which optuna-dashboard's page expects an error."""
    body = json.dumps({"reason": reason})
    return Answer(status, "application/json", body, headers)


def moved(path: str, *headers: tuple[str, str]) -> Answer:
    """Go to another path of this server."""
    # Relative: behind a proxy that speaks TLS this server does not know its own scheme.
    return Answer("303 See Other", "text/plain", "", (("Location", path), *headers))


def login_page(problem: str = "", *headers: tuple[str, str], status: str = "200 OK") -> Answer:
    """The page that asks for the token."""
    alert = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
    body = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hpo dashboard</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>hpo dashboard</h1>
{alert}
<form method="post" action="/login">
<label for="token">The token, which is HPO_DASHBOARD_TOKEN where the dashboard runs</label>
<input name="username" value="hpo" autocomplete="username" hidden>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button type="submit">Enter</button>
</form>
</body>
</html>
"""
    return Answer(status, "text/html; charset=utf-8", body, headers)
