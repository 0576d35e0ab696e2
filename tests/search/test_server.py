"""Connections to a PostgreSQL server, also through a pooler that stands between."""

from __future__ import annotations

import optuna
import sqlalchemy as sa

from hpo.search.ledger import Counts
from hpo.search.storage import Storage, open_storage

_FORGET = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"
_PREPARED = "SELECT count(*) FROM pg_prepared_statements"


def again_and_again(storage: Storage, between: str = "SELECT 1") -> None:
    """What a worker does at every epoch, with something in between on the same connection."""
    study = optuna.create_study(storage=storage.optuna, study_name="a")
    storage.ledger.set_budget(study._study_id, 3)
    trial = study.ask()
    for epoch in range(20):
        trial.report(0.5, epoch)
        assert storage.ledger.counts(study._study_id) == Counts(3, 0, 0, 3)
        ask(storage, between)


def ask(storage: Storage, query: str) -> object:
    single = storage.engine.execution_options(isolation_level="AUTOCOMMIT")
    with single.connect() as connection:
        found = connection.exec_driver_sql(query)
        return found.scalar() if found.returns_rows else None


def test_every_transaction_may_be_in_another_session(postgres_url: str) -> None:
    """As behind PgBouncer: what was prepared in one is not known in the next."""
    with open_storage(postgres_url) as storage:
        again_and_again(storage, _FORGET)
        assert ask(storage, _PREPARED) == 0


def test_statements_are_prepared_where_the_url_says_so(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).update_query_dict({"prepare_threshold": "2"})
    with open_storage(url.render_as_string(hide_password=False)) as storage:
        again_and_again(storage)
        prepared = ask(storage, _PREPARED)
        assert isinstance(prepared, int)
        assert prepared > 0
