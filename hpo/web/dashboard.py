"""optuna-dashboard's pages behind the door, on a server of their own.

optuna-dashboard asks its storage for all trials of a study at every poll of its page. What keeps
that cheap is Optuna's own cache, which `open_storage` puts around the database: finished trials
are read once (docs/dashboard.md has the numbers).
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard import wsgi
from waitress import create_server, wasyncore

from hpo.errors import FileError, HpoError, UsageError
from hpo.search.identity import have_gone, identities
from hpo.search.storage import Storage, open_storage
from hpo.web.answers import refusal
from hpo.web.door import LOOPBACK_NAMES, Door, Rules, is_address
from hpo.web.keys import Keys

__all__ = ["Options", "Pages", "serve"]

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9_.-]+")
_THREADS = 8
_POLL_SECONDS = 0.2
_SHUTDOWN_SECONDS = 0.3
_SILENT_SECONDS = 60.0
_READING_BYTES = 64 * 1024
_NOTE_BYTES = 512 * 1024
_ARTIFACT_BYTES = 192 * 1024 * 1024  # an artifact of 128 MiB in base64, with room


@dataclass(frozen=True)
class Options:
    """How the dashboard is to be served.

    Attributes:
        host: an address or a name of this machine.
        port: 0 for any that is free.
        token: what every request must show; empty for none, which only loopback may have.
        allow_writes: whether what the page offers to change may be changed.
        allow_hosts: further names under which it answers.
        artifacts: the folder of Optuna's artifacts; None where there are none to show.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    allow_writes: bool = False
    allow_hosts: tuple[str, ...] = ()
    artifacts: Path | None = None


def serve(
    url: str,
    options: Options,
    stopping: Callable[[], bool],
    listening: Callable[[str], None],
) -> None:
    """Serve the studies of a database until `stopping` says so.

    Args:
        url: the database's; it must exist.
        options: how to serve it.
        stopping: asked several times a second.
        listening: called once, with the address for a browser.

    Raises:
        UsageError: the address is none of this machine's, or others could reach it without a
            token; or the token is too short.
        HpoError: the port is taken, or not for everybody.
        FileError: there is no such folder of artifacts.
        StorageError: the database is not there, or cannot be read.
    """
    place = _place(options)
    keys = Keys(options.token) if options.token else None
    if keys is None and not ipaddress.ip_address(place.address).is_loopback:
        raise UsageError(
            f"--host {options.host} can be reached from other machines; set the environment "
            "variable HPO_DASHBOARD_TOKEN to a long secret, or listen on 127.0.0.1"
        )
    hosts = _hosts(options, place)
    _quieten()
    with closing(Pages(url, options.artifacts)) as pages, place.bind() as listener:
        port = listener.getsockname()[1]
        anywhere = ipaddress.ip_address(place.address).is_unspecified
        rules = Rules(hosts, anywhere, options.allow_writes, keys, port)
        ready = partial(listening, place.url(port))
        _answer(Door(pages, rules), _most_bytes(options), listener, stopping, ready)


class Pages:
    """optuna-dashboard on a database, as a WSGI application; close it.

    Its caches are thrown away when a study was deleted: another one may have its id now.

    Args:
        url: the database's; it must exist.
        artifacts: the folder of Optuna's artifacts; None for none.

    Raises:
        FileError: there is no such folder.
        StorageError: the database is not there, or cannot be read.
    """

    def __init__(self, url: str, artifacts: Path | None = None) -> None:
        if artifacts is not None and not artifacts.is_dir():
            raise FileError(f"{artifacts}: there is no such folder; --artifacts names one")
        self._url = url
        self._artifacts = artifacts
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._open()

    def _open(self) -> None:
        self._storage: Storage = open_storage(self._url, must_exist=True)
        self._known = identities(self._storage)
        folder = self._artifacts
        store = None if folder is None else FileSystemArtifactStore(str(folder))
        self._app: WSGIApplication = wsgi(self._storage.optuna, store)

    def close(self) -> None:
        """Close every connection to the database."""
        self._storage.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI, PEP 3333)."""
        app = self._app
        if not environ.get("PATH_INFO", "").startswith(("/dashboard", "/static/")):
            try:
                app = self._current()
            except HpoError as error:
                self._complain(str(error))
                reason = "the database does not answer; the dashboard's log says more"
                answer = refusal("503 Service Unavailable", reason, ("Retry-After", "10"))
                return answer.send(environ, start_response)

        def watch(status: str, *rest: Any) -> Callable[[bytes], object]:
            if status.startswith("5"):
                path = environ.get("PATH_INFO", "")[:100]
                self._complain(f"no answer to {path!r}; -v shows why")
            return start_response(status, *rest)

        return app(environ, watch)

    def _current(self) -> WSGIApplication:
        """The application, with no memory of a study that was deleted."""
        found = identities(self._storage)
        with self._lock:
            if have_gone(self._known, found):
                self._storage.close()
                self._open()
            else:
                self._known = found
            return self._app

    def _complain(self, problem: str) -> None:
        """Say it in the log, once a minute at most: an open page asks again every ten seconds."""
        with self._lock:
            if time.monotonic() < self._silent_until:
                return
            self._silent_until = time.monotonic() + _SILENT_SECONDS
        _log.warning("%s", problem)


# --- where it listens


@dataclass(frozen=True)
class _Place:
    family: socket.AddressFamily
    address: str
    port: int

    def bind(self) -> socket.socket:
        listener = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, self.port))
            listener.listen()
        except OSError as error:
            listener.close()
            raise self._explain(error) from None
        return listener

    def _explain(self, error: OSError) -> HpoError:
        if error.errno == errno.EADDRINUSE:
            return HpoError(
                f"port {self.port} of {self.address} is taken, perhaps by another dashboard; "
                "choose another with --port"
            )
        if error.errno == errno.EACCES:
            return HpoError(f"port {self.port} is not for everybody; choose one above 1023")
        return UsageError(
            f"--host {self.address} cannot be listened on ({error.strerror}); "
            "name an address of this machine"
        )

    def url(self, port: int) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{port}/"


def _place(options: Options) -> _Place:
    # Whatever the machine's tables say of that name.
    host = "127.0.0.1" if options.host == "localhost" else options.host.strip("[]")
    try:
        if not host:
            raise ValueError
        family, address = _look_up(host, options.port)
    except (OSError, ValueError):  # ValueError: no host name can be written so
        raise UsageError(
            f"--host {options.host!r} is no address of this machine; 127.0.0.1 is the default"
        ) from None
    return _Place(family, address, options.port)


def _look_up(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """The first address of a host; of a name, one of a family that this machine uses."""
    kind = socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        # Only a name is chosen from: with this flag a machine that has no IPv4 address, or is
        # without a network, would know no 127.0.0.1.
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_ADDRCONFIG)
    family, _, _, _, address = found[0]
    return family, str(address[0])


def _hosts(options: Options, place: _Place) -> frozenset[str]:
    """The names under which it answers."""
    found = {*LOOPBACK_NAMES, options.host.strip("[]").lower(), place.address.lower()}
    for name in options.allow_hosts:
        bare = name.strip("[]").rstrip(".").lower()
        if not _NAME.fullmatch(bare) and not is_address(bare):
            raise UsageError(
                f"--allow-host {name}: this is no host name; write it without http:// and port"
            )
        found.add(bare)
    return frozenset(found)


# --- the server


def _most_bytes(options: Options) -> int:
    """Of a request's body, which is taken in before the door can ask for the token."""
    if not options.allow_writes:
        return _READING_BYTES
    return _NOTE_BYTES if options.artifacts is None else _ARTIFACT_BYTES


def _answer(
    app: WSGIApplication,
    most_bytes: int,
    listener: socket.socket,
    stopping: Callable[[], bool],
    ready: Callable[[], None],
) -> None:
    """Answer requests in several threads; this one accepts connections."""
    connections: dict[int, Any] = {}
    server = create_server(
        app,
        map=connections,
        sockets=[listener],
        threads=_THREADS,
        ident=None,
        max_request_body_size=most_bytes,
    )
    try:
        ready()
        while not stopping():
            wasyncore.loop(_POLL_SECONDS, use_poll=True, map=connections, count=1)
    finally:
        server.task_dispatcher.shutdown(timeout=_SHUTDOWN_SECONDS)
        wasyncore.close_all(connections)


def _quieten() -> None:
    """Keep the parts' own logs for -v; what matters is said by `Pages`."""
    # The page asks for importances however few trials there are, which Optuna warns of.
    warnings.filterwarnings("ignore", module=r"optuna(_dashboard)?\.")
    if logging.getLogger("hpo").isEnabledFor(logging.DEBUG):
        return
    for name in ("optuna_dashboard", "waitress", "waitress.queue", "bottle"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
