"""What this process may use of its machine: cores and memory, less what a container withholds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["installed_memory", "usable_cores", "usable_memory"]

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Cores that this process may keep busy: its affinity, and its control group's `cpu.max`.

    Args:
        root: where `/proc` and `/sys` are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for group in _groups(root):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def usable_memory(root: Path = _ROOT) -> int:
    """Bytes that can be had now: what the machine has available, or its control group's rest."""
    available = _meminfo(root).get("MemAvailable", installed_memory())
    for group in _groups(root):
        limit, used = _read(group / "memory.max"), _read(group / "memory.current")
        if limit.isdecimal() and used.isdecimal():
            # Cached files count as used, but give way.
            cached = _pairs(_read(group / "memory.stat")).get("inactive_file", 0)
            available = min(available, int(limit) - max(0, int(used) - cached))
    return max(0, available)


def installed_memory(root: Path = _ROOT) -> int:
    """Bytes of memory that this process could ever have: the machine's, or its group's limit."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_read(group / "memory.max") for group in _groups(root)]
    return min([installed, *(int(limit) for limit in limits if limit.isdecimal())])


def _groups(root: Path) -> Iterator[Path]:
    """The folder of this process's control group (version 2), and those above it."""
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::/"):
            group = top / line[4:].strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))
            return
    yield top


def _meminfo(root: Path) -> dict[str, int]:
    """`/proc/meminfo`, in bytes."""
    lines = _read(root / "proc/meminfo").replace(":", "").replace(" kB", "").splitlines()
    return {key: 1024 * value for key, value in _pairs("\n".join(lines)).items()}


def _pairs(text: str) -> dict[str, int]:
    words = [line.split() for line in text.splitlines()]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
