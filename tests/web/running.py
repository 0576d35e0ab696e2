"""`hpo dashboard` as a process."""

from __future__ import annotations

import contextlib
import http.client
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands import start


@dataclass
class Running:
    """A dashboard that listens.

    Attributes:
        address: as it was printed, such as `http://127.0.0.1:41234/`.
    """

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rstrip("/").rpartition(":")[2])

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        """Status and body of one request; the headers' underscores mean hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            return answer.status, f"{answer.headers}\n{answer.read().decode()}"

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, float]:
        """Its exit code, what it said on stderr, and the seconds that it took to end."""
        self.process.send_signal(number)
        began = time.monotonic()
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said, time.monotonic() - began


@contextlib.contextmanager
def running(folder: Path, *arguments: str, **extra: Any) -> Iterator[Running]:
    """A dashboard on a free port, which is ended afterwards."""
    process = start(folder, "dashboard", "--port", "0", *arguments, **extra)
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(120), "it does not say where it listens"
        address = process.stdout.readline().strip()
        if not address:
            raise AssertionError(process.communicate(timeout=60))
        yield Running(process, address)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)
