"""optuna-dashboard on a database: what it reads, what it writes, and what it forgets."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import FrozenTrial

from hpo.errors import FileError, StorageError
from hpo.search import identity, trial_rows
from hpo.search.storage import Storage
from hpo.web import dashboard
from hpo.web.dashboard import Pages
from hpo.web.door import Door, Rules
from tests.web.asking import ask
from tests.web.conftest import fill


def poll(app: Any, path: str) -> Any:
    """What the page gets when it asks again, ten seconds or more after the last time."""
    bottle = getattr(app, "_app", app)
    # optuna-dashboard asks its storage only so often; here each time counts.
    bottle._inmemory_cache._trials_last_fetched_at.clear()
    return ask(app, "GET", path).json


def routes(pages: Pages) -> list[tuple[str, str]]:
    """Every route of optuna-dashboard: method and path, with the ids of the first study."""
    found = []
    for route in pages._app.routes:  # type: ignore[attr-defined]
        path = route.rule.replace("<study_id:int>", "1").replace("<trial_id:int>", "1")
        path = path.replace("<artifact_id:re:[0-9a-fA-F-]+>", "abc").replace("<re:(/.*)?>", "")
        path = path.replace("<filename:path>", "bundle.js").replace("<plot_type>", "slice")
        path = path.replace("<history_id>", "1").replace("<:re:(/.*)?>", "")
        assert "<" not in path, f"a route that this test does not know: {route.rule}"
        found.append((route.method, path))
    return found


def dump(url: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return list(connection.iterdump())


def test_looking_at_everything_changes_nothing(url: str, storage: Storage) -> None:
    fill(storage, "digits", 12)
    with contextlib.closing(Pages(url)) as pages:
        before = dump(url)
        looked = [path for method, path in routes(pages) if method == "GET"]
        assert {"/api/studies", "/api/studies/1", "/csv/1"} <= set(looked)
        for path in looked:
            drawn_here = path.endswith("/plot/slice")  # needs plotly, which hpo does not
            assert drawn_here or ask(Door(pages, Rules()), "GET", path).status < 500, path
        assert dump(url) == before


def test_whatever_writes_is_refused(url: str, storage: Storage) -> None:
    fill(storage, "digits", 3)
    with contextlib.closing(Pages(url)) as pages:
        before = dump(url)
        writing = [route for route in routes(pages) if route[0] != "GET"]
        assert ("DELETE", "/api/studies/1") in writing
        for method, path in writing:
            assert ask(Door(pages, Rules()), method, path, b"{}").status == 405
        assert dump(url) == before


def test_with_writes_a_study_can_be_deleted(url: str, storage: Storage, pages: Pages) -> None:
    fill(storage, "digits", 3)
    door = Door(pages, Rules(writes=True))
    assert ask(door, "DELETE", "/api/studies/1", b"{}").status == 204
    assert ask(door, "GET", "/api/studies").json == {"study_summaries": []}
    assert optuna.get_all_study_names(storage.optuna) == []


# --- reading


class Built:
    """Counts the trials that are made of rows, by hpo's storage and by Optuna's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trials = 0

        def count(**fields: Any) -> FrozenTrial:
            self.trials += 1
            return FrozenTrial(**fields)

        for reader in (trial_rows, optuna.storages._rdb.storage):
            monkeypatch.setattr(reader, "FrozenTrial", count)

    def take(self) -> int:
        taken, self.trials = self.trials, 0
        return taken


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    return Built(monkeypatch)


def test_a_poll_reads_the_trials_that_may_have_changed_and_no_other(
    storage: Storage, pages: Pages, built: Built
) -> None:
    study = fill(storage, "digits", 50)
    running = study.ask()
    built.take()
    first = poll(pages, "/api/studies/1?after=0")
    assert (len(first["trials"]), built.take()) == (51, 51)
    for _ in range(3):
        again = poll(pages, "/api/studies/1?after=50")
        assert [trial["state"] for trial in again["trials"]] == ["Running"]
        assert built.take() == 1
    study.tell(running, 99.0)
    built.take()
    last = poll(pages, "/api/studies/1?after=50")
    assert [trial["values"] for trial in last["trials"]] == [[99.0]]
    assert last["best_trials"][0]["number"] == 50
    assert built.take() == 1
    assert poll(pages, "/api/studies/1?after=51")["trials"] == []
    assert built.take() == 0


def test_stock_optuna_dashboard_reads_everything_at_every_poll(
    url: str, storage: Storage, built: Built
) -> None:
    """What the cache is for; if this fails, it may not be needed any more."""
    fill(storage, "digits", 20)
    stock = optuna_dashboard.wsgi(url)
    for _ in range(3):
        built.take()
        poll(stock, "/api/studies/1?after=20")
        assert built.take() >= 20


def queries(pages: Pages, path: str) -> int:
    """How often one poll asks the database."""
    asked = []
    listener = lambda *given: asked.append(given[2])  # noqa: E731 (SQLAlchemy counts its arguments)
    sa.event.listen(pages._storage.engine, "before_cursor_execute", listener)
    poll(pages, path)
    sa.event.remove(pages._storage.engine, "before_cursor_execute", listener)
    return len(asked)


def test_a_poll_of_a_larger_study_asks_no_more_often(storage: Storage, pages: Pages) -> None:
    fill(storage, "small", 5)
    fill(storage, "large", 50)
    small, large = "/api/studies/1?after=5", "/api/studies/2?after=50"
    poll(pages, small)
    poll(pages, large)
    assert 0 < queries(pages, large) == queries(pages, small) < 12


def test_what_happens_meanwhile_appears(storage: Storage, pages: Pages) -> None:
    assert ask(pages, "GET", "/api/studies").json == {"study_summaries": []}
    study = fill(storage, "digits", 2)
    (shown,) = ask(pages, "GET", "/api/studies").json["study_summaries"]
    assert shown["study_name"] == "digits"
    assert len(ask(pages, "GET", "/api/studies/1").json["trials"]) == 2
    trial = study.ask()
    trial.report(0.25, 1)
    found = poll(pages, "/api/studies/1?after=2")["trials"]
    assert [one["state"] for one in found] == ["Running"]
    assert found[0]["intermediate_values"] == [{"step": 1, "value": 0.25}]


@pytest.mark.parametrize("name", ["digits", "another"])
def test_a_study_with_the_id_of_a_dead_one_is_not_taken_for_it(
    storage: Storage, pages: Pages, name: str
) -> None:
    fill(storage, "digits", 5)
    assert len(ask(pages, "GET", "/api/studies/1").json["trials"]) == 5
    optuna.delete_study(study_name="digits", storage=storage.optuna)
    study = fill(storage, name, 3)
    assert study._study_id == 1  # SQLite gives it again
    found = ask(pages, "GET", "/api/studies/1").json
    assert found["name"] == name
    assert [trial["values"] for trial in found["trials"]] == [[0.125], [0.25], [0.375]]


def test_a_study_that_gets_its_first_trial_is_no_other_study() -> None:
    now = {1: identity.Identity("digits", optuna.trial.create_trial(value=1).datetime_start)}
    before = {1: identity.Identity("digits", None)}
    assert not identity.have_gone({}, now)
    assert not identity.have_gone(before, now)
    assert identity.have_gone(now, before)
    assert identity.have_gone(now, {})


# --- artifacts


def test_an_html_artifact_is_saved_and_not_shown(
    url: str, storage: Storage, tmp_path: Path
) -> None:
    folder, page = tmp_path / "artifacts", tmp_path / "page.html"
    folder.mkdir()
    page.write_text("<script>alert(1)</script>")
    study = fill(storage, "digits", 1)
    store = FileSystemArtifactStore(str(folder))
    key = upload_artifact(artifact_store=store, file_path=str(page), study_or_trial=study)
    path = f"/artifacts/1/{key}"
    stock = ask(optuna_dashboard.wsgi(url, store), "GET", path)
    assert stock.headers["content-type"] == "text/html"
    assert stock.headers["access-control-allow-origin"] == "*"
    with contextlib.closing(Pages(url, folder)) as pages:
        reply = ask(Door(pages, Rules()), "GET", path)
    assert (reply.status, reply.body) == (200, page.read_bytes())
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in reply.headers


def test_a_folder_of_artifacts_must_be_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such folder"):
        Pages(url, tmp_path / "nowhere")


def test_a_database_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        Pages(f"sqlite:///{tmp_path / 'nothing.db'}")


# --- a database that is away


def test_a_database_that_is_away_is_said_once_and_comes_back(
    pages: Pages,
    storage: Storage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(storage, "digits", 2)

    def refuse(_: Storage) -> Any:
        raise StorageError("postgresql://me:***@there/hpo: no server answers there")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(dashboard, "identities", refuse)
        for _ in range(3):
            reply = ask(pages, "GET", "/api/studies/1")
            assert (reply.status, reply.headers["retry-after"]) == (503, "10")
            assert "there/hpo" not in reply.json["reason"]
    assert [record.message for record in caplog.records] == [
        "postgresql://me:***@there/hpo: no server answers there"
    ]
    assert ask(pages, "GET", "/api/studies/1").status == 200


def test_an_error_inside_is_said_without_its_traceback(
    pages: Pages, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("postgresql://me:s3cr3t@there/hpo")

    monkeypatch.setattr(pages._storage.optuna, "get_all_studies", fail)
    monkeypatch.setattr(pages._storage.optuna, "get_study_name_from_id", fail)
    dashboard._quieten()
    for path in ("/api/studies", "/csv/1"):
        pages._silent_until = time.monotonic()
        with caplog.at_level(logging.INFO):
            reply = ask(Door(pages, Rules()), "GET", path)
        assert reply.status == 500
        assert "s3cr3t" not in f"{reply.headers}{reply.body!r}"
        assert caplog.messages == [f"no answer to '{path}'; -v shows why"]
        caplog.clear()
