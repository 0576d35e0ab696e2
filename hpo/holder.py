"""Who holds something: a name for a process that tells, on the same machine, whether it lives.

A holder is `host:pid:token`. The token is the process's start time, the kernel's boot id, the
pid namespace and a random part: a pid is used again sooner or later, and two containers may
share a host name but not their pids. Where one of these cannot be read (not Linux), a holder is
never called gone, and its lease has to run out.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from functools import cache
from pathlib import Path

__all__ = ["holder_name", "is_gone", "is_here"]

_HOLDER = re.compile(r".*:(?P<pid>[0-9]+):(?P<start>[0-9]+)-(?P<kernel>[0-9a-f]+-[0-9]+)-\w+")
_NOWHERE = "0-0"


def holder_name() -> str:
    """A name for a worker in this process; every call gives a different one."""
    pid = os.getpid()
    start = (_state_and_start(pid) or ("", "0"))[1]
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:100] or "localhost"
    return f"{host}:{pid}:{start}-{_kernel()}-{secrets.token_hex(4)}"


def is_here(holder: str) -> bool:
    """Whether the holder ran on this kernel, so that `is_gone` can tell whether it still does."""
    return _read_here(holder) is not None


def is_gone(holder: str) -> bool:
    """Whether the holder is certainly dead: it ran on this kernel, and its process is no more."""
    match = _read_here(holder)
    if match is None:
        return False
    pid = int(match["pid"])
    found = _state_and_start(pid)
    if found is None:
        # What cannot be read may still be alive: another user's process, or no file left to open.
        return not _exists(pid)
    # A zombie has ended; only its parent has not looked yet.
    return found[0] in "ZX" or found[1] != match["start"]


def _read_here(holder: str) -> re.Match[str] | None:
    """The parts of a name that was given on this kernel; None of any other."""
    match = _HOLDER.fullmatch(holder)
    return match if match is not None and match["kernel"] == _kernel() != _NOWHERE else None


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """A process's state letter and its start time in clock ticks; None if they cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program stands in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@cache
def _kernel() -> str:
    """The running kernel and the pid namespace in it: pids mean the same where this is equal."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return _NOWHERE
    numbers = re.findall(r"[0-9]+", namespace)
    return f"{boot.strip().replace('-', '')}-{numbers[0]}" if numbers else _NOWHERE
