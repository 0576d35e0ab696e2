"""No command shows a password, whatever goes wrong."""

from __future__ import annotations

import logging

import pytest

from hpo.cli.secrets import Scrubber

from .conftest import Run, hpo

CANARY = "s3cr3t"
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
COMMANDS = [
    ["status"],
    ["trials", "--study", "digits"],
    ["best", "--study", "digits"],
    ["studies", "list"],
    ["studies", "show", "nowhere"],
    ["doctor"],
    ["optimize", "--study", "digits"],
    ["retrain-best", "--study", "digits"],
]


@pytest.mark.parametrize("url", URLS.values(), ids=list(URLS))
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words))
def test_a_database_that_fails_keeps_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str], url: str
) -> None:
    monkeypatch.setenv("HPO_STORAGE", url)
    by_environment = run(*command, "--debug", "-v")
    monkeypatch.delenv("HPO_STORAGE")
    by_option = run(*command, "--storage", url)
    for done in (by_environment, by_option):
        assert done.code in (1, 2, 69)
        assert CANARY not in done.out + done.err
        assert (done.out + done.err).strip()


def test_so_does_a_process_of_its_own() -> None:
    for done in (
        hpo("status", "--debug", HPO_STORAGE=URLS["userinfo"]),
        hpo("doctor", "--format", "json", f"--storage={URLS['query']}"),
    ):
        assert done.code in (1, 69)
        assert CANARY not in done.out + done.err


def test_help_does_not_show_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STORAGE", URLS["userinfo"])
    for command in COMMANDS:
        words = [word for word in command if word not in ("--study", "digits", "nowhere")]
        done = run(*words, "--help")
        assert "HPO_STORAGE" in done.out
        assert CANARY not in done.out + done.err


@pytest.mark.parametrize("url", [url for url in URLS.values() if "://" in url])
def test_a_url_in_the_wrong_place_is_not_repeated(run: Run, url: str) -> None:
    for arguments in ([url], ["status", url], ["status", "--format", url], [f"--store={url}"]):
        done = run(*arguments, "--debug")
        assert done.code == 2
        assert CANARY not in done.out + done.err


def test_an_unexpected_error_and_a_log_line_are_scrubbed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = URLS["userinfo"]
    plain = "s3cr3t@%2F"  # as a driver would say it

    def fail() -> None:
        logging.getLogger("hpo.somewhere").warning("trying %s with %s", url, plain)
        try:
            raise OSError(f"no such login: {plain!r}")
        except OSError as error:
            raise RuntimeError(f"cannot open {url}") from error

    monkeypatch.setenv("HPO_STORAGE", url)
    monkeypatch.setattr("hpo.definition.json_schema", fail)
    done = run("studies", "schema", "--debug")
    assert done.code == 1
    assert "warning: trying postgresql://ann:***@127.0.0.1:1/studies with ***" in done.err
    assert "no such login" in done.err
    assert "RuntimeError: cannot open postgresql://ann:***@127.0.0.1:1/studies" in done.err
    assert CANARY not in done.out + done.err


def test_a_short_secret_leaves_texts_without_it_alone() -> None:
    scrub = Scrubber(["--storage", "postgresql://ann:pw@host/db"])
    assert scrub("nothing to hide,\nnot even here") == "nothing to hide,\nnot even here"
    assert scrub("pw at postgresql://ann:pw@host/db") == "*** at postgresql://ann:***@host/db"
