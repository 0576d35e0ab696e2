"""F17: the password of the storage URL is shown nowhere, whatever goes wrong, or right."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import pytest
import sqlalchemy as sa
import typer

from hpo.cli.app import app
from tests.commands import here, hpo, run_here, start

if TYPE_CHECKING:
    from tests.databases import PostgresServer

CANARY = "s3cr3t"
PASSWORD = f"{CANARY}@%2F"
URLS = {
    "userinfo": "postgresql://ann:s3cr3t%40%252F@127.0.0.1:1/studies",
    "bare @ and slash": "postgresql://ann:s3cr3t@%2F@127.0.0.1:1/studies",
    "bare slash": "postgresql://ann:x/s3cr3t@127.0.0.1:1/studies",
    "query": "postgresql://ann@127.0.0.1:1/studies?password=s3cr3t@%2F",
    "sslpassword": "postgresql://ann@127.0.0.1:1/studies?sslpassword=s3cr3t%40",
    "wrong host": "postgresql://ann:s3cr3t@no-such-host.invalid/studies",
    "wrong port": "postgresql://ann:s3cr3t@127.0.0.1:port/studies",
    "wrong driver": "mysql://ann:s3cr3t@127.0.0.1/studies",
    "no driver": "postgresql+psycopg2://ann:s3cr3t@127.0.0.1/studies",
    "unknown option": "postgresql://ann:s3cr3t@127.0.0.1:1/studies?shape=s3cr3t",
    "sqlite": "sqlite:///studies.db?password=s3cr3t",
    "no slashes": "postgresql:ann:s3cr3t@127.0.0.1/studies",
}


def _commands() -> list[list[str]]:
    """Every command that opens a database, with what it needs."""
    root: Any = typer.main.get_command(app)
    leaves: dict[tuple[str, ...], Any] = {
        (name,): command for name, command in root.commands.items()
    }
    for words, command in list(leaves.items()):
        inner = getattr(command, "commands", {})
        leaves |= {(*words, name): one for name, one in inner.items()}
    found = []
    for words, command in leaves.items():
        options = {option for parameter in command.params for option in parameter.opts}
        study = ["--study", "digits"] if "--study" in options else []
        name = ["nowhere"] if words == ("studies", "show") else []
        if "--storage" in options:
            found.append([*words, *name, *study])
    return found


COMMANDS = _commands()


@pytest.mark.parametrize("url", URLS.values(), ids=list(URLS))
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words))
def test_f17_a_database_that_fails_keeps_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], url: str
) -> None:
    monkeypatch.setattr("hpo.cli.workers.OUTAGE_SECONDS", 0.5)  # a worker waits for a server
    monkeypatch.setenv("HPO_STORAGE", url)
    by_environment = run_here(tmp_path, *command, "--debug", "-v")
    monkeypatch.delenv("HPO_STORAGE")
    by_option = run_here(tmp_path, *command, "--storage", url)
    for code, said in (by_environment, by_option):
        assert code in (1, 2, 69)
        assert CANARY not in said
        assert said.strip()


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[str]:
    """The place of a database whose owner, `ann`, has the password; `host:port/database`."""
    home = sa.make_url(postgres_server.tcp_url()).set(drivername="postgresql+psycopg")
    owner = sa.create_engine(home, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with owner.connect() as connection:
        # DDL takes no parameters: % is doubled for the driver.
        connection.exec_driver_sql(
            f"CREATE ROLE ann LOGIN PASSWORD '{PASSWORD}'".replace("%", "%%")
        )
        connection.exec_driver_sql("CREATE DATABASE f17 OWNER ann")
    yield f"127.0.0.1:{postgres_server.port}/f17"
    with owner.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE f17 WITH (FORCE)")
        connection.exec_driver_sql("DROP ROLE ann")


@pytest.mark.slow
def test_f17_a_real_server_that_refuses_keeps_it_too(tmp_path: Path, server: str) -> None:
    wrong = quote(f"{PASSWORD}x", safe="")
    right = quote(PASSWORD, safe="")
    secret_file = tmp_path / "password"
    secret_file.write_text(f"{PASSWORD}x\n")
    given: list[dict[str, Any]] = [
        {"HPO_STORAGE": f"postgresql://ann:{wrong}@{server}"},
        {"HPO_STORAGE": f"postgresql://ann:{right}@{server}-not-there"},
        {
            "HPO_STORAGE": f"postgresql://ann@{server}",
            "HPO_STORAGE_PASSWORD_FILE": str(secret_file),
        },
    ]
    # Each way to fail meets some of the commands, and each command one of them.
    for number, command in enumerate(COMMANDS):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in given[number % len(given)].items():
                patch.setenv(name, value)
            code, said = run_here(tmp_path, *command, "--debug", "-v")
        assert code in (1, 69), f"{command}\n{said}"
        assert CANARY not in said
    # As a process it says no more: what a library writes past Python would be seen here.
    for environment in given:
        process = start(tmp_path, "status", "--debug", "-v", **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 69, out + err
        assert CANARY not in out + err


def _lines_below(process: subprocess.Popen[str]) -> set[str]:
    """The command lines of a process and of all that it started, seen until it ends."""
    seen: set[str] = set()
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(process.pid)
            for one in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    seen.add(" ".join(one.cmdline()))
        time.sleep(0.05)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("in_file", [False, True], ids=["in the URL", "in a file"])
def test_f17_all_that_goes_well_keeps_it_as_well(
    tmp_path: Path, server: str, in_file: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    login = "ann" if in_file else f"ann:{quote(PASSWORD, safe='')}"
    place: dict[str, Any] = {
        "HPO_STORAGE": f"postgresql://{login}@{server}",
        "HPO_STATE": str(folder / "state"),
    }
    if in_file:
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        place["HPO_STORAGE_PASSWORD_FILE"] = str(tmp_path / "password")

    changes = (
        *("--trials", "4", "--set", "training.epochs=2"),
        *("--set", "training.diagnostics=[gradient_norms]"),  # there is something to plot
        *("--set", "retrain={finalists: 1, seeds: 1}"),
    )
    search = start(
        folder, "optimize", "--study", "digits", *changes, "--workers", "2", "-v", **place
    )
    lines = _lines_below(search)
    said = "".join(search.communicate(timeout=120))
    assert search.returncode == 0, said
    assert len(lines) >= 2  # its workers are processes of their own
    said += "\n".join(lines)
    for command in COMMANDS:
        if command[0] not in ("optimize", "worker", "dashboard"):
            form = {"submit": changes, "plot": ()}.get(command[0], ("--format", "json"))
            known = [word if word != "nowhere" else "digits" for word in command]
            done = here(folder, *known, *form, "-v", "--debug", **place)
            said += done.stdout + done.stderr
    done = hpo(folder, "worker", "--idle", "0", "-v", **place)
    said += done.stdout + done.stderr
    assert CANARY not in said
    assert f"ann:***@{server}" in said or in_file  # the doctor tells which database it is
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in files)
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in os.pathsep.join(map(str, files))
