"""`hpo` with a fault in it: `broken_members.py FAULT ARGUMENTS...`.

The fault is in a subclass of `Population`, put in its place in this process alone.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor

import hpo.search.berths
from hpo.cli import main
from hpo.training.population import Member, Population

FAULT = sys.argv[1]
CURSED = int(match[1]) if (match := re.search(r"trial-(\d+)", FAULT)) else None
_once: list[int] = []


class Broken(Population):
    """Fails in its second epoch, in the way that the fault's name says."""

    def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
        keys = [member.key for member in self.members]
        late = any(len(member.history.records) > 0 for member in self.members)
        if late and FAULT == "memory-in-company" and len(keys) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if late and FAULT == "error-once" and not _once:
            _once.append(1)
            raise RuntimeError("a passing weakness")
        if late and CURSED in keys:
            self.strike()
        return super().train_epoch(stopping)

    def strike(self) -> None:
        if FAULT.startswith("memory"):
            raise MemoryError
        if FAULT.startswith("death"):
            os._exit(9)
        raise RuntimeError(f"trial {CURSED} is cursed")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Scarce(Population):
    """Finds, when a second member joins, that this process may grow by a few MiB only."""

    def add(self, members: Collection[Member]) -> None:
        if len(self) + len(members) < 2:
            super().add(members)
            return
        size = int(Path("/proc/self/statm").read_text().split()[0])
        limit = size * os.sysconf("SC_PAGE_SIZE") + 8 * 2**20
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, unlimited[1]))
        try:
            super().add(members)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, unlimited)


class Watched(Population):
    """Notes what memory this process has when trial 20 and when trial 200 begin."""

    def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
        newest = max(member.key for member in self.members)
        if newest >= (20, 200, 10**9)[len(_once)]:
            _once.append(resident())
        return super().train_epoch(stopping)


if __name__ == "__main__":
    kinds: dict[str, type[Population]] = {"address-space": Scarce, "watch-memory": Watched}
    hpo.search.berths.Population = kinds.get(FAULT, Broken)  # type: ignore[attr-defined]
    code = main(sys.argv[2:])
    print("resident:", *_once)
    sys.exit(code)
