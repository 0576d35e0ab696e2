"""docker-compose.yml and the Dockerfile: what they promise, and that their commands do the work.

There is no container engine here. The file is held to the Compose specification's schema, which
the development dependency check-jsonschema brings with it; and the commands of its services run
as processes, in the environment that it gives them, against a real PostgreSQL.
"""

from __future__ import annotations

import fnmatch
import json
import re
import secrets
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from tests.containers import COMPOSE, ROOT, SERVICES, Engine, instructions
from tests.test_docs import commands, options

if TYPE_CHECKING:
    from tests.databases import PostgresServer

FILE = ROOT / "docker-compose.yml"
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


def test_the_page_calls_hpo_as_it_can_be_called() -> None:
    lines = [line.split() for line in lines_of_the_page("docker compose run ")]
    known = commands()
    for line in lines:
        words = line[next(at for at, word in enumerate(line) if word in SERVICES) + 1 :]
        assert {word for word in words if word.startswith("-")} <= options(known[words[0]])
    assert {"submit", "status", "retrain-best", "optimize"} <= {w for line in lines for w in line}


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


@pytest.mark.slow
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

    dashboard = engine.answers("dashboard", dashboard)
    token = engine.secrets["dashboard_token"]
    for wrong in (None, "", secrets.token_hex(24)):
        assert engine.ask("/api/studies", wrong)[0] in (401, 403)
    code, answer = engine.ask("/api/studies", token)
    assert code == 200
    (shown,) = [one for one in answer["study_summaries"] if one["study_name"] == found["study"]]
    code, answer = engine.ask(f"/api/studies/{shown['study_id']}?after=0", token)
    assert len(answer["trials"]) == wanted

    lines = engine.command_lines()
    for process in (*workers, dashboard):
        process.send_signal(signal.SIGTERM)
    for process in (*workers, dashboard):
        assert process.wait(60) in (0, 128 + signal.SIGTERM), engine.said(process)
    for secret in engine.secrets.values():
        assert secret not in engine.everything_said()
        assert secret.encode() not in lines
