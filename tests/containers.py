"""Running the services of docker-compose.yml without a container engine.

Each is a process: its command, in the environment that the file and the Dockerfile give it, with
what lies inside a container mapped to places of the test.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from tests.commands import HPO, environment

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, each on one line."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in whole.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


class Engine:
    """Runs services as a container engine would, as processes on this machine.

    Attributes:
        port: of the dashboard, on this machine.
    """

    def __init__(self, folder: Path, files: dict[str, Path], database_port: int) -> None:
        (folder / "volume").mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._places = {
            "@database:5432/": f"@127.0.0.1:{database_port}/",
            "/var/lib/hpo": str(folder / "volume"),
            **{f"/run/secrets/{name}": str(path) for name, path in files.items()},
        }
        self.secrets = {name: path.read_text().strip() for name, path in files.items()}

    def start(self, service: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a service with its own command, or with another one."""
        words = list(arguments) or SERVICES[service]["command"]
        words = [str(self.port) if word == "8080" else word for word in words]
        number = len(self._running)
        with (
            (self._folder / f"{number}.out").open("wb") as out,
            (self._folder / f"{number}.err").open("wb") as err,
        ):
            process = subprocess.Popen(
                [*HPO, *words],
                cwd=self._folder / "volume",
                env=self._environment(service),
                stdout=out,
                stderr=err,
            )
        self._running.append(process)
        return process

    def run(self, line: str) -> str:
        """Type a line `docker compose run --rm SERVICE ...`; returns what it writes to stdout."""
        service, *words = shlex.split(line.removeprefix("docker compose run --rm "))
        process = self.start(service, *words)
        assert process.wait(600) == 0, f"{line}\n{self.said(process)}"
        return (self._folder / f"{self._running.index(process)}.out").read_text()

    def said(self, process: subprocess.Popen[bytes]) -> str:
        number = self._running.index(process)
        files = (self._folder / f"{number}.out", self._folder / f"{number}.err")
        return "\n".join(file.read_text() for file in files)

    def answers(self, service: str, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Wait until the dashboard answers, starting it again when it ends, as `restart` asks.

        Returns:
            The process that answers.
        """
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 3).close()
            except OSError:
                assert time.monotonic() < deadline, self.everything_said()
                time.sleep(0.2)
                if process.poll() is not None:
                    assert SERVICES[service]["restart"] == "unless-stopped"
                    process = self.start(service)
            else:
                return process

    def ask(self, path: str, token: str | None) -> tuple[int, Any]:
        """Ask the dashboard; returns the status and, where it is JSON, the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(body) if is_json else None

    def everything_said(self) -> str:
        return "\n".join(map(self.said, self._running))

    def command_lines(self) -> bytes:
        """The command lines of all that run, as others on the machine see them."""
        running = [process for process in self._running if process.poll() is None]
        return b"\n".join(Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in running)

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _environment(self, service: str) -> dict[str, str]:
        image = dict(instructions())["ENV"].split()
        given = dict(pair.split("=", 1) for pair in image if pair.startswith("HPO_"))
        given |= {k: v for k, v in SERVICES[service]["environment"].items() if v is not None}
        for name, value in given.items():
            for there, here in self._places.items():
                value = value.replace(there, here)
            given[name] = value
        python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return environment(**given, PYTHONPATH=python, OMP_NUM_THREADS="1")
