"""A worker of one study that stops for a moment between writing a result down and telling it.

`at_tell.py STUDY`: prints the first result as JSON, and goes on when a line comes on stdin.
"""

from __future__ import annotations

import json
import os
import sys

import hpo.search.worker
from hpo.cli import main
from hpo.search.spool import Result, Spool

_told: set[int] = set()


class SlowSpool(Spool):
    """Waits after the first result."""

    def put(self, result: Result) -> None:
        super().put(result)
        if not _told:
            _told.add(result.trial_id)
            shown = {"number": result.number, "value": result.value, "holder": result.holder}
            os.write(1, f"{json.dumps(shown)}\n".encode())
            sys.stdin.readline()


if __name__ == "__main__":
    hpo.search.worker.Spool = SlowSpool  # type: ignore[attr-defined]
    sys.exit(main(["worker", "--study", sys.argv[1], "--population", "1"]))
