"""No command shows a password, whatever it says. `tests/faults/test_secrets.py` has the rest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hpo.cli.secrets import Scrubber
from tests.faults.test_secrets import CANARY, COMMANDS, URLS

from .conftest import Run


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


def test_the_secret_in_a_file_is_scrubbed_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("s3cr3t@%2F\n")
    monkeypatch.setenv("HPO_STORAGE_PASSWORD_FILE", str(tmp_path / "password"))

    def fail() -> None:
        raise RuntimeError("no such login: 's3cr3t@%2F', s3cr3t%40%252F")

    monkeypatch.setattr("hpo.definition.json_schema", fail)
    done = run("studies", "schema", "--debug")
    assert done.code == 1
    assert CANARY not in done.out + done.err
    assert "no such login: '***', ***" in done.err


def test_a_short_secret_leaves_texts_without_it_alone() -> None:
    scrub = Scrubber(["--storage", "postgresql://ann:pw@host/db"])
    assert scrub("nothing to hide,\nnot even here") == "nothing to hide,\nnot even here"
    assert scrub("pw at postgresql://ann:pw@host/db") == "*** at postgresql://ann:***@host/db"


def test_the_token_of_the_dashboard_may_lie_in_a_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cr3t\n")
    monkeypatch.delenv("HPO_DASHBOARD_TOKEN", raising=False)
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN_FILE", str(tmp_path / "token"))
    done = run("dashboard", "--host", "0.0.0.0", "--debug")  # noqa: S104 (refused, it is short)
    assert done.code == 2
    assert "HPO_DASHBOARD_TOKEN has fewer than 16 characters" in done.err
    assert CANARY not in done.out + done.err
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN_FILE", str(tmp_path / "none"))
    assert run("dashboard").code == 74


def test_what_would_steer_a_terminal_is_taken_out() -> None:
    assert Scrubber([])("study `x\x1b[31m\r\x07`:\n\tlost") == "study `x [31m  `:\n\tlost"
