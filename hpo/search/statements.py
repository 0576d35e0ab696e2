"""The ledger's statements, each built once: to put one together takes longer than to run it.

Their parameters: `study`, `me` (the holder), `lease` (seconds), `most`, `slot`, `slots`, `trial`;
`known` are slots that the holder knows to be its own, `gone` are holders that certainly died.

Time is the database's clock, in seconds since 1970 as a float: the arithmetic is then the same
in SQLite and PostgreSQL, and no time zone or date type takes part in it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

from hpo.search import tables

__all__ = ["Statements", "statements"]

_row = tables.slots.c


class Statements:
    """For one kind of database."""

    def __init__(self, *, sqlite: bool) -> None:
        now: sa.ColumnElement[float] = sa.literal_column(
            "((julianday('now') - 2440587.5) * 86400.0)"
            if sqlite
            else "(extract(epoch from clock_timestamp())::float8)",
            sa.Double,
        )
        study = _row.study_id == sa.bindparam("study", type_=sa.Integer)
        expires = now + sa.bindparam("lease", type_=sa.Double)
        expires_in = (_row.expires - now).label("expires_in")
        holder: sa.BindParameter[Any] = sa.bindparam("me", type_=sa.String)
        held = sa.and_(_row.holder == holder, ~_row.done)
        mine = sa.and_(held, _row.id == sa.bindparam("slot"))
        free = {"holder": None, "expires": None, "taken_over": False}
        some = _row.id.in_(sa.bindparam("slots", expanding=True))
        given_up = _given_up(now)

        self.claim = _claim(given_up, study, holder, expires)
        self.renew = sa.update(tables.slots).where(held).values(expires=expires).returning(_row.id)
        self.release_all = sa.update(tables.slots).where(held).values(free)
        self.release = self.release_all.where(some)
        self.settle = sa.update(tables.slots).where(some, ~_row.done).values(done=True, **free)
        self.free = (
            sa.update(tables.slots)
            .where(study, ~_row.done, _row.holder.is_not(None), given_up)
            .values({**free, "taken_over": True})
        )
        self.assign = sa.update(tables.slots).where(mine).values(trial_id=sa.bindparam("trial"))
        self.finish = sa.update(tables.slots).where(mine).values(done=True, **free)
        self.is_done = sa.select(_row.id).where(_row.id == sa.bindparam("slot"), _row.done)
        self.holders = (
            sa.select(_row.holder).where(study, tables.begun, _row.holder.is_not(None)).distinct()
        )
        # Slots in heaps of the same standing: the done ones, the free ones, those of a holder.
        self.heaps = (
            sa.select(_row.holder, expires_in, _row.done, sa.func.count().label("size"))
            .where(study)
            .group_by(_row.holder, _row.expires, _row.done)
        )
        self.slots = (
            sa.select(_row.id, _row.number, _row.trial_id, _row.holder, expires_in, _row.done)
            .where(study)
            .order_by(_row.number)
        )


statements = cache(Statements)


def _given_up(now: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    return sa.or_(_row.expires <= now, _row.holder.in_(sa.bindparam("gone", expanding=True)))


def _claim(
    given_up: sa.ColumnElement[bool],
    study: sa.ColumnElement[bool],
    holder: sa.BindParameter[Any],
    expires: sa.ColumnElement[float],
) -> sa.UpdateBase:
    """Take slots; begun ones first, of which there are few, then free ones by their number."""
    # One that it still trains may have been freed or taken meanwhile: it lets go of that first.
    other = _row.id.not_in(sa.bindparam("known", expanding=True))
    own, freed = _row.holder == holder, _row.holder.is_(None)
    claimable = sa.and_(other, sa.or_(freed, own, given_up))
    most = sa.bindparam("most", type_=sa.Integer)
    begun = (
        sa.select(_row.id)
        .where(study, tables.begun, claimable)
        .order_by(sa.case((own, 0), else_=1), _row.trial_id.is_(None), _row.number)
        .limit(most)
        .with_for_update(skip_locked=True)
        .cte("begun")
    )
    free = (
        sa.select(_row.id)
        .where(study, ~_row.done, other, freed, _row.trial_id.is_(None))
        .order_by(_row.number)
        .limit(sa.select(most - sa.func.count()).select_from(begun).scalar_subquery())
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    return (
        sa.update(tables.slots)
        .where(_row.id.in_(sa.select(begun.c.id).union_all(sa.select(free.c.id))))
        .values(
            holder=holder,
            expires=expires,
            claims=_row.claims + 1,
            taken_over=sa.case(
                (_row.holder == holder, _row.taken_over),
                else_=sa.or_(_row.holder.is_not(None), _row.taken_over),
            ),
        )
        .returning(_row.id, _row.number, _row.trial_id, _row.taken_over, _row.claims)
    )
