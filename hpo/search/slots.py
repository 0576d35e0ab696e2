"""What the ledger hands out: slots, and how they stand."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.errors import HpoError
from hpo.holder import is_gone

__all__ = ["Counts", "LostLease", "Slot", "SlotRow", "lives"]


class LostLease(HpoError):  # noqa: N818 (it is an event more than an error)
    """The slot is no longer this holder's: the lease ran out and somebody else took the trial."""


@dataclass(frozen=True)
class Slot:
    """A claimed slot.

    Attributes:
        id: never used again, not even when the slot is removed; trials carry it.
        number: the place in the budget, from 0.
        trial_id: Optuna's id of the trial to take over; None if no trial was bound yet.
        taken_over: whether the holder before fell silent or died; False where it let go, and
            where there was none.
    """

    id: int
    study_id: int
    number: int
    trial_id: int | None
    holder: str
    taken_over: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class SlotRow:
    """A slot as `hpo status` shows it; `expires_in` is in seconds, negative once it ran out."""

    id: int
    number: int
    trial_id: int | None
    holder: str | None
    expires_in: float | None
    done: bool

    @property
    def live(self) -> bool:
        """Whether somebody holds it whose lease runs, and who did not die on this machine."""
        return not self.done and lives(self.holder, self.expires_in)


@dataclass(frozen=True)
class Counts:
    """How a budget stands: `budget == done + held + free`; a lease that ran out is free."""

    budget: int
    done: int
    held: int
    free: int


def lives(holder: str | None, expires_in: float | None) -> bool:
    """Whether a lease runs, and its holder did not die on this machine."""
    return holder is not None and (expires_in or 0.0) > 0.0 and not is_gone(holder)
