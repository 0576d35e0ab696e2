"""F19: a pickle that somebody put into the database, among the checkpoints or into an artifact."""

from __future__ import annotations

import json
import pickle
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.commands import here, read, start

pytestmark = pytest.mark.slow

STUDY = """\
dataset: {name: digits}
model: {mlp: {layers: {int: [1, 2]}, width: {int: [8, 32]}}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: 32, epochs: 10}
search: {trials: 4, pruner: none}
"""
SHORT = (
    *("--set", "training.epochs=1", "--set", "model.mlp={widths: [8]}"),
    *("--set", "retrain={finalists: 1, seeds: 1}"),
)


class _Canary:
    """Whoever unpickles one makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.file), "w")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """What a pickle makes where it is loaded; the test ends with a look at it."""
    return tmp_path / "canary"


@pytest.fixture
def poison(canary: Path) -> bytes:
    content = pickle.dumps(_Canary(canary))
    pickle.loads(content).close()  # noqa: S301 (it does what it is said to do)
    canary.unlink()
    return content


def _plant(folder: Path, poison: bytes) -> list[Path]:
    """Put a pickle in each file's place in a folder, and the formats that hold one beside it."""
    replaced = [path for path in folder.rglob("*") if path.is_file()]
    for path in replaced:
        path.write_bytes(poison)
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for place in places:
        for name in (
            "model.pt",
            "checkpoint.pt",
            "0.pkl",
            "0.safetensors",
            "checkpoint.safetensors",
        ):
            if not (place / name).exists():
                (place / name).write_bytes(poison)
        with zipfile.ZipFile(place / "model.pt2", "w") as archive:
            archive.writestr("archive/data.pkl", poison)
            archive.writestr("archive/version", "3")
    return replaced


def test_f19_a_sampler_in_the_database_is_not_unpickled(
    tmp_path: Path, canary: Path, poison: bytes
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    here(folder, "optimize", "--study", "digits", "--trials", "2", *SHORT)
    engine = sa.create_engine(f"sqlite:///{folder / 'hpo.db'}", poolclass=sa.NullPool)
    # As Optuna's CMA-ES sampler keeps its state: hex, in parts.
    rows = [
        {"key": key, "value": json.dumps(poison.hex())}
        for key in (
            "cma:optimizer:0",
            "cma:n_restarts",
            "cma:restart_optimizer:0",
            "cma:generation",
        )
    ]
    with engine.begin() as connection:
        for table, owner in (("trial", 1), ("trial", 2), ("study", 1)):
            for kind in ("system", "user"):
                statement = f"""
                    INSERT INTO {table}_{kind}_attributes ({table}_id, key, value_json)
                    VALUES ({owner}, :key, :value)
                """  # noqa: S608
                connection.execute(sa.text(statement), rows)
    here(folder, "optimize", "--study", "digits", "--trials", "4", *SHORT)
    here(folder, "retrain-best", "--study", "digits")
    assert read(folder, "status", "--study", "digits")["finished"] == 4
    assert not canary.exists()


def test_f19_a_stored_study_that_asks_for_such_a_sampler_is_refused(tmp_path: Path) -> None:
    here(tmp_path, "optimize", "--study", "digits", "--trials", "1", *SHORT)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'hpo.db'}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        where = "WHERE key = 'hpo:definition'"
        select = f"SELECT value_json FROM study_user_attributes {where}"  # noqa: S608
        stored = json.loads(connection.scalar(sa.text(select)))
        assert '"tpe"' in stored
        changed = json.dumps(stored.replace('"tpe"', '"cmaes"'))
        update = f"UPDATE study_user_attributes SET value_json = :value {where}"  # noqa: S608
        connection.execute(sa.text(update), {"value": changed})
    for command in (["worker", "--study", "digits"], ["retrain-best", "--study", "digits"]):
        done = here(tmp_path, *command, expect=2)
        assert "search.sampler.cmaes: unknown key; there are tpe, random" in done.stderr
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM trials")) == 1


def test_f19_a_pickle_among_the_checkpoints_is_not_loaded(
    tmp_path: Path, canary: Path, poison: bytes
) -> None:
    folder, state = tmp_path / "folder", tmp_path / "state"
    folder.mkdir()
    (folder / "slow.yaml").write_text(STUDY)
    place: dict[str, Any] = {"HPO_STATE": str(state)}
    search = ("optimize", "--study", "slow.yaml")
    stopped = start(folder, *search, epochs_last=0.5, **place)
    deadline = time.monotonic() + 120
    while not (folder / "hpo.db").exists() or not _reports(folder):
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGTERM, said

    assert state.is_dir()
    replaced = _plant(state, poison)
    assert any(path.suffix == ".safetensors" for path in replaced)
    here(folder, *search, **place)
    assert read(folder, "status", "--study", "slow")["complete"] == 4
    assert not canary.exists()


def _reports(folder: Path) -> int:
    """How many epochs the database was told of."""
    engine = sa.create_engine(f"sqlite:///{folder / 'hpo.db'}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("trial_intermediate_values"):
            return 0
        return connection.scalar(sa.text("SELECT count(*) FROM trial_intermediate_values")) or 0


def test_f19_a_pickle_in_an_artifact_is_not_loaded(
    tmp_path: Path, canary: Path, poison: bytes
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    here(folder, "optimize", "--study", "digits", "--trials", "2", *SHORT)
    here(folder, "retrain-best", "--study", "digits")
    artifact = folder / "results" / "digits"
    assert artifact / "model.safetensors" in _plant(artifact, poison)
    refused = here(folder, "retrain-best", "--study", "digits", expect=74)
    assert "metrics.json: cannot be read" in refused.stderr
    assert not canary.exists()
