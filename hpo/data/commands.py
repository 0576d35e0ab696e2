"""Running a package registry's client: no shell, a time limit, nothing left running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hpo.data.folder import disk_errors

_LONGEST_REASON = 200
_PASSWORD = re.compile(r"//[^/@\s]*@")
_LEASH = Path(__file__).with_name("leash.py")


class CommandError(Exception):
    """A command could not be run or failed; the text says why, in a few words."""


def run_command(
    command: Sequence[str], cwd: Path, timeout: float, stdout: Path | None = None
) -> None:
    """Run a client to its end.

    Args:
        command: the program's name, looked up in PATH, and its arguments.
        cwd: where it runs; its log is kept there, as `PROGRAM.log`.
        timeout: seconds; then it is killed, with every process that it started, as it is when
            this process ends.
        stdout: a file for its output; without one the output goes to the log.

    Raises:
        CommandError: it is not installed, failed, or took too long.
        FileError: the log or the output cannot be written.
    """
    program = shutil.which(command[0])
    if program is None:
        raise CommandError(f"{command[0]} is not installed")
    log = cwd / f"{command[0]}.log"
    with disk_errors(cwd), log.open("wb") as errors, (stdout or log).open("ab") as output:
        # A session of its own: npm and apt start processes that would outlive a plain kill. And a
        # leash, for this process may be gone, by a signal, before it can kill anything.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LEASH), program, *command[1:]],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    with process:
        try:
            code = process.wait(timeout)
        except BaseException as error:  # Ctrl-C does not reach another session by itself
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandError(f"{command[0]} took more than {timeout:g} s") from None
            raise
    if code != 0:
        raise CommandError(f"{command[0]} failed: {_reason(log, code)}")


def _reason(log: Path, code: int) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines if re.search(r"error|^E:|^Err:", line, re.IGNORECASE)]
    told = [line for line in told if not re.match(r"npm error (code|errno|syscall)\b", line)]
    reason = next(iter(told), "") or next((line for line in lines if line.strip()), "")
    return _PASSWORD.sub("//", reason)[:_LONGEST_REASON] or f"exit code {code}"
