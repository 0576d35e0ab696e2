"""Processes of one thread each, so many at a time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

__all__ = ["ROOT", "environment", "output_of", "side_by_side"]

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

_T = TypeVar("_T")


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, for a child that has one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **extra}


def output_of(command: Sequence[str], *, folder: str | None = None, **extra: str) -> str:
    """Run a command to its end with one thread; its stderr is shown as it comes.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    child = subprocess.run(
        command,
        cwd=folder,
        env=environment(**extra),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return child.stdout


def side_by_side(work: Sequence[Callable[[], _T]], at_once: int) -> list[_T]:
    """Do all of the work, so many pieces at a time, each in a thread that waits for a process."""
    with ThreadPoolExecutor(at_once) as pool:
        return [done.result() for done in [pool.submit(piece) for piece in work]]
