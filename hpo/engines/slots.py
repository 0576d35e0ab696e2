"""The places on this machine in which workers run, and what each worker finds there."""

from __future__ import annotations

import os

__all__ = ["NAME", "PARENT", "parent"]

NAME = "HPO_WORKER_NAME"
"""The environment variable that tells a worker what it is called."""

PARENT = "HPO_WORKER_PARENT"
"""The environment variable that tells a worker the process that looks after it."""


def parent() -> int | None:
    """The process that started this one as a worker and looks after it; None if none does."""
    given = os.environ.get(PARENT, "")
    return int(given) if given.isdecimal() else None
