"""What an engine is: a place that runs workers and says when they end.

An engine knows nothing of studies. What it starts are processes that serve a study by
themselves (`hpo worker`), over the database that all of them share; so it has no work to hand
out and no result to bring back, and whatever it loses is taken over by the other workers.
`supervisor.py` has the rules for those that die.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hpo.engines.slots import Slot

__all__ = ["Ended", "Engine"]


@dataclass(frozen=True)
class Ended:
    """A worker that has ended.

    Attributes:
        code: its exit code; where a signal ended it, the signal's number below zero.
        words: the last line that it said; empty if it said nothing.
    """

    slot: Slot
    code: int
    words: str

    @property
    def how(self) -> str:
        """Such as `by SIGKILL` or `with exit code 1`."""
        if self.code >= 0:
            return f"with exit code {self.code}"
        try:
            return f"by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"by signal {-self.code}"


class Engine(Protocol):
    """Runs workers, at most one in a slot."""

    def start(self, slots: Sequence[Slot]) -> None:
        """Start a worker in each slot, none of which has one, and return at once."""

    def poll(self) -> list[Ended]:
        """The workers that have ended since the last call; never waits."""

    def running(self) -> int:
        """How many have not ended, as far as `poll` has said."""

    def stop(self) -> None:
        """Ask every worker to hand back what it holds and to leave; does not wait for it."""

    def kill(self) -> None:
        """End every worker at once; it may be called from a signal handler."""
