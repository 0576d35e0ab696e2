from __future__ import annotations

from pathlib import Path

import pytest

from hpo.errors import FileError
from hpo.search.secret_file import STORAGE_PASSWORD_FILE, secret_in_file
from hpo.search.url import parse

URL = "postgresql://ann@host/studies"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the environment names; it is not there yet."""
    path = tmp_path / "password"
    monkeypatch.setenv(STORAGE_PASSWORD_FILE, str(path))
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_url_without_password_gets_that_of_the_file(file: Path, end: str) -> None:
    file.write_bytes(f" s3cr3t@%2F é{end}".encode())
    address = parse(URL)
    assert address.options == {"password": " s3cr3t@%2F é"}
    assert "s3cr3t" not in address.url + address.shown + repr(address)
    assert address.scrub("login with  s3cr3t@%2F é failed") == "login with *** failed"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:own@host/studies",
        f"{URL}?password=own",
        f"{URL}?passfile=/home/ann/pass",
        "sqlite:///x.db",
    ],
)
def test_what_has_or_needs_no_other_password_leaves_the_file_unread(file: Path, url: str) -> None:
    assert parse(url).options.get("password") in ("own", None)


@pytest.mark.parametrize("url", [URL, "postgresql://ann:@host/studies"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "holds no secret"),
        (b"\n", "holds no secret"),
        (b"s3cr3t\0", "holds no secret"),
        (b"s3cr3t\xff", "holds no secret"),
        (b"s3cr3t" * 1000, "holds no secret"),
    ],
)
def test_a_file_without_a_secret_is_an_error(
    file: Path, url: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FileError) as caught:
        parse(url)
    message = str(caught.value)
    assert message.startswith(f"HPO_STORAGE_PASSWORD_FILE: the file that it names {said}")
    assert "s3cr3t" not in message
    assert caught.value.__cause__ is None


def test_a_secret_where_the_name_of_its_file_belongs_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for secret in ("s3cr3t", "s3cr3t" * 1000):
        monkeypatch.setenv(STORAGE_PASSWORD_FILE, secret)
        with pytest.raises(FileError) as caught:
            parse(URL)
        assert "s3cr3t" not in str(caught.value)


def test_a_folder_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_FILE", str(tmp_path))
    with pytest.raises(FileError, match=r"SOME_FILE: .* cannot be read"):
        secret_in_file("SOME_FILE")


@pytest.mark.parametrize("value", [None, ""])
def test_no_file_no_secret(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORAGE_PASSWORD_FILE, raising=False)
    if value is not None:
        monkeypatch.setenv(STORAGE_PASSWORD_FILE, value)
    assert secret_in_file(STORAGE_PASSWORD_FILE) is None
    assert parse(URL).options == {}
