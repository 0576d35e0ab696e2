from __future__ import annotations

import re
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from hpo.search import tables
from hpo.search.ledger import Counts
from hpo.search.statements import statements
from hpo.search.storage import open_storage

# What hpo made in its first version, word for word.
_VERSION_1 = """
CREATE TABLE hpo_schema (version INTEGER NOT NULL);
CREATE TABLE hpo_slots (
    id {id},
    study_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    trial_id INTEGER,
    holder VARCHAR(255),
    expires {double},
    done BOOLEAN NOT NULL,
    UNIQUE (study_id, number),
    FOREIGN KEY(study_id) REFERENCES studies (study_id) ON DELETE CASCADE
);
CREATE INDEX hpo_slots_open ON hpo_slots (study_id, number) WHERE {undone};
INSERT INTO hpo_schema (version) VALUES (1);
INSERT INTO hpo_slots (study_id, number, trial_id, holder, expires, done) VALUES
    (1, 0, 1, NULL, NULL, true),
    (1, 1, 2, 'elsewhere:1:1-abc-1-x', 1.0, false),
    (1, 2, NULL, NULL, NULL, false)
"""
_KINDS = {
    "sqlite": {
        "id": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
        "undone": "done = 0",
        "double": "DOUBLE",
    },
    "postgresql": {
        "id": "SERIAL NOT NULL PRIMARY KEY",
        "undone": "NOT done",
        "double": "DOUBLE PRECISION",
    },
}
_TRIGGER = (
    "CREATE TRIGGER IF NOT EXISTS hpo_slots_of_deleted_study AFTER DELETE ON studies "
    "BEGIN DELETE FROM hpo_slots WHERE study_id = OLD.study_id; END"
)


@pytest.fixture
def old_url(url: str) -> str:
    """A database with a study of three slots, as the first version left it."""
    backend = optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))
    study = optuna.create_study(storage=backend, study_name="a")
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
    kind = backend.engine.dialect.name
    made = _VERSION_1.format(**_KINDS[kind]).split(";")
    with backend.engine.begin() as connection:
        for statement in (*made, *([_TRIGGER] if kind == "sqlite" else [])):
            connection.exec_driver_sql(statement)
    backend.engine.dispose()
    return url


def test_eight_processes_bring_a_database_up_to_date(old_url: str, processes: Any) -> None:
    names = processes.run("identify", 8, old_url)
    assert len(set(names)) == 1
    assert re.fullmatch(r"[0-9a-f]{32}", names[0])
    with open_storage(old_url, must_exist=True) as storage:
        ledger = storage.ledger
        assert (ledger.version(), ledger.database_id) == (2, names[0])
        assert ledger.counts(1) == Counts(3, 1, 0, 2)
        slots = ledger.claim(1, "me:1:x", 9, 60.0)
        # Nobody knows any more who has held the free one.
        assert [(one.number, one.trial_id, one.taken_over, one.fresh) for one in slots] == [
            (1, 2, True, False),
            (2, None, False, False),
        ]
        assert ledger.set_budget(1, 4) == 4
        assert ledger.claim(1, "me:1:x", 1, 60.0)[0].fresh


def test_an_old_database_ends_as_a_new_one(old_url: str) -> None:
    with open_storage(old_url) as storage:
        old = _shape(storage.engine)
        with storage.engine.begin() as connection:
            for table in ("hpo_slots", "hpo_schema", "hpo_database"):
                connection.exec_driver_sql(f"DROP TABLE {table}")
    with open_storage(old_url) as storage:
        assert _shape(storage.engine) == old


def test_a_database_keeps_its_name_and_shares_it_with_no_other(url: str, tmp_path: Any) -> None:
    with open_storage(url) as storage, open_storage(url, must_exist=True) as again:
        assert storage.ledger.database_id == again.ledger.database_id
        with open_storage(f"sqlite:///{tmp_path}/other.db") as other:
            assert other.ledger.database_id != storage.ledger.database_id


def test_a_claim_does_not_look_through_all_slots(sqlite_url: str) -> None:
    """What is done, and what is free, has no part in finding what was begun."""
    with open_storage(sqlite_url) as storage, storage.engine.connect() as connection:
        query = statements(sqlite=True).holders.compile(storage.engine)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", (1,)).all()
    assert "hpo_slots_begun" in str(plan)


def _shape(engine: sa.Engine) -> dict[str, Any]:
    inspector = sa.inspect(engine)
    return {
        name: (
            [(one["name"], str(one["type"])) for one in inspector.get_columns(name)],
            sorted(str(one["name"]) for one in inspector.get_indexes(name)),
        )
        for name in sorted(inspector.get_table_names())
        if name.startswith("hpo_")
    }


def test_the_tables_are_as_the_steps_make_them(url: str) -> None:
    with open_storage(url) as storage:
        found = sa.inspect(storage.engine).get_columns("hpo_slots")
    assert [one["name"] for one in found] == [column.name for column in tables.slots.c]
