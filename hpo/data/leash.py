"""A program on a leash: `leash.py PROGRAM ARGUMENTS...`, whose stdin is a pipe.

The other end of the pipe is with the process that started this one, alone, and nothing is written
there. So the pipe ends when that process does, in whatever way: by SIGKILL too, or by `os._exit`
while a thread waits. Then this process and all others of its group are killed; it must lead that
group. (Linux's PR_SET_PDEATHSIG would tell of the death of a thread, not of its process.)

Run as a file, with Python's own library alone: it starts with every client.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

__all__ = ["main"]


def main(command: Sequence[str]) -> int:
    """Run a program to its end, and return its exit code as a shell has it."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"error: {command[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 126
    threading.Thread(target=_watch, daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _watch() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
