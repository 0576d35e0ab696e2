"""The ledger's tables, and the steps that bring older ones up to date."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["LOCK", "VERSION", "begun", "bring_up_to_date", "database", "slots", "version"]

LOCK = 0x68706F  # "hpo": the first half of the advisory locks' keys

_metadata = sa.MetaData()
_schema = sa.Table("hpo_schema", _metadata, sa.Column("version", sa.Integer, nullable=False))

database = sa.Table("hpo_database", _metadata, sa.Column("id", sa.String(32), primary_key=True))
"""One row: a name of 32 hexadecimal digits that no other database has."""

slots = sa.Table(
    "hpo_slots",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("trial_id", sa.Integer),
    sa.Column("holder", sa.String(255)),
    sa.Column("expires", sa.Double),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("taken_over", sa.Boolean, nullable=False),
    sa.Column("claims", sa.Integer, nullable=False),
)
"""The slots as they are read and written; the steps below say how they come to be."""

begun = sa.and_(~slots.c.done, sa.or_(slots.c.holder.is_not(None), slots.c.trial_id.is_not(None)))
"""What is held, or carries a trial: few rows, with an index of their own."""


VERSION: int
"""The version of the tables that this hpo reads and writes."""


def version(connection: Connection) -> int:
    """The version of hpo's tables in the database; 0 where there are none."""
    if not sa.inspect(connection).has_table(_schema.name):
        return 0
    return connection.scalar(sa.select(sa.func.max(_schema.c.version))) or 0


def bring_up_to_date(connection: Connection) -> None:
    """Create the tables, or take older ones through the steps to `VERSION`.

    The transaction is the caller's, and so is the lock that lets one process do it at a time.
    """
    for step in _STEPS[version(connection) :]:
        step(connection)
    connection.execute(sa.delete(_schema))
    connection.execute(sa.insert(_schema).values(version=VERSION))


def _create(connection: Connection) -> None:
    """Version 1: the slots."""
    metadata = sa.MetaData()
    # Optuna's; named here only to be referred to.
    sa.Table("studies", metadata, sa.Column("study_id", sa.Integer, primary_key=True))
    rows = sa.Table(
        "hpo_slots",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "study_id",
            sa.Integer,
            sa.ForeignKey("studies.study_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer),
        sa.Column("holder", sa.String(255)),
        sa.Column("expires", sa.Double),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.UniqueConstraint("study_id", "number"),
        sqlite_autoincrement=True,
    )
    # What a claim looks through: it stays small however many slots are done.
    sa.Index(
        "hpo_slots_open",
        rows.c.study_id,
        rows.c.number,
        sqlite_where=~rows.c.done,
        postgresql_where=~rows.c.done,
    )
    schema = sa.Table("hpo_schema", metadata, sa.Column("version", sa.Integer, nullable=False))
    metadata.create_all(connection, tables=[schema, rows])
    if connection.dialect.name == "sqlite":
        # SQLite heeds foreign keys only on connections that ask for it, and gives the id of a
        # deleted study to the next one, which would then inherit the slots.
        connection.exec_driver_sql(
            "CREATE TRIGGER IF NOT EXISTS hpo_slots_of_deleted_study AFTER DELETE ON studies "
            "BEGIN DELETE FROM hpo_slots WHERE study_id = OLD.study_id; END"
        )


def _identify(connection: Connection) -> None:
    """Version 2: the database's name; how often a slot was claimed, and if from somebody."""
    metadata = sa.MetaData()
    names = sa.Table("hpo_database", metadata, sa.Column("id", sa.String(32), primary_key=True))
    metadata.create_all(connection)
    connection.execute(sa.insert(names).values(id=secrets.token_hex(16)))
    connection.exec_driver_sql(
        "ALTER TABLE hpo_slots ADD COLUMN taken_over BOOLEAN NOT NULL DEFAULT false"
    )
    # Whether anybody has claimed the slots that are there is not known; so they count as claimed.
    connection.exec_driver_sql(
        "ALTER TABLE hpo_slots ADD COLUMN claims INTEGER NOT NULL DEFAULT 1"
    )
    undone = "done = 0" if connection.dialect.name == "sqlite" else "NOT done"
    connection.exec_driver_sql(
        "CREATE INDEX hpo_slots_begun ON hpo_slots (study_id, holder) "
        f"WHERE {undone} AND (holder IS NOT NULL OR trial_id IS NOT NULL)"
    )


# Step i takes the tables from version i to i + 1. A step that was released is never changed.
_STEPS: list[Callable[[Connection], None]] = [_create, _identify]

VERSION = len(_STEPS)
