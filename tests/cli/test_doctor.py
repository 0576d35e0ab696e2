from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest
import torch

from hpo.training import devices

from .conftest import Run


def findings(run: Run, *arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    done = run("doctor", "--format", "json", *arguments)
    assert done.code == code, done
    rows = json.loads(done.out)
    assert all(list(row) == ["check", "state", "found", "advice"] for row in rows)
    assert {row["state"] for row in rows} <= {"ok", "warning", "error"}
    assert all(row["advice"] for row in rows if row["state"] != "ok")
    return {row["check"]: row for row in rows}


def test_a_healthy_machine(run: Run) -> None:
    found = findings(run)
    assert found["python"]["found"].startswith(platform.python_version())
    assert found["torch"]["found"].startswith(torch.__version__.split("+")[0])
    assert found["optuna"]["found"] == optuna.__version__
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert found["device"]["found"].startswith(expected)
    assert "float" in found["device"]["found"]
    assert "GFLOP/s" in found["matrix product"]["found"]
    assert found["dataset digits"]["found"] == "here"
    assert "GiB" in found["memory"]["found"]


def test_a_gpu_with_too_old_a_driver_is_not_looked_at(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted; whoever asks for its properties is refused."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def refuse(_index: int) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    monkeypatch.setattr(torch.cuda, "get_device_properties", refuse)
    assert findings(run)["device"]["found"].startswith("cpu")


def test_a_device_that_cannot_be_asked_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_device: torch.device) -> str:
        raise RuntimeError("CUDA driver initialization failed\nmore")

    monkeypatch.setattr(devices, "device_name", refuse)
    found = findings(run, code=1)
    assert found["device"]["found"].endswith("CUDA driver initialization failed")
    assert "matrix product" not in found


def test_a_wrong_product_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (0.5, float("nan")):
        monkeypatch.setattr(devices, "prove", lambda _device, error=wrong: (10.0, error))
        row = findings(run, code=1)["matrix product"]
        assert (row["state"], row["found"][:6]) == ("error", "wrong:")


def test_a_product_that_fails_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_device: torch.device) -> tuple[float, float]:
        raise RuntimeError("CUDA error: no kernel image\nmore")

    monkeypatch.setattr(devices, "prove", fail)
    row = findings(run, code=1)["matrix product"]
    assert row["found"] == "it fails: CUDA error: no kernel image"


def test_a_database_that_is_not_there_is_not_made(run: Run) -> None:
    row = findings(run)["storage"]
    assert row["state"] == "ok"
    assert "not there yet" in row["found"]
    assert list(Path.cwd().iterdir()) == []


def test_a_database_that_opens(run: Run, database: str) -> None:
    assert findings(run, "--storage", database)["storage"]["found"] == (
        f"{database}: opens, studies: 4"
    )


def test_an_empty_file_is_a_database_to_be(run: Run) -> None:
    Path("empty.db").touch()
    row = findings(run, "--storage", "sqlite:///empty.db")["storage"]
    assert "not there yet" in row["found"]
    assert Path("empty.db").stat().st_size == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///notes.txt", "not an SQLite database"),
        ("sqlite:///nowhere/hpo.db", "there is no folder"),
        ("sqlite:///.", "folder"),
        ("oracle://host/db", "SQLite or in PostgreSQL"),
        ("postgresql://ann:pw@127.0.0.1:1/db", "no server answers"),
    ],
)
def test_a_broken_database_is_an_error_with_advice(run: Run, url: str, said: str) -> None:
    Path("notes.txt").write_text("no database at all\n" * 100)
    row = findings(run, "--storage", url, code=1)["storage"]
    assert row["state"] == "error"
    assert said in row["found"] + row["advice"]
    assert "pw" not in row["found"]


def test_a_database_that_the_disk_does_not_tell_of_leaves_the_rest_of_the_report(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{'x' * 300}.db")
    found = findings(run, code=1)
    assert found["storage"]["state"] == "error"
    assert "File name too long" in found["storage"]["found"]
    assert found["storage"]["advice"] == "name another file"
    assert found["python"]["state"] == "ok"


def test_a_database_in_a_folder_of_another_user_is_an_error_with_advice() -> None:
    """As another user than root, whom no permission stops, in a folder that is not pytest's."""
    code = (
        "import os, sys\n"
        "from hpo import studies\n"
        "from hpo.cli import main, rendering\n"
        "from hpo.search import status\n"
        "studies.available()\n"  # what it imports, this user may not read
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try:\n"
        "    status.count_studies(sys.argv[1])\n"
        "except status.HpoError as error:\n"
        "    print(error.exit_code, error)\n"
        "print(main(['studies', 'show', 'nosuch', '--storage', sys.argv[1]]))\n"
    )
    here = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    try:
        here.chmod(0o000)
        command = [sys.executable, "-c", code, f"sqlite:///{here}/h.db"]
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        here.chmod(0o755)
        shutil.rmtree(here)
    first, last = done.stdout.splitlines()
    assert first.startswith(f"74 sqlite:///{here}/h.db: ")
    assert first.endswith("name another file")
    assert last == "74"
    assert done.stderr.startswith(f"hpo: {here}/h.db: Permission denied")
    assert done.stderr.count("\n") == 1


def test_a_data_folder_that_cannot_be_read_is_an_error_with_advice(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / ("a" * 300)))  # no name of a file is as long
    row = findings(run, code=1)["dataset stl10"]
    assert row["state"] == "error"
    assert "HPO_DATA" in row["advice"]
    assert run("data", "list").code == 74


def test_a_data_folder_in_the_home_of_nobody_is_an_error_with_advice(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DATA", "~nosuch-user/d")
    found = findings(run, code=1)
    assert (
        found["data folder"]["found"] == "HPO_DATA: there is no home folder for '~nosuch-user/d'"
    )
    assert found["data folder"]["advice"].startswith("write the whole path")
    assert found["storage"]["state"] == "ok"


def test_a_table_for_people(run: Run) -> None:
    done = run("doctor", "--storage", "sqlite:///nowhere/hpo.db")
    assert done.code == 1
    assert "create it or name another" in done.out
    assert "advice" in done.out
