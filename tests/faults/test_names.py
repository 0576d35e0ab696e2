"""F18: a name that could leave its folder, hide, or be taken for something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import studies
from hpo.cli.app import app
from hpo.errors import UsageError
from tests.commands import here, run_here

BAD_NAMES = [
    "../x",
    "/etc/x",
    "a/../../b",
    "..%2fb",
    "x\0y",
    "-rf",
    "$(id)",
    "x" * 513,
    "x" * 101,
    ".",
    "..",
    "",
    " ",
    "trailing.",
    "two..dots",
    ".hidden",
    "_x",
    "mnіst",  # a Cyrillic i
    "ﬁle",
    "x\n",
    "x y",
    "a\\b",
    "C:x",
    "~",
    "x.yaml",
    "x.YML",
]


def _takers() -> list[list[str]]:
    """The beginnings of every command line that takes a study's name next, after a `=`."""
    root: Any = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        if "--study" in options:
            found.append([name, "--study"])
        if "--name" in options:
            found.append([name, "--study", "digits", "--name"])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that has one study, and results of it."""
    made = tmp_path_factory.mktemp("outer") / "inner"
    (made / "results" / "digits").mkdir(parents=True)
    short = ("--trials", "1", "--set", "training.epochs=1")
    here(made, "optimize", "--study", "digits", *short)
    return made


def _paths(folder: Path) -> list[Path]:
    """All that there is up to the folder above."""
    return sorted(path for path in folder.parent.rglob("*") if not path.name.startswith("hpo.db-"))


def _code(folder: Path, *arguments: str) -> int:
    """The exit code of a command in this process, whose words go nowhere."""
    code, said = run_here(folder, *arguments)
    assert "Traceback" not in said
    return code


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.parametrize("beginning", _takers(), ids=" ".join)
def test_f18_a_bad_name_is_refused_by_every_command(
    folder: Path, beginning: list[str], name: str
) -> None:
    before = _paths(folder)
    *words, option = beginning
    assert _code(folder, *words, f"{option}={name}") == 2
    assert _paths(folder) == before


@settings(max_examples=500, deadline=None)
@given(st.text() | st.text(alphabet="ab./\\%-_~\0"))
def test_f18_whatever_name_is_let_through_stays_in_its_folder(folder: Path, name: str) -> None:
    before = _paths(folder)
    # Only `digits` has a trial to retrain. Its name would be the artifact's folder.
    assert name == "digits" or _code(folder, "retrain-best", f"--study={name}") == 2
    assert _paths(folder) == before
    try:
        studies.valid_name(name)
    except UsageError:
        return
    root = folder / "results"
    for path in (root / name, root / f"{name}.yaml"):
        assert Path(os.path.normpath(path)).parent == root
    assert name.isascii()
    assert not name.startswith("-")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../x", "/hpo-x", "a/../../b", "x\n\x1b[31m"])
def test_f18_a_name_that_the_database_brings_is_no_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    short = ("--set", "training.epochs=1", "--set", "model.mlp={widths: [4]}")
    here(folder, "submit", "--study", "digits", "--trials", "2", *short)
    engine = sa.create_engine(f"sqlite:///{folder / 'hpo.db'}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE studies SET study_name = :name"), {"name": name})
    state = tmp_path / "state"
    done = here(folder, "worker", "--idle", "0", HPO_STATE=str(state))
    listed = here(folder, "status").stdout
    for text in (done.stdout, done.stderr, listed):
        assert "\x1b" not in text
    with engine.begin() as connection:
        states = connection.scalars(sa.text("SELECT state FROM trials")).all()
    assert len(states) == 2  # it is a study like any other
    outside = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    places = ("outer/inner/hpo.db", "state/")
    assert all(str(path).startswith(places) for path in outside)
    assert not Path("/hpo-x").exists()
