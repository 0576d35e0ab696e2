from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hpo.holder as holders
from hpo.holder import holder_name, is_gone


def test_this_process_lives_and_names_are_its_own() -> None:
    names = {holder_name() for _ in range(20)}
    assert len(names) == 20
    assert not any(map(is_gone, names))
    assert all(len(name) < 255 and name.split(":")[1] == str(os.getpid()) for name in names)


def test_a_holder_is_gone_only_if_that_is_certain() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from hpo.holder import *; print(holder_name())"],
        capture_output=True,
        text=True,
        check=True,
    )
    ended = done.stdout.strip()
    assert is_gone(ended)
    host, pid, token = holder_name().rsplit(":", 2)
    start, boot, space, salt = token.split("-")
    # The same pid, but another start: the pid was given to a new process.
    assert is_gone(f"{host}:{pid}:{int(start) - 1}-{boot}-{space}-{salt}")
    # Another kernel or another container: this process cannot know.
    pid = ended.rsplit(":", 2)[1]
    assert not is_gone(f"{host}:{pid}:{start}-{'0' * 32}-{space}-{salt}")
    assert not is_gone(f"{host}:{pid}:{start}-{boot}-{int(space) + 1}-{salt}")
    assert not is_gone(f"{host}:{pid}:0-0-0-{salt}")
    assert not is_gone("whatever")


def test_a_zombie_is_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from hpo.holder import *; print(holder_name())"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    holder = process.stdout.readline().strip()
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + 60
    while ") Z " not in stat.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert is_gone(holder)
    process.stdout.close()
    process.wait()


def test_where_there_is_no_proc_nobody_is_called_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    holders._kernel.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", missing)
        name = holder_name()
        assert not is_gone(name)
        assert not is_gone(name.replace(str(os.getpid()), "999999"))
    holders._kernel.cache_clear()
