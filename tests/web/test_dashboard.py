"""`hpo dashboard` as a process: where it listens, what it refuses, how it ends."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.cli import main
from hpo.errors import UsageError
from hpo.search.storage import Storage
from hpo.web.dashboard import Options, _hosts, _place, serve
from tests.web.conftest import fill
from tests.web.running import running

TOKEN = "correct-horse-battery"
EVERYWHERE = "0.0.0.0"  # noqa: S104 (what is tested)


def refusal(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one sentence with which the command refuses."""
    assert main(["dashboard", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


def listening(process: int) -> set[str]:
    """The addresses on which a process and its children accept connections."""
    found = psutil.Process(process)
    family = [found, *found.children(recursive=True)]
    connections = [one for member in family for one in member.net_connections("inet")]
    return {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}


def test_it_listens_on_this_machine_alone(tmp_path: Path, url: str, storage: Storage) -> None:
    fill(storage, "digits", 2)
    with running(tmp_path, "--storage", url) as dashboard:
        assert dashboard.address == f"http://127.0.0.1:{dashboard.port}/"
        assert listening(dashboard.process.pid) == {"127.0.0.1"}
        status, answer = dashboard.ask("GET", "/api/studies")
        assert status == 200
        assert '"digits"' in answer
        assert dashboard.ask("DELETE", "/api/studies/1")[0] == 405
        assert dashboard.ask("GET", "/dashboard", Host="evil.example")[0] == 403


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_a_second(
    tmp_path: Path, url: str, number: signal.Signals
) -> None:
    with running(tmp_path, "--storage", url) as dashboard, socket.socket() as kept:
        # A browser keeps its connections open.
        kept.connect(("127.0.0.1", dashboard.port))
        kept.sendall(b"GET /api/studies HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(12) == b"HTTP/1.1 200"
        code, said, seconds = dashboard.stop(number)
    assert code == 128 + number
    assert said.splitlines()[-1] == "hpo: the dashboard has ended"
    assert seconds < 30  # 1 s on a machine that does nothing else


def test_the_token_is_nowhere_to_be_read(tmp_path: Path, url: str, storage: Storage) -> None:
    fill(storage, "digits", 2)
    extra = {"HPO_DASHBOARD_TOKEN": TOKEN}
    right = {"Authorization": f"Bearer {TOKEN}"}
    with running(tmp_path, "-v", "--storage", url, **extra) as dashboard:
        assert TOKEN not in " ".join(psutil.Process(dashboard.process.pid).cmdline())
        replies = [
            dashboard.ask("GET", "/api/studies"),
            dashboard.ask("GET", "/api/studies", **right),
            dashboard.ask("GET", "/api/meta", Authorization=f"Bearer {TOKEN}wrong"),
            dashboard.ask("GET", f"/api/studies?token={TOKEN}"),
            dashboard.ask("GET", "/login"),
            dashboard.ask("GET", "/dashboard", **right),
            dashboard.ask("GET", "/nothing", **right),
            dashboard.ask("POST", "/login", Content_Length="0"),
        ]
        _, said, _ = dashboard.stop()
    assert [status for status, _ in replies] == [401, 200, 401, 401, 200, 200, 404, 401]
    assert not any(TOKEN in text for _, text in replies)
    assert TOKEN not in said


def test_what_others_can_reach_asks_for_the_token(tmp_path: Path, url: str) -> None:
    extra = {"HPO_DASHBOARD_TOKEN": TOKEN}
    with running(tmp_path, "--storage", url, "--host", EVERYWHERE, **extra) as dashboard:
        assert listening(dashboard.process.pid) == {EVERYWHERE}
        assert dashboard.ask("GET", "/api/studies")[0] == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert dashboard.ask("GET", "/api/studies", **right)[0] == 200
        assert dashboard.ask("GET", "/api/studies", Host="10.1.2.3:8080", **right)[0] == 200
        assert dashboard.ask("GET", "/api/studies", Host="evil.example", **right)[0] == 403


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "fd00::7"])
@pytest.mark.parametrize("token", ["", " "])
def test_without_a_token_others_cannot_reach_it(
    url: str,
    host: str,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", token)
    arguments = ("--storage", url, "--port", "0", "--host", host)
    assert "HPO_DASHBOARD_TOKEN" in refusal(capsys, 2, *arguments)


def test_a_short_token_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", "short-canary")
    said = refusal(capsys, 2, "--storage", url)
    assert "fewer than 16" in said
    assert "canary" not in said


def test_a_port_that_is_taken_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        said = refusal(capsys, 1, "--storage", url, "--port", port)
    assert f"port {port} of 127.0.0.1 is taken" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--port", "65536"), 2, "--port"),
        (("--port", "-1"), 2, "--port"),
        (("--port", "http"), 2, "--port"),
        (("--host", ""), 2, "no address of this machine"),
        (("--host", "no such host"), 2, "no address of this machine"),
        (("--host", "http://localhost"), 2, "no address of this machine"),
        (("--allow-host", "http://gpu7.lab"), 2, "no host name"),
        (("--allow-host", "gpu7.lab:80"), 2, "no host name"),
        (("--allow-host", "*"), 2, "no host name"),
        (("--artifacts", "nowhere"), 74, "no such folder"),
        (("--storage", "sqlite:///nothing.db"), 69, "no such file"),
        (("--storage", "postgresql://me:s3cr3t@127.0.0.1:1/hpo"), 69, "no server answers"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(
    url: str,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HPO_DASHBOARD_TOKEN", raising=False)
    given = arguments if "--storage" in arguments else ("--storage", url, *arguments)
    found = refusal(capsys, code, *given)
    assert said in found
    assert "s3cr3t" not in found


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("[::1]", "::1"), ("0", EVERYWHERE)],
)
def test_an_address_is_judged_by_what_it_means(host: str, address: str) -> None:
    place = _place(Options(host=host))
    assert place.address == address
    assert {"localhost", address} <= _hosts(Options(host=host), place)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_the_machine_itself_is_reached_where_it_has_no_other_ipv4_address(
    url: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def as_glibc(*arguments: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_ADDRCONFIG:
            raise socket.gaierror(socket.EAI_ADDRFAMILY, "Address family not supported")
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", as_glibc)
    listening: list[str] = []
    serve(url, Options(host=host, port=0), lambda: True, listening.append)
    [address] = listening
    assert address.startswith(f"http://{host.replace('localhost', '127.0.0.1')}:")


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(UsageError, match="name an address of this machine"):
        _place(Options(host="192.0.2.1", port=0)).bind()


def test_further_names_are_known_without_case_and_dot() -> None:
    options = Options(allow_hosts=("GPU7.lab.", "[fd00::7]", "192.0.2.7"))
    assert {"gpu7.lab", "fd00::7", "192.0.2.7"} <= _hosts(options, _place(options))


@pytest.mark.parametrize(
    ("arguments", "fits", "answer", "too_long"),
    [
        ((), 40, 405, 64),
        (("--allow-writes",), 400, 401, 512),
        (("--allow-writes", "--artifacts", "."), 600, 401, 192 * 1024),
        (("--artifacts", "."), 40, 405, 64),
    ],
)
def test_a_body_may_be_as_long_as_what_may_be_written(
    tmp_path: Path, url: str, arguments: tuple[str, ...], fits: int, answer: int, too_long: int
) -> None:
    """In KiB. It is taken in before the token is asked for, and refused before it is sent."""
    extra = {"HPO_DASHBOARD_TOKEN": TOKEN}
    with running(tmp_path, "--storage", url, *arguments, **extra) as dashboard:
        assert put(dashboard.port, fits * 1024, sent=True) == answer
        assert put(dashboard.port, too_long * 1024, sent=False) == 413


def put(port: int, length: int, *, sent: bool) -> int:
    """The status of the answer to a body of so many bytes, or to the mere announcement of one."""
    head = (
        f"PUT /api/studies/1/note HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as asking:
        asking.sendall(head.encode() + bytes(length if sent else 0))
        return int(asking.recv(12).split()[1])
