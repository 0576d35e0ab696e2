"""Running `hpo` as a person does: as a process, in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpo.cli import main

HPO = [sys.executable, "-m", "hpo"]
SLOWLY = [sys.executable, "-P", str(Path(__file__).with_name("slowly.py"))]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, without what would change where hpo looks."""
    kept = {key: value for key, value in os.environ.items() if key != "HPO_STORAGE"}
    return {**kept, "PYTHONWARNINGS": "error", **extra}


def hpo(
    folder: Path, *arguments: str, expect: int = 0, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and hold its exit code to `expect`."""
    result = subprocess.run(
        [*HPO, *arguments],
        cwd=folder,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return _checked(result, expect)


def here(
    folder: Path, *arguments: str, expect: int = 0, **extra: str
) -> subprocess.CompletedProcess[str]:
    """As `hpo`, but in this process, which saves the seconds that a start takes."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HPO_STORAGE", raising=False)
        for name, value in extra.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    done = subprocess.CompletedProcess([*HPO, *arguments], code, out.getvalue(), err.getvalue())
    return _checked(done, expect)


def _checked(
    done: subprocess.CompletedProcess[str], expect: int
) -> subprocess.CompletedProcess[str]:
    shown = f"{' '.join(done.args)}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == expect, shown
    assert "Traceback" not in done.stderr, shown
    return done


def run_here(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of a command in this process, and all that it says."""
    said = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        code = main(arguments)
    return code, said.getvalue()


def start(
    folder: Path, *arguments: str, epochs_last: float | None = None, **extra: str
) -> subprocess.Popen[str]:
    """Start a command, for tests that stop or kill it.

    Args:
        epochs_last: so many seconds, or somewhat longer; None for as long as they take.
    """
    program = HPO if epochs_last is None else [*SLOWLY, str(epochs_last)]
    process = subprocess.Popen(
        [*program, *arguments],
        cwd=folder,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(process)
    return process


_started: list[subprocess.Popen[str]] = []


def end_what_is_left() -> None:
    """Kill what a test that failed has left running: it would disturb the tests after it."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()


def read(folder: Path, *arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(here(folder, *arguments, "--format", "json").stdout)


@dataclass(frozen=True)
class Used:
    """What a command said, and what it took.

    Attributes:
        mebibytes: its largest resident memory.
        cpu_seconds: of user and system; a busy machine leaves them nearly alone.
    """

    stdout: str
    stderr: str
    mebibytes: float
    cpu_seconds: float


# A process counts as its own what its parent had at the fork; so a small one starts it.
_MEASURE = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([code, used.ru_maxrss, used.ru_utime + used.ru_stime], file)
"""


def measured(folder: Path, *arguments: str, expect: int = 0, **extra: str) -> Used:
    """Run a command to its end, hold its exit code to `expect`, and see what it took."""
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, file.name, *HPO, *arguments],
            cwd=folder,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=900,
            check=True,
        )
        code, kibibytes, seconds = json.load(file)
    shown = f"hpo {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    assert code == expect, shown
    assert "Traceback" not in done.stderr, shown
    return Used(done.stdout, done.stderr, kibibytes / 1024, seconds)
