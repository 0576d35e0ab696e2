from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.errors import FileError, HpoError, StorageError
from hpo.search.outages import Patience
from hpo.search.storage import Storage, explain, open_storage


def sentence(caught: pytest.ExceptionInfo[HpoError]) -> str:
    """The message, which must be one sentence, with nothing behind it in the chain."""
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return text


def test_what_was_stored_is_there_again(url: str) -> None:
    with open_storage(url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="a")
        study.tell(study.ask(), 1.5)
        storage.ledger.set_budget(study._study_id, 3)
    with open_storage(url, must_exist=True) as storage:
        study = optuna.load_study(storage=storage.optuna, study_name="a")
        assert study.best_value == 1.5
        assert storage.ledger.counts(study._study_id).budget == 3


def test_sixteen_first_starts_at_once(url: str, processes: Any) -> None:
    assert processes.run("open_database", 16, url) == ["_CachedStorage"] * 16
    with open_storage(url, must_exist=True) as storage:
        assert storage.ledger.version() == 2


def pragmas(connection: sa.Connection, *names: str) -> list[object]:
    return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]


def test_sqlite_lets_readers_in(sqlite_url: str) -> None:
    names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
    with open_storage(sqlite_url) as storage, storage.engine.connect() as connection:
        assert pragmas(connection, *names) == ["wal", 1, 60_000, 1]
    # Whoever tries again asks for the lock in short turns, so that a stop is heard.
    with (
        open_storage(sqlite_url, patience=Patience(60.0)) as storage,
        storage.engine.connect() as connection,
    ):
        assert pragmas(connection, *names) == ["wal", 1, 1_000, 1]


def test_what_was_told_is_on_the_disk(sqlite_url: str) -> None:
    """SQLite's `synchronous` is FULL (2) when a trial is told, and only then."""
    with open_storage(sqlite_url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="a")
        at_commit: list[object] = []
        sa.event.listen(
            storage.engine,
            "commit",
            lambda connection: at_commit.extend(pragmas(connection, "synchronous")),
        )
        trial = study.ask()
        study.tell(trial, 1.5)
        study.ask()
        assert (at_commit.count(2), at_commit[-1]) == (1, 1)


def test_optuna_keeps_quiet(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with caplog.at_level(logging.INFO), open_storage(sqlite_url) as storage:
        optuna.create_study(storage=storage.optuna)
    assert not caplog.records


@pytest.mark.parametrize("name", ["a b.db", "a{b}.db", "é#;.db", "a%b.db", "a:b@c.db"])
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path}/{name}"
    with open_storage(url) as storage:
        assert storage.address.path is not None
        assert storage.address.path.exists()
    assert [path.name for path in tmp_path.iterdir()] == [storage.address.path.name]
    open_storage(url, must_exist=True).close()


def test_a_trial_told_by_several_processes_at_once_takes_one_value(
    url: str, processes: Any
) -> None:
    with open_storage(url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="race")
        for _ in range(12):
            study.ask()
        taken = processes.run("tell", 4, url, "race", "12")
    for number in range(12):
        assert sum(answer[number] for answer in taken) == 1, number


# --- what goes wrong: files


@pytest.fixture
def reachable_folder() -> Iterator[Path]:
    """A folder that other users can get into, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_missing_file_is_not_created_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no such file") as caught:
        open_storage(f"sqlite:///{tmp_path}/hpo.db", must_exist=True)
    assert "hpo optimize" in sentence(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_database_stays_empty_for_a_reader(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "other.db"
    if content is None:
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
        connection.close()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(StorageError, match="there is no study yet") as caught:
        open_storage(f"sqlite:///{file}", must_exist=True)
    sentence(caught)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_creates_nothing_on_a_server(postgres_url: str) -> None:
    with pytest.raises(StorageError, match="there is no study yet"):
        open_storage(postgres_url, must_exist=True)
    engine = sa.create_engine(sa.make_url(postgres_url).set(drivername="postgresql+psycopg"))
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("must_exist", [False, True])
def test_a_folder_is_no_database(tmp_path: Path, must_exist: bool) -> None:
    with pytest.raises(FileError, match="this is a folder") as caught:
        open_storage(f"sqlite:///{tmp_path}", must_exist=must_exist)
    sentence(caught)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=f"there is no folder {tmp_path}/no;") as caught:
        open_storage(f"sqlite:///{tmp_path}/no/hpo.db")
    sentence(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("must_exist", [False, True])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, must_exist: bool) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database" * 1000)
    with pytest.raises(StorageError, match="not an SQLite database") as caught:
        open_storage(f"sqlite:///{file}", must_exist=must_exist)
    sentence(caught)
    assert file.read_text() == "not a database" * 1000


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hpo.db"
    open_storage(f"sqlite:///{file}").close()
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        open_storage(f"sqlite:///{file}")
    assert str(file) in sentence(caught)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_cannot_be_written_is_an_error_of_the_disk(reachable_folder: Path, what: str) -> None:
    """As another user than root, whom no permission stops."""
    folder = reachable_folder / "locked"
    folder.mkdir()
    file = folder / "hpo.db"
    if what == "file":
        open_storage(f"sqlite:///{file}").close()
        file.chmod(0o444)
    folder.chmod(0o555)
    code = (
        "import os, sys, pathlib\n"
        "from hpo.search.storage import open_storage\n"
        "from hpo.errors import FileError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try:\n"
        f"    s = open_storage('sqlite:///{file}')\n"
        "    with s.guard(): s.ledger.set_budget(1, 1)\n"
        "except FileError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot be written" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


def test_a_full_disk_is_said_with_the_room_that_is_left(sqlite_url: str) -> None:
    with open_storage(sqlite_url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="a")
        with storage.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        # SQLite's own limit makes the same error as a disk without room.
        sa.event.listen(
            storage.engine,
            "checkout",
            lambda raw, *_: raw.execute(f"PRAGMA max_page_count={pages}"),
        )
        full = pytest.raises(FileError, match=r"disk refuses .*full.* bytes free")
        with full as caught, storage.guard():
            study.set_user_attr("a", "x" * 1_000_000)
        assert "\n" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_a_database_that_stays_locked(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.search.storage._BUSY_SECONDS", 0.2)
    with open_storage(sqlite_url) as storage:
        assert storage.address.path is not None
        other = sqlite3.connect(storage.address.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program"), storage.guard():
            storage.ledger.set_budget(1, 1)
        other.close()


# --- what goes wrong: servers


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"password": "s3cr3t@%2F"}, "check user and password"),
        ({"username": "nobody-here", "password": "s3cr3t@%2F"}, "check user and password"),
        ({"database": "nothing"}, "no such database"),
        ({"port": 1}, "no server answers"),
        ({"host": "no-such-host.invalid"}, "host is not known"),
        ({"query": {"nonsense": "1"}}, "option of the URL"),
        ({"query": {"sslpassword": "s3cr3t@%2F", "sslmode": "require"}}, ""),
        ({"query": {"password": "s3cr3t@%2F"}, "password": None}, "check user and password"),
    ],
)
def test_a_server_that_refuses(
    postgres_server: Any,
    change: dict[str, Any],
    expected: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = sa.make_url(postgres_server.tcp_url()).set(**change)
    text = url.render_as_string(hide_password=False)
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageError) as caught:
        open_storage(text).close()
    message = sentence(caught)
    assert expected in message
    everything = "".join(traceback.format_exception(caught.value)) + caplog.text
    everything += "".join(capfd.readouterr())
    for canary in ("s3cr3t", postgres_server.password):
        assert canary not in everything


def test_a_password_works_and_is_nowhere_in_the_open_storage(postgres_server: Any) -> None:
    with open_storage(postgres_server.tcp_url()) as storage:
        shown = repr(storage) + repr(storage.engine) + str(storage.engine.url)
        assert postgres_server.password not in shown
        assert "postgres:***@127.0.0.1" in storage.address.shown


def test_psycopg_is_asked_for_where_it_is_missing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError, match=r"pip install 'hpo\[postgres\]'") as caught:
        open_storage(postgres_url)
    sentence(caught)


# --- tables of another version


def _set(storage: Storage, statement: str, value: str | int) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sa.text(statement), {"value": value})


@pytest.mark.parametrize(
    ("revision", "expected"),
    [("v2.6.0.a", "an older Optuna .* storage upgrade"), ("v99.0.0.a", "a newer Optuna")],
)
def test_tables_of_another_optuna(url: str, revision: str, expected: str) -> None:
    with open_storage(url) as storage:
        _set(storage, "UPDATE alembic_version SET version_num = :value", revision)
    with pytest.raises(StorageError, match=expected) as caught:
        open_storage(url)
    sentence(caught)


def test_tables_of_a_newer_hpo(url: str) -> None:
    with open_storage(url) as storage:
        _set(storage, "UPDATE hpo_schema SET version = :value", 99)
    with pytest.raises(StorageError, match=r"a newer hpo .* update hpo") as caught:
        open_storage(url)
    sentence(caught)


def test_a_study_of_stock_optuna_is_taken_in(url: str, sqlite_url: str) -> None:
    stock = url.replace("postgresql://", "postgresql+psycopg://")
    backend = optuna.storages.RDBStorage(stock)
    optuna.create_study(storage=backend, study_name="old").tell(
        optuna.load_study(storage=backend, study_name="old").ask(), 2.0
    )
    backend.engine.dispose()
    with pytest.raises(StorageError, match="no study yet"):
        open_storage(url, must_exist=True)
    with open_storage(url) as storage:
        study = optuna.load_study(storage=storage.optuna, study_name="old")
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
        assert storage.ledger.set_budget(study._study_id, 2) == 2


def test_one_process_at_a_time_is_alone(url: str) -> None:
    with open_storage(url) as storage:
        with storage.alone():
            code = (
                "import sys, time\n"
                "from hpo.search.storage import open_storage\n"
                "with open_storage(sys.argv[1]) as s:\n"
                "    print('ready', flush=True)\n"
                "    with s.alone(): print('in', flush=True)\n"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        assert process.stdout.readline() == "in\n"
        assert process.wait(60) == 0
        process.stdout.close()


def test_a_state_says_more_than_the_words_beside_it(storage: Storage) -> None:
    class Said(psycopg.OperationalError):
        sqlstate = "57014"

    error = sa.exc.OperationalError(
        "SELECT 1", {}, Said("canceling statement due to statement timeout")
    )
    address = storage.address.__class__("postgresql://h/d", "x", None, {})
    assert "locked" in str(explain(error, address))
    Said.sqlstate = "25006"
    assert "standby" in str(explain(error, address))


def test_an_unknown_error_shows_its_first_line_without_secrets(storage: Storage) -> None:
    error = sa.exc.OperationalError("SELECT 1", {}, Exception("odd pw\nsecond line"))
    address = storage.address.__class__("postgresql://h/d", "x", None, {"password": "pw"})
    assert str(explain(error, address)).count("***") == 1
    assert "second" not in str(explain(error, address))
    assert "pw" not in str(explain(error, address))
