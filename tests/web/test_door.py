"""What the door lets pass, and how answers leave: F23 of the field notes, and more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from hpo.errors import UsageError
from hpo.web.door import LOOPBACK_NAMES, Door, Rules
from hpo.web.keys import SESSION_SECONDS, Keys
from tests.web.asking import Reply, ask

TOKEN = "correct-horse-battery"
FORM = "application/x-www-form-urlencoded"


class Inside:
    """An application that says yes to everything, with headers that it should not send."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.headers = [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*")]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        start_response("200 OK", self.headers)
        return [b"<script>alert(1)</script>"]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def locked(inside: Inside, clock: Clock) -> Door:
    """A door that asks for the token."""
    return Door(inside, Rules(keys=Keys(TOKEN, clock), port=8080))


def log_in(door: Door, token: str, **headers: str) -> Reply:
    body = urlencode({"token": token}).encode()
    return ask(door, "POST", "/login", body, content_type=FORM, **headers)


def cookie(reply: Reply) -> str:
    return reply.headers["set-cookie"].partition(";")[0]


# --- methods


@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "get"])
def test_nothing_but_looking_passes(inside: Inside, method: str) -> None:
    reply = ask(Door(inside, Rules()), method, "/api/studies/1")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert "--allow-writes" in reply.json["reason"]
    assert inside.asked == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_passes(inside: Inside, method: str) -> None:
    assert ask(Door(inside, Rules()), method, "/api/studies").status == 200
    assert inside.asked == [(method, "/api/studies")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://127.0.0.1:8080"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "https://127.0.0.1:8080"}, 200),  # behind a proxy that speaks TLS
        ({"Origin": "http://127.0.0.1:9090"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 200),  # no browser
    ],
)
def test_a_write_must_come_from_a_page_of_our_own(
    inside: Inside, headers: dict[str, str], status: int
) -> None:
    door = Door(inside, Rules(writes=True))
    reply = ask(door, "DELETE", "/api/studies/1", **headers)
    assert reply.status == status
    assert inside.asked == ([("DELETE", "/api/studies/1")] if status == 200 else [])


def test_with_writes_other_methods_are_still_refused(inside: Inside) -> None:
    reply = ask(Door(inside, Rules(writes=True)), "PATCH", "/api/studies/1")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST, PUT, DELETE")


def test_another_sites_page_cannot_make_the_server_work(inside: Inside) -> None:
    door, path = Door(inside, Rules()), "/api/studies/1/plot/contour"
    embedded = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(door, "GET", path, **embedded).status == 403
    assert ask(door, "GET", path, **followed).status == 200


# --- hosts


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9000", "LOCALHOST", "localhost.", "127.0.0.1:8080", "[::1]:8080"],
)
def test_it_answers_under_the_names_of_this_machine(inside: Inside, host: str) -> None:
    assert ask(Door(inside, Rules()), "GET", "/dashboard", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example"),
        *("evil.example@localhost", "", "[::1", "localhost/x", "192.168.0.9", "localhost,evil"),
    ],
)
def test_it_does_not_answer_under_other_names(inside: Inside, host: str) -> None:
    reply = ask(Door(inside, Rules()), "GET", "/dashboard", Host=host)
    assert reply.status == 403
    assert "evil" not in reply.body.decode()
    assert inside.asked == []


def test_a_name_can_be_added_and_an_address_is_no_name(inside: Inside) -> None:
    rules = Rules(hosts=LOOPBACK_NAMES | {"gpu7.lab"}, any_address=True)
    hosts = ["gpu7.lab:80", "192.168.0.9:8080", "[fd00::7]", "gpu8.lab", "192.168.0.9.nip.io"]
    found = [ask(Door(inside, rules), "GET", "/dashboard", Host=host).status for host in hosts]
    assert found == [200, 200, 200, 403, 403]


# --- the token


@pytest.mark.parametrize("path", ["/api/studies", "/static/bundle.js", "/artifacts/1/a", "/x"])
def test_without_the_token_nothing_passes(inside: Inside, locked: Door, path: str) -> None:
    reply = ask(locked, "GET", path)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Bearer realm="hpo"')
    assert inside.asked == []


@pytest.mark.parametrize("path", ["/", "/dashboard", "/dashboard/studies/1"])
def test_a_page_without_the_token_leads_to_the_login(locked: Door, path: str) -> None:
    reply = ask(locked, "GET", path)
    assert (reply.status, reply.headers["location"]) == (303, "/login")
    page = ask(locked, "GET", "/login")
    assert page.status == 200
    assert b'action="/login"' in page.body
    assert b'type="password"' in page.body


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_the_token_opens(inside: Inside, locked: Door, header: str) -> None:
    assert ask(locked, "GET", "/api/studies", Authorization=header).status == 200
    assert len(inside.asked) == 1


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
def test_anything_else_does_not(inside: Inside, locked: Door, header: str) -> None:
    assert ask(locked, "GET", "/api/studies", Authorization=header).status == 401
    assert ask(locked, "GET", f"/api/studies?token={TOKEN}").status == 401
    assert inside.asked == []


def test_a_token_need_not_be_ascii() -> None:
    door = Door(Inside(), Rules(keys=Keys("Schlüssel-für-alle")))
    sent = "Bearer Schlüssel-für-alle".encode().decode("latin-1")
    assert ask(door, "GET", "/api/studies", Authorization=sent).status == 200
    assert log_in(door, "Schlüssel-für-alle").status == 303


def test_a_login_opens_a_session_whose_cookie_does_not_tell_the_token(locked: Door) -> None:
    reply = log_in(locked, TOKEN)
    assert (reply.status, reply.headers["location"]) == (303, "/dashboard")
    set_cookie = reply.headers["set-cookie"]
    assert set_cookie.startswith("hpo_session_8080=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(set_cookie.split("; "))
    assert TOKEN not in set_cookie
    assert cookie(log_in(locked, TOKEN)) != cookie(reply)
    assert ask(locked, "GET", "/api/studies", Cookie=f"a=b; {cookie(reply)}").status == 200
    assert ask(locked, "GET", "/login", Cookie=cookie(reply)).status == 303


def test_a_session_ends(locked: Door, clock: Clock) -> None:
    session = cookie(log_in(locked, TOKEN))
    clock.now += SESSION_SECONDS - 1
    assert ask(locked, "GET", "/api/studies", Cookie=session).status == 200
    clock.now += 1
    assert ask(locked, "GET", "/api/studies", Cookie=session).status == 401


@pytest.mark.parametrize("value", ["", "wrong", TOKEN])
def test_a_made_up_session_opens_nothing(inside: Inside, locked: Door, value: str) -> None:
    reply = ask(locked, "GET", "/api/studies", Cookie=f"hpo_session_8080={value}")
    assert (reply.status, inside.asked) == (401, [])


def test_a_wrong_token_is_not_repeated(locked: Door) -> None:
    reply = log_in(locked, "<b>wrong</b>")
    assert (reply.status, "set-cookie" in reply.headers) == (401, False)
    assert b"This is not the token" in reply.body
    assert b"wrong</b>" not in reply.body


def test_who_guesses_must_wait_and_nobody_else(locked: Door, clock: Clock) -> None:
    session = cookie(log_in(locked, TOKEN))
    right = f"Bearer {TOKEN}"
    guesses = [log_in(locked, f"guess {i}").status for i in range(6)]
    assert guesses == [401, 401, 401, 401, 401, 429]
    # Not even the right token is looked at, or a guesser would learn of it.
    assert ask(locked, "GET", "/api/studies", Authorization=right).status == 429
    assert ask(locked, "GET", "/api/studies", Cookie=session).status == 200
    assert ask(locked, "GET", "/api/studies", Authorization=right, address="::2").status == 200
    waits = []
    for _ in range(9):
        clock.now += int(log_in(locked, TOKEN).headers.get("retry-after", "0"))
        assert log_in(locked, "a guess").status == 401
        waits.append(int(log_in(locked, "a guess").headers["retry-after"]))
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60]
    clock.now += 60
    assert log_in(locked, TOKEN).status == 303
    assert log_in(locked, "a guess").status == 401


def test_guessing_with_the_header_is_slowed_as_well(locked: Door) -> None:
    guesses = [
        ask(locked, "GET", "/api/meta", Authorization=f"Bearer {i}").status for i in range(6)
    ]
    assert guesses == [401] * 5 + [429]


def test_a_login_from_another_sites_page_is_refused(locked: Door) -> None:
    assert log_in(locked, TOKEN, Sec_Fetch_Site="cross-site").status == 403
    assert log_in(locked, TOKEN, Origin="http://evil.example").status == 403
    assert log_in(locked, TOKEN, Host="evil.example").status == 403


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"token", b"&".join([b"a=b"] * 9), b"token=" + b"x" * 5000]
)
def test_a_broken_login_is_a_wrong_one(locked: Door, body: bytes) -> None:
    assert ask(locked, "POST", "/login", body, content_type=FORM).status == 401


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_the_login_page_takes_no_other_method(locked: Door, method: str) -> None:
    assert ask(locked, method, "/login").status == 405


def test_a_short_token_is_refused() -> None:
    with pytest.raises(UsageError, match="fewer than 16") as error:
        Keys("fifteen-letters")
    assert "fifteen" not in str(error.value)
    Keys("sixteen-letters!")


# --- answers


@pytest.mark.parametrize(
    "kind", ["text/html", "image/svg+xml", "application/javascript", "text/xml; charset=utf-8", ""]
)
def test_an_artifact_is_a_file_for_the_disk(inside: Inside, kind: str) -> None:
    inside.headers = [("Content-Type", kind), ("Access-Control-Allow-Origin", "*")]
    reply = ask(Door(inside, Rules()), "GET", "/artifacts/1/2/abc")
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]
    shown = kind if kind.startswith("image/") else "application/octet-stream"
    assert reply.headers["content-type"] == shown
    assert "access-control-allow-origin" not in reply.headers


def test_what_is_not_known_to_be_shown_is_a_file_for_the_disk(inside: Inside) -> None:
    inside.headers = [("Content-Type", "text/html"), ("Content-Disposition", "inline")]
    for path in ("//artifacts/1/2", "/artifacts", "/new-in-the-next-version"):
        headers = ask(Door(inside, Rules()), "GET", path).headers
        assert headers["content-disposition"] == "attachment"
        assert headers["content-type"] == "application/octet-stream"


def test_a_file_keeps_its_name(inside: Inside) -> None:
    inside.headers = [("content-type", "text/csv"), ("content-disposition", "attachment; x")]
    headers = ask(Door(inside, Rules()), "GET", "/csv/1").headers
    assert (headers["content-type"], headers["content-disposition"]) == (
        *("text/csv", "attachment; x"),
    )


@pytest.mark.parametrize(
    ("path", "status"), [("/dashboard", 200), ("/api/studies", 200), ("/login", 200), ("/x", 401)]
)
def test_every_answer_has_the_headers_that_guard_it(locked: Door, path: str, status: int) -> None:
    session: dict[str, Any] = (
        {} if status == 401 or path == "/login" else {"Cookie": cookie(log_in(locked, TOKEN))}
    )
    reply = ask(locked, "GET", path, **session)
    assert reply.status == status
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["referrer-policy"] == "same-origin"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]


def test_head_has_no_body(locked: Door) -> None:
    assert (ask(locked, "HEAD", "/login").body, ask(locked, "HEAD", "/x").body) == (b"", b"")
