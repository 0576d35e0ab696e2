"""Where workers keep their own, as the environment has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.errors import FileError
from hpo.search.state_folder import state_folder


def test_it_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STATE", str(tmp_path / "here"))
    assert state_folder("id") == tmp_path / "here" / "id"
    monkeypatch.setenv("HPO_STATE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder("id") == tmp_path / "there" / "id"
    monkeypatch.setenv("HPO_STATE", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_folder("id") == tmp_path / "state" / "hpo" / "id"


def test_the_home_of_nobody_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPO_STATE", "~nosuch-user/s")
    with pytest.raises(FileError, match=r"^HPO_STATE: there is no home folder for '~nosuch-u"):
        state_folder("id")
