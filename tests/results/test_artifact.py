"""The artifact's draft: one process at a time, and nothing lost of what the test set showed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpo.errors import FileError
from hpo.files import Exclusive
from hpo.results.artifact import Draft, read_metrics
from hpo.results.retrain import Verdict

METRICS = {"study_state": {"finished_trials": 3}}
VERDICT = Verdict({}, None)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path.name.startswith("."))


def test_a_draft_becomes_the_artifact_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "study"
    for place in range(2):
        with Draft(folder) as draft:
            draft.states.append({"weight": torch.full((2,), float(place))})
            assert not (folder.parent / ".study.draft" / "metrics.json").exists()
            draft.put_in_place("study", VERDICT, METRICS)
        assert read_metrics(folder) == METRICS
        assert hidden(folder) == []
    assert sorted(path.name for path in folder.parent.iterdir()) == ["study", "study.1"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_what_ends_early_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def stopped() -> None:
        with Draft(folder) as draft:
            draft.states.append({"weight": torch.zeros(2)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with (
        Draft(folder),
        pytest.raises(FileError, match=r"study: another hpo retrain-best .* --output"),
    ):
        Draft(folder)
    with Draft(folder):
        pass
    assert list(tmp_path.iterdir()) == []


def killed(folder: Path, last: str) -> None:
    """Let a process make a draft and end in the midst of it."""
    program = f"""
import os, signal
from pathlib import Path
import torch
from hpo.results.artifact import Draft
draft = Draft(Path({str(folder)!r}))
draft.states.append({{"weight": torch.ones(2)}})
{last}
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9


def test_a_draft_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    killed(folder, "")
    assert hidden(folder) == [".study.draft", ".study.lock"]
    with Draft(folder) as draft:
        assert list(draft.states) == []
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_whole_is_moved_to_its_place(tmp_path: Path) -> None:
    """Killed between the two moves: what the test set showed is not looked at again."""
    folder = tmp_path / "study"
    metrics = json.dumps(METRICS)
    killed(folder, f'(draft._path / "metrics.json").write_text({metrics!r})')
    assert read_metrics(folder) is None
    with Draft(folder):
        assert read_metrics(folder) == METRICS
    assert hidden(folder) == []


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "study"
    with pytest.raises(FileError, match=r"study: .*; make room, or name another folder"):
        Draft(folder)


def test_a_claim_is_the_next_ones_after_a_release(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    first = Exclusive(path)
    assert first.held
    late = os.open(path, os.O_RDWR)  # of one who came while it was held
    assert not Exclusive(path).held
    first.release()
    assert not path.exists()
    second = Exclusive(path)
    assert second.held
    os.close(late)
    assert not Exclusive(path).held
    second.release()
