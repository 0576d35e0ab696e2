"""The door in front of optuna-dashboard, which has none of its own.

optuna-dashboard asks nobody who they are, deletes studies for whoever sends DELETE, answers under
any name (so that a foreign page could reach it through a name of its own that it points here,
"DNS rebinding"), and serves artifacts with the type that their owner chose, to any origin. The
door is a WSGI application around it: it lets pass what may pass, and puts right how answers leave.

Which writes come from a page of our own is told as in Go's `http.CrossOriginProtection`: by
`Sec-Fetch-Site`, else by `Origin`; a request with neither comes from no browser.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hpo.web.answers import LOGIN_POLICY, Answer, login_page, moved, refusal
from hpo.web.keys import SESSION_SECONDS, Keys, Throttled

__all__ = ["LOOPBACK_NAMES", "Door", "Rules", "is_address"]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_log = logging.getLogger(__name__)

# As RFC 9112 has the header: a name or an address, and perhaps a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]\s]+)(?::[0-9]*)?")
_LOOKS = ("GET", "HEAD")
_WRITES = ("POST", "PUT", "DELETE")
_LOGIN_BYTES = 4096
_PAGE_POLICY = "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
# What the page shows inside itself. Anything else that is found is a file for the disk.
_INLINE = ("/dashboard", "/api/", "/static/", "/favicon.ico")
# Types that an artifact may keep: none of them runs in this origin.
_HARMLESS = ("image/", "audio/", "video/", "text/plain", "text/csv", "application/json")
_COMMON = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # Not no-referrer: browsers would then send `Origin: null` with the login form.
    ("Referrer-Policy", "same-origin"),
)
_OURS = {name.lower() for name, _ in _COMMON} | {"content-security-policy", "cache-control"}


@dataclass(frozen=True)
class Rules:
    """Who may do what.

    Attributes:
        hosts: the names under which the dashboard answers, in lower case, without a port.
        any_address: whether it answers under any numeric address, too. Such a host cannot be a
            name that was pointed here.
        writes: whether it changes anything.
        keys: None where no token is asked for.
        port: the port that it listens on; cookies know none, so their name has it.
    """

    hosts: frozenset[str] = LOOPBACK_NAMES
    any_address: bool = False
    writes: bool = False
    keys: Keys | None = None
    port: int = 0

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that pass."""
        return (*_LOOKS, *_WRITES) if self.writes else _LOOKS

    @property
    def cookie(self) -> str:
        """The name of the session's cookie."""
        return f"hpo_session_{self.port}"


class Door:
    """Lets the requests through to `inside` that the rules allow.

    Args:
        inside: optuna-dashboard's application.
        rules: who may do what.
    """

    def __init__(self, inside: WSGIApplication, rules: Rules) -> None:
        self._inside = inside
        self._rules = rules

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI, PEP 3333)."""
        path = environ.get("PATH_INFO", "")
        leave = _leaving(path, start_response)
        own = self._own_answer(environ, path)
        if own is not None:
            return own.send(environ, leave)
        # Bottle writes tracebacks there, unscrubbed; and its static files want the header.
        environ["wsgi.errors"] = _Errors()
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        return self._inside(environ, leave)

    def _own_answer(self, environ: WSGIEnvironment, path: str) -> Answer | None:
        """What the door says itself; None for what passes."""
        rules, method = self._rules, environ["REQUEST_METHOD"]
        if not self._knows_host(environ.get("HTTP_HOST", "")):
            reason = "this host name is not known here; hpo dashboard --allow-host NAME adds it"
            return refusal("403 Forbidden", reason)
        if _is_foreign(environ):
            return refusal("403 Forbidden", "another site's page asked for this")
        if rules.keys is not None and path == "/login":
            return self._login(environ, rules.keys)
        if method not in rules.methods:
            reason = "nothing can be changed here"
            if not rules.writes:
                reason += "; hpo dashboard --allow-writes would allow it"
            return refusal("405 Method Not Allowed", reason, ("Allow", ", ".join(rules.methods)))
        if rules.keys is not None:
            return self._ask(environ, path, rules.keys)
        return moved("/dashboard") if path in ("", "/") else None

    def _knows_host(self, header: str) -> bool:
        match = _HOST.fullmatch(header)
        name = match[1].strip("[]").rstrip(".").lower() if match else ""
        return name in self._rules.hosts or (self._rules.any_address and is_address(name))

    def _ask(self, environ: WSGIEnvironment, path: str, keys: Keys) -> Answer | None:
        """None for whoever has shown the token."""
        if keys.is_session(self._session(environ)):
            return moved("/dashboard") if path in ("", "/") else None
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        problem = "the dashboard's token is needed, as Authorization: Bearer"
        if scheme.lower() == "bearer":
            try:
                if keys.is_token(_text(token.strip()), _address(environ)):
                    return None
            except Throttled as throttled:
                return refusal("429 Too Many Requests", str(throttled), _retry(throttled))
            problem = "this is not the dashboard's token"
        elif path in ("", "/") or path.startswith("/dashboard"):
            return moved("/login")
        return refusal("401 Unauthorized", problem, ("WWW-Authenticate", 'Bearer realm="hpo"'))

    def _login(self, environ: WSGIEnvironment, keys: Keys) -> Answer:
        method = environ["REQUEST_METHOD"]
        if method in _LOOKS:
            known = keys.is_session(self._session(environ))
            return moved("/dashboard") if known else login_page()
        if method != "POST":
            return refusal("405 Method Not Allowed", "log in", ("Allow", "GET, HEAD, POST"))
        try:
            right = keys.is_token(_posted_token(environ), _address(environ))
        except Throttled as throttled:
            problem = f"{str(throttled).capitalize()}."
            return login_page(problem, _retry(throttled), status="429 Too Many Requests")
        if not right:
            return login_page("This is not the token.", status="401 Unauthorized")
        # Without Secure: the address is http unless a proxy makes it https.
        cookie = f"{self._rules.cookie}={keys.open_session()}; HttpOnly; SameSite=Strict"
        cookie += f"; Path=/; Max-Age={SESSION_SECONDS}"
        return moved("/dashboard", ("Set-Cookie", cookie))

    def _session(self, environ: WSGIEnvironment) -> str:
        for item in environ.get("HTTP_COOKIE", "").split(";"):
            name, _, value = item.strip().partition("=")
            if name == self._rules.cookie:
                return str(value)
        return ""


# --- requests


def _is_foreign(environ: WSGIEnvironment) -> bool:
    """Whether another site's page sent the request, and not by a link that was followed."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if environ["REQUEST_METHOD"] in _LOOKS:
        # Such a page could not read the answer, but it could make the server work.
        return site == "cross-site" and environ.get("HTTP_SEC_FETCH_MODE") != "navigate"
    if site is not None:
        return bool(site != "same-origin")
    origin = environ.get("HTTP_ORIGIN")
    # The scheme is not compared: a proxy may have changed it.
    return origin is not None and origin.partition("://")[2] != environ.get("HTTP_HOST")


def _posted_token(environ: WSGIEnvironment) -> str:
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if not 0 < length <= _LOGIN_BYTES:
        return ""
    body: str = environ["wsgi.input"].read(length).decode("utf-8", "replace")
    try:
        return parse_qs(body, max_num_fields=4).get("token", [""])[0].strip()
    except ValueError:
        return ""


def _address(environ: WSGIEnvironment) -> str:
    return str(environ.get("REMOTE_ADDR", ""))


def _text(header: str) -> str:
    """A header's value as it was meant: WSGI hands bytes on as Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "replace")


def _retry(throttled: Throttled) -> tuple[str, str]:
    return ("Retry-After", str(throttled.seconds))


def is_address(name: str) -> bool:
    """Whether a host is written as a number."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# --- answers


def _leaving(path: str, start_response: StartResponse) -> StartResponse:
    """A `start_response` that puts an answer's headers right."""

    def leave(
        status: str,
        headers: list[tuple[str, str]],
        exc_info: tuple[type[BaseException], BaseException, TracebackType] | Any = None,
        /,
    ) -> Callable[[bytes], object]:
        return start_response(status, _put_right(path, int(status[:3]), headers), exc_info)

    return leave


def _put_right(path: str, status: int, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() not in _OURS and not name.lower().startswith("access-control-")
    ]
    found = {name.lower(): value for name, value in headers}
    policy = found.get("content-security-policy")
    if path == "/login":
        policy = LOGIN_POLICY
    elif path.startswith("/dashboard") and policy is not None:
        policy = f"{policy}; {_PAGE_POLICY}"
    else:
        policy = _DATA_POLICY
    if 200 <= status < 300 and path != "/login" and not path.startswith(_INLINE):
        kept = _as_download(kept, found)
    cached = "no-cache" if path.startswith("/static/") else "no-store"
    return [*kept, *_COMMON, ("Content-Security-Policy", policy), ("Cache-Control", cached)]


def _as_download(headers: list[tuple[str, str]], found: dict[str, str]) -> list[tuple[str, str]]:
    """A file for the disk: it is never shown, and never run, as a page of this origin."""
    disposition = found.get("content-disposition", "")
    if not disposition.lower().startswith("attachment"):
        disposition = "attachment"
    kind = found.get("content-type", "").lower()
    if not kind.startswith(_HARMLESS):
        kind = "application/octet-stream"
    kept = [
        item for item in headers if item[0].lower() not in ("content-type", "content-disposition")
    ]
    return [*kept, ("Content-Type", kind), ("Content-Disposition", disposition)]


class _Errors:
    """Where an application inside writes its tracebacks: the log, which hides secrets."""

    def write(self, text: str) -> None:
        if text.strip():
            _log.debug("%s", text.rstrip())

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing waits here."""
