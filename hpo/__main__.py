"""`python -m hpo` is `hpo`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    # Before anything that takes time: a signal may come at any moment, and Python's own answer
    # is a traceback. The handler is hpo.cli.signals' as soon as that is there.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    from hpo.cli import main as run
    from hpo.cli.signals import leave_at_signals

    leave_at_signals()
    return run()


if __name__ == "__main__":
    sys.exit(main())
