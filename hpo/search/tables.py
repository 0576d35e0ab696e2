"""The ledger's tables, and the steps that bring older ones up to date."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["LOCK", "VERSION", "bring_up_to_date", "slots", "version"]

LOCK = 0x68706F  # "hpo": the first half of the advisory locks' keys

_metadata = sa.MetaData()

# Optuna's; named here only to be referred to.
_studies = sa.Table("studies", _metadata, sa.Column("study_id", sa.Integer, primary_key=True))

_schema = sa.Table("hpo_schema", _metadata, sa.Column("version", sa.Integer, nullable=False))

slots = sa.Table(
    "hpo_slots",
    _metadata,
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
    slots.c.study_id,
    slots.c.number,
    sqlite_where=~slots.c.done,
    postgresql_where=~slots.c.done,
)


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
    """Version 1."""
    _metadata.create_all(connection, tables=[_schema, slots])
    if connection.dialect.name == "sqlite":
        # SQLite heeds foreign keys only on connections that ask for it, and gives the id of a
        # deleted study to the next one, which would then inherit the slots.
        connection.exec_driver_sql(
            "CREATE TRIGGER IF NOT EXISTS hpo_slots_of_deleted_study AFTER DELETE ON studies "
            "BEGIN DELETE FROM hpo_slots WHERE study_id = OLD.study_id; END"
        )


# Step i takes the tables from version i to i + 1. A step that was released is never changed.
_STEPS: list[Callable[[Connection], None]] = [_create]

VERSION = len(_STEPS)
