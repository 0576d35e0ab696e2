"""Cores and memory, on machines and in containers that are not here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo.training.machine import installed_memory, usable_cores, usable_memory

GIB = 2**30


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def machine(root: Path, group: str = "/", **files: str) -> Path:
    """A root folder with a control group; in names, __ stands for a dot."""
    folder = root / "sys/fs/cgroup" / group.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(f"1:name=old:/other\n0::{group}\n")
    (root / "proc/meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {2**24} kB\n")
    return root


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8
    bare = machine(tmp_path)
    assert usable_cores(bare) == 8
    assert usable_memory(bare) == 16 * GIB
    free = machine(tmp_path, cpu__max="max 100000", memory__max="max", memory__current="5")
    assert usable_cores(free) == 8
    assert usable_memory(free) == 16 * GIB


@pytest.mark.parametrize(("quota", "cores"), [("300000 100000", 3), ("50000 100000", 1)])
def test_a_container_may_have_fewer_cores(tmp_path: Path, quota: str, cores: int) -> None:
    assert usable_cores(machine(tmp_path, cpu__max=quota)) == cores


def test_a_container_may_have_less_memory(tmp_path: Path) -> None:
    limits = {"memory__max": str(4 * GIB), "memory__current": str(3 * GIB)}
    assert usable_memory(machine(tmp_path, **limits)) == GIB
    cached = {"memory__stat": f"anon 7\ninactive_file {2 * GIB}"}
    assert usable_memory(machine(tmp_path, **limits, **cached)) == 3 * GIB
    assert installed_memory(tmp_path) <= 4 * GIB


def test_a_limit_of_a_group_above_counts(tmp_path: Path) -> None:
    machine(tmp_path, "/system.slice", cpu__max="200000 100000")
    inner = machine(tmp_path, "/system.slice/hpo.service", cpu__max="max 100000")
    assert usable_cores(inner) == 2


def test_this_machine_has_something() -> None:
    assert usable_cores() >= 1
    assert 0 < usable_memory() <= installed_memory()
