"""docker-compose.yml and the Dockerfile: what they promise, and that their commands do the work.

There is no container engine here. The file is held to the Compose specification's schema, which
the development dependency check-jsonschema brings with it; and the commands of its services run
as processes, in the environment that it gives them, against a real PostgreSQL.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import yaml

from tests.commands import HPO, environment

if TYPE_CHECKING:
    from tests.conftest import PostgresServer

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = ["worker", "gpu-worker"]
PAGE = (ROOT / "docs" / "docker.md").read_text()


def filled(text: str) -> str:
    """A value with its `${NAME:-default}` replaced by the defaults."""
    assert not re.search(r"\$\{\w+\}|\$\w", text), f"{text}: a variable without a default"
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


# --- the file


def check_schema(file: Path) -> subprocess.CompletedProcess[str]:
    command = ("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file))
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, timeout=60
    )


def test_it_keeps_to_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    done = check_schema(FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(FILE.read_text().replace("stop_grace_period:", "stop_period:"))
    assert "'stop_period' was unexpected" in check_schema(wrong).stdout


def test_ports_are_open_on_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == {"dashboard"}
    for port in ports["dashboard"]:
        assert re.fullmatch(r"127\.0\.0\.1:[0-9]+:8080", filled(port))
    assert not any("network_mode" in service for service in SERVICES.values())


def test_no_secret_stands_in_it() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for service in SERVICES.values():
        for variable, value in service["environment"].items():
            if re.search("PASS|TOKEN|SECRET|KEY", variable):
                assert variable.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]
            else:
                assert not re.search(r":[^/@]*@|passw", str(value))
        words = " ".join(service.get("command", []))
        assert not re.search("pass|token|secret|://", words, re.IGNORECASE)


def test_secrets_stay_out_of_git_and_out_of_the_image() -> None:
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert "secrets" not in context()


def test_every_service_starts_by_itself_and_ends_in_order() -> None:
    for name, service in SERVICES.items():
        assert service["init"] is True
        assert service["restart"] == ("no" if name == "hpo" else "unless-stopped")
        assert int(service["stop_grace_period"].removesuffix("s")) > 5
    assert "pg_isready" in SERVICES["database"]["healthcheck"]["test"]
    for service in OURS.values():
        assert service["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_every_service_may_do_as_little_as_it_can() -> None:
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert all(service["cap_drop"] == ["ALL"] for service in OURS.values())


def test_workers_can_be_many() -> None:
    for name in WORKERS:
        assert not {"container_name", "ports", "hostname"} & SERVICES[name].keys()
        assert SERVICES[name].get("deploy", {}).get("mode") != "global"
    assert "profiles" not in SERVICES["worker"]


def test_gpus_are_asked_for_in_a_profile_of_their_own() -> None:
    assert [name for name, service in SERVICES.items() if "deploy" in service] == ["gpu-worker"]
    service = SERVICES["gpu-worker"]
    assert service["profiles"] == ["gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_what_must_stay_lies_on_volumes() -> None:
    places = {name: service["volumes"][0] for name, service in SERVICES.items()}
    assert places == {"database": "database:/var/lib/postgresql"} | dict.fromkeys(
        OURS, "hpo:/var/lib/hpo"
    )
    assert COMPOSE["volumes"].keys() == {"database", "hpo"}
    # All else is an image's own: nothing is looked for under a name that others may take.
    assert not any("image" in service for service in OURS.values())


# --- the image


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, each on one line."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in whole.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


def context() -> set[str]:
    """What of the project's top level an image is built from, by .dockerignore."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    names = {path.name for path in ROOT.iterdir()} | {"secrets", "hpo.db", "results", ".git"}
    sent: set[str] = set()
    for rule in rules:  # the last one that fits decides
        fits = set(fnmatch.filter(names, rule.removeprefix("!")))
        sent = sent | fits if rule.startswith("!") else sent - fits
    return sent


def test_what_the_image_is_made_of_is_there_and_is_no_more() -> None:
    copied: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert copied == context()
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*build["packages"], *build["force-include"], "pyproject.toml"}
    needed |= {project["project"]["readme"], *project["project"]["license-files"]}
    assert needed == copied


def test_the_image_runs_hpo_and_not_as_root() -> None:
    found = instructions()
    last = len(found) - 1 - [name for name, _ in reversed(found)].index("FROM")
    stage = dict(found[last:])
    assert stage["USER"] == "hpo"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (program,) = json.loads(stage["ENTRYPOINT"])
    assert program in project["scripts"]
    assert "python:3.11" in stage["FROM"]
    assert project["requires-python"] == ">=3.11"
    (extra,) = re.findall(r"install .*'\.\[(\w+)\]'", dict(found[:last])["RUN"])
    assert extra in project["optional-dependencies"]


def test_no_secret_and_no_address_stands_in_the_image() -> None:
    for name, rest in instructions():
        assert "://" not in rest
        if name in ("ENV", "ARG"):
            assert not re.search("PASS|TOKEN|SECRET", rest)
        if name == "ARG":
            assert rest.endswith('=""')


def test_the_folders_of_hpo_lie_on_the_volume() -> None:
    (folder,) = (rest for name, rest in instructions() if name == "VOLUME")
    variables = dict(instructions())["ENV"].split()
    places = dict(pair.split("=", 1) for pair in variables if pair.startswith("HPO_"))
    assert places.keys() == {"HPO_DATA", "HPO_STATE"}
    assert all(place.startswith(f"{folder}/") for place in places.values())
    assert dict(instructions())["WORKDIR"] == folder
    assert all(service["volumes"][0].endswith(f":{folder}") for service in OURS.values())


# --- the page, and the commands as processes


def lines_of_the_page(start: str) -> list[str]:
    """The lines that the page has a person type which begin so."""
    return re.findall(rf"^    ({start}.*)$", PAGE, re.MULTILINE)


def test_the_page_names_services_and_profiles_that_there_are() -> None:
    text = " ".join(lines_of_the_page("docker compose"))
    named = re.findall(r"--scale ([\w-]+)=|run --rm ([\w-]+)|cp ([\w-]+):", text)
    assert {name for names in named for name in names if name} <= SERVICES.keys()
    profiles = {profile for one in SERVICES.values() for profile in one.get("profiles", [])}
    assert set(re.findall(r"--profile (\w+)", text)) < profiles
    assert set(re.findall(r"--build-arg (\w+)", text)) <= {
        rest.partition("=")[0] for name, rest in instructions() if name == "ARG"
    }


def make_secrets(folder: Path) -> dict[str, Path]:
    """Type the page's lines that make the secrets; returns the files by the secrets' names."""
    lines = lines_of_the_page("(?:mkdir|openssl|chmod) ")
    script = "\n".join(["set -eu", "umask 077", *lines])
    subprocess.run(["bash", "-c", script], cwd=folder, check=True, timeout=60)
    return {name: folder / secret["file"] for name, secret in COMPOSE["secrets"].items()}


def test_the_secrets_are_made_as_the_page_says(tmp_path: Path) -> None:
    files = make_secrets(tmp_path)
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == files.keys()
    assert len({path.read_text() for path in files.values()}) == len(files)
    for path in files.values():
        assert re.fullmatch(r"[0-9a-f]{48}\n", path.read_text())
        assert path.stat().st_mode & 0o777 == 0o644
        assert path.parent.stat().st_mode & 0o777 == 0o700


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


@pytest.fixture
def engine(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Engine]:
    """All but PostgreSQL, which has the user and the database that the file tells it to make."""
    files = make_secrets(tmp_path)
    told = SERVICES["database"]["environment"]
    user, database = told["POSTGRES_USER"], told["POSTGRES_DB"]
    password = files["postgres_password"].read_text().strip()
    home = sa.make_url(postgres_server.tcp_url()).set(drivername="postgresql+psycopg")
    owner = sa.create_engine(home, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with owner.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        connection.exec_driver_sql(f"CREATE DATABASE {database} OWNER {user}")
    made = Engine(tmp_path, files, postgres_server.port)
    try:
        yield made
    finally:
        made.end()
        with owner.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {database} WITH (FORCE)")
            connection.exec_driver_sql(f"DROP ROLE {user}")


def ask(engine: Engine, path: str, token: str | None) -> tuple[int, Any]:
    """Ask the dashboard; returns the status and, where it is JSON, the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
    with contextlib.closing(connection):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    is_json = "json" in answer.headers.get("Content-Type", "")
    return answer.status, json.loads(body) if is_json else None


def until_it_answers(engine: Engine, dashboard: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", engine.port), 3).close()
        except OSError:
            assert dashboard.poll() is None, engine.said(dashboard)
            assert time.monotonic() < deadline, engine.said(dashboard)
            time.sleep(0.1)
        else:
            return


def test_two_workers_finish_a_submitted_study_and_the_dashboard_shows_it(engine: Engine) -> None:
    # In no order, on an empty database, as after `up`.
    workers = [engine.start("worker"), engine.start("worker")]
    dashboard = engine.start("dashboard")
    (submit,) = lines_of_the_page("docker compose run --rm hpo submit")
    (status,) = lines_of_the_page("docker compose run --rm hpo status")
    wanted = int(re.search(r"--trials (\d+)", submit)[1])  # type: ignore[index]
    engine.run(submit)
    deadline = time.monotonic() + 300
    while (found := json.loads(engine.run(f"{status} --format json")))["finished"] < wanted:
        assert [worker.poll() for worker in workers] == [None, None], engine.everything_said()
        assert time.monotonic() < deadline, engine.everything_said()
        time.sleep(1)
    assert (found["budget"], found["finished"], found["running"]) == (wanted, wanted, 0)
    trials = json.loads(engine.run(f"{status.replace('hpo status', 'hpo trials')} --format json"))
    assert sorted(trial["number"] for trial in trials) == list(range(wanted))

    until_it_answers(engine, dashboard)
    token = engine.secrets["dashboard_token"]
    for wrong in (None, "", secrets.token_hex(24)):
        assert ask(engine, "/api/studies", wrong)[0] in (401, 403)
    code, answer = ask(engine, "/api/studies", token)
    assert code == 200
    (shown,) = [one for one in answer["study_summaries"] if one["study_name"] == found["study"]]
    code, answer = ask(engine, f"/api/studies/{shown['study_id']}?after=0", token)
    assert len(answer["trials"]) == wanted

    lines = engine.command_lines()
    for process in (*workers, dashboard):
        process.send_signal(signal.SIGTERM)
    for process in (*workers, dashboard):
        assert process.wait(20) in (0, 128 + signal.SIGTERM), engine.said(process)
    for secret in engine.secrets.values():
        assert secret not in engine.everything_said()
        assert secret.encode() not in lines
