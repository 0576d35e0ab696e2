"""F17 of the field notes: the password of the database is in no answer and in no log line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.search.storage import open_storage
from tests.databases import PostgresServer, postgres_server  # noqa: F401 (a fixture)
from tests.web.conftest import fill
from tests.web.running import running

PASSWORD = "s3cr3t@%2F"
ENCODED = "s3cr3t%40%252F"
PATHS = (
    *("/api/studies", "/api/studies/1", "/csv/1", "/dashboard"),
    *("/api/meta", "/no", "/artifacts/1/a"),
)


@pytest.fixture
def secret_url(postgres_server: PostgresServer) -> Iterator[str]:  # noqa: F811
    """A database that asks for a password with everything in it that can go wrong."""
    home = sa.make_url(postgres_server.url()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(home, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE canary LOGIN PASSWORD '{PASSWORD}'"))
        connection.exec_driver_sql("CREATE DATABASE canary OWNER canary")
    yield f"postgresql://canary:{ENCODED}@127.0.0.1:{postgres_server.port}/canary"
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE canary WITH (FORCE)")
        connection.exec_driver_sql("DROP ROLE canary")


def test_the_password_is_nowhere_to_be_read(
    tmp_path: Path,
    secret_url: str,
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    with open_storage(secret_url) as storage:
        fill(storage, "digits", 3)
    with running(tmp_path, "-v", HPO_STORAGE=secret_url) as dashboard:
        there = [dashboard.ask("GET", path) for path in PATHS]
        postgres_server.stop()
        try:
            away = [dashboard.ask("GET", path) for path in PATHS]
        finally:
            postgres_server.start()
        back = dashboard.ask("GET", "/api/studies/1")
        _, said, _ = dashboard.stop()
    assert [status for status, _ in there] == [200, 200, 200, 200, 200, 404, 400]
    assert [status for status, _ in away] == [503, 503, 503, 200, 503, 503, 503]
    assert back[0] == 200
    assert "canary:***@127.0.0.1" in said
    everything = "\n".join([said, *(text for _, text in (*there, *away, back))])
    assert "s3cr3t" not in everything
