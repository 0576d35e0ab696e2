from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpo.errors import HpoError, StorageError
from hpo.search.url import parse, redact

CANARY = "s3cr3t@%2F"
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# A password is told from the rest of a URL by a part that occurs nowhere else.
_password = st.tuples(_text, _text).map(lambda ends: f"{ends[0]}CANARY{ends[1]}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///hpo.db", "sqlite:///hpo.db"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("postgresql://u:pw@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require"),
        ("postgresql://h/d?user=u&password=pw", "postgresql://h/d?***&password=***"),
        ("postgresql://u@/d?host=/run/x&sslpassword=pw", None),
        ("postgresql://u:p@ss@h/d", "postgresql://***"),
        ("postgresql://u:12?34@h/d", "postgresql://***"),
        ("postgresql://u:12/34@h/d", "postgresql://***"),
        ("postgresql://u:pw", "postgresql://***"),
        ("u:pw@h", "***"),
        ("mysql://u:pw@h/d", "mysql://u:***@h/d"),
    ],
)
def test_a_shown_url_has_no_secret(url: str, shown: str | None) -> None:
    shown = shown or "postgresql://u@/d?host=/run/x&sslpassword=***"
    assert redact(url) == shown
    assert redact(shown) == shown


@settings(deadline=None)
@given(
    user=_text,
    password=_password,
    write=st.sampled_from([str, quote, quote_plus, lambda text: quote(text, safe="")]),
    template=st.sampled_from(
        [
            "{scheme}://{user}:{password}@host:5432/db",
            "{scheme}://:{password}@host/db",
            "{scheme}://{user}:{password}@/db?host=/tmp&application_name=a",
            "{scheme}://host/db?password={password}",
            "{scheme}://host/db?sslmode=require&sslpassword={password}&host=h",
            "{scheme}://host/db?PASSWORD={password}",
            "{scheme}://{user}:{password}",
            "{scheme}:{user}:{password}@host",
        ]
    ),
    scheme=st.sampled_from(["postgresql", "postgres", "postgresql+psycopg", "mysql", "sqlite"]),
)
@example("u", f"{CANARY}CANARY", str, "{scheme}://{user}:{password}@host:5432/db", "postgresql")
@example("u", "1?CANARY", str, "{scheme}://{user}:{password}@host:5432/db", "postgresql")
def test_no_part_of_a_password_is_ever_shown(
    user: str, password: str, write: object, template: str, scheme: str
) -> None:
    assert callable(write)
    url = template.format(scheme=scheme, user=quote(user, safe=""), password=write(password))
    assert "CANARY" not in redact(url)
    try:
        address = parse(url)
    except HpoError as error:
        said = f"{error} {error.__context__!r}"
        assert "CANARY" not in said
    else:
        assert "CANARY" not in repr(address)
        assert "CANARY" not in address.url
        forms = [form(value) for value in address.options.values() for form in (str, quote)]
        assert "CANARY" not in address.scrub(f"login {' / '.join(forms)} failed")


@settings(deadline=None)
@given(
    user=_text.filter(bool),
    password=_text.filter(bool),
    database=st.text("abcXYZ09_-", min_size=1, max_size=8),
)
def test_what_is_percent_encoded_arrives_as_it_was(
    user: str, password: str, database: str
) -> None:
    quoted = [quote(text, safe="") for text in (user, password)]
    address = parse(f"postgresql://{quoted[0]}:{quoted[1]}@[::1]:5433/{database}?sslmode=prefer")
    url = sa.make_url(address.url)
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password) == (user, None)
    assert (url.host, url.port, url.database) == ("::1", 5433, database)
    assert address.options == {"password": password, "sslmode": "prefer"}


def test_a_relative_file_is_found_from_where_the_program_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse("sqlite:///sub/hpo.db")
    assert address.path == tmp_path / "sub" / "hpo.db"
    assert sa.make_url(address.url).database == str(address.path)
    assert address.shown == "sqlite:///sub/hpo.db"


@pytest.mark.parametrize(
    "url",
    [
        *("", "hpo.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///x.db?mode=ro"),
        *("sqlite://user:pw@host/x", "sqlite+aiosqlite:///x.db", "sqlite:///file:x?uri=true"),
        *("mysql://u@h/d", "postgresql+psycopg2://u@h/d", "postgresql://h:port/d", "redis://h"),
    ],
)
def test_what_is_no_address_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(StorageError, match=r"write (sqlite:///hpo\.db|@ as %40)") as caught:
        parse(url)
    assert "\n" not in str(caught.value)
