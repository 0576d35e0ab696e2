"""A wire between client and server that can be cut just after the server has done its work."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

Socket = socket.socket


class Proxy:
    """Passes on what is said on a port of 127.0.0.1 to another one, and back.

    Attributes:
        port: where it listens.
        cuts: how many answers it has swallowed, with the connection.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._wanted: bytes | None = None
        self._open: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def swallow_answer_to(self, text: bytes) -> None:
        """Once: let through what holds `text`, wait for its answer, and cut the connection."""
        self._wanted = text

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                doomed = threading.Event()
                for pump in (self._forth, self._back):
                    threading.Thread(
                        target=pump, args=(client, server, doomed), daemon=True
                    ).start()

    def _forth(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while said := client.recv(65536):
                if self._wanted is not None and self._wanted in said:
                    self._wanted = None
                    doomed.set()
                server.sendall(said)
        self._cut(client, server)

    def _back(self, client: Socket, server: Socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65536):
                if doomed.is_set():
                    self.cuts += 1
                    break
                client.sendall(said)
        self._cut(client, server)

    def _cut(self, *sockets: Socket) -> None:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy before a port of this machine."""
    opened = Proxy(target)
    try:
        yield opened
    finally:
        opened.close()
