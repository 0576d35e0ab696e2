"""Results on the disk: whole or not there, each for one process at a time, none ever lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hpo.files
from hpo.errors import FileError
from hpo.search.spool import Result, Spool

RESULT = Result(
    study="digits",
    number=3,
    trial_id=17,
    slot_id=5,
    holder="here:1:2-3-4",
    state="COMPLETE",
    value=0.1 + 0.2,
    reports={1: 1 / 3, 2: 0.1 + 0.2},
    outcome={"epochs": 2, "reason": "all epochs trained"},
    curve=[{"epoch": 1, "loss": 2.0 / 3}, {"epoch": 2, "loss": 1e-17}],
)

KILLED = """
import os, signal, sys
from pathlib import Path
from hpo.search.spool import Result, Spool
spool = Spool(Path(sys.argv[1]))
spool.put(Result("digits", 3, 17, 5, "h", "COMPLETE", 0.5, {1: 0.5}, {"epochs": 1}))
print("put", flush=True)
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def test_a_result_comes_back_as_it_was_to_the_last_bit(tmp_path: Path) -> None:
    Spool(tmp_path / "new" / "spool").put(RESULT)
    assert list(Spool(tmp_path / "new" / "spool").abandoned()) == []  # its process still lives
    spool = Spool(tmp_path / "spool")
    spool.put(RESULT)
    spool.drop(RESULT.trial_id)
    assert list((tmp_path / "spool").iterdir()) == []


def test_locks_of_a_network_disk_are_taken_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS an exclusive lock of a file that is open to read is refused (EBADF)."""
    lock = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "die"], check=False)
    assert done.returncode == -9
    assert [result.trial_id for result in Spool(tmp_path).abandoned()] == [17]

    def no_locks(descriptor: int, operation: int) -> None:
        del descriptor, operation
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert list(Spool(tmp_path).abandoned()) == []


def test_a_result_of_a_killed_process_is_found_and_one_of_a_living_one_is_left(
    tmp_path: Path,
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "die"], check=False, stdout=subprocess.PIPE
    )
    assert died.returncode == -9
    (found,) = Spool(tmp_path).abandoned()
    assert (found.trial_id, found.value, found.reports) == (17, 0.5, {1: 0.5})
    # Finding is not forgetting: that is for whoever has told it.
    assert len(list(Spool(tmp_path).abandoned())) == 1
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), "live"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == b"put\n"
        assert list(Spool(tmp_path).abandoned()) == []
        living.kill()
    assert len(list(Spool(tmp_path).abandoned())) == 1


def test_a_result_is_locked_before_anybody_can_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(folder: Path) -> None:
        seen.append([path.name for path in folder.iterdir()])
        assert list(Spool(folder).abandoned()) == []

    monkeypatch.setattr(hpo.files, "sync_folder", look)  # the first moment after the rename
    Spool(tmp_path).put(RESULT)
    assert seen == [["17.json"]]


def test_what_a_writer_left_that_was_killed_is_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / f".{name}.json-9-ab" for name in ("1", "2"))
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (0, 0))
    assert list(Spool(tmp_path).abandoned()) == []
    assert list(tmp_path.iterdir()) == [new]  # whoever writes it may not have locked it yet


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"null", b"[]", b'{"reports": {}}', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_damaged_file_is_set_aside_and_said_once(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "17.json").write_bytes(damage)
    assert list(Spool(tmp_path).abandoned()) == []
    assert "17.json is damaged" in caplog.text
    caplog.clear()
    assert list(Spool(tmp_path).abandoned()) == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("state", "value"), [("COMPLETE", None), ("FAIL", 0.5), ("RUNNING", None), ("PRUNED", 1.0)]
)
def test_what_is_no_result_is_refused(state: str, value: float | None) -> None:
    with pytest.raises(ValueError, match="is no result"):
        replace(RESULT, state=state, value=value)


def test_a_file_of_another_make_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "17.json").write_text(json.dumps({"reports": {"1": 0.5}, "os": "system"}))
    assert list(Spool(tmp_path).abandoned()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(FileError, match="HPO_STATE"):
        Spool(tmp_path / "spool").put(RESULT)
