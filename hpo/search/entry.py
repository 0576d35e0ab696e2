"""A trial in a worker's hands, from the claim of its slot to the moment it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from torch import Tensor

from hpo.search.ledger import Slot
from hpo.search.troubles import Troubles
from hpo.training.population import Member

__all__ = ["Entry", "Place"]


@dataclass(frozen=True)
class Place:
    """Where in which stream a trial goes on: before that batch of that epoch."""

    stream: int
    epoch: int
    batch: int = 0


@dataclass(eq=False)
class Entry:
    """A trial that this worker holds.

    Attributes:
        member: the network that trains for it; another one after each new start.
        origin: what `records.write_origin` notes.
        reported: the epochs that the database has.
        judged: the pruner let it pass up to this epoch, here or in other hands.
        place: where it is to begin; None if it may join any stream.
        company: False means that it trains in a population of its own.
        troubles: what it has been through; a suspect trains while nothing else does.
        started: when it was drawn, here or in other hands, by this process's `time.monotonic`.
        lost: another worker has it, or has told it.
        network: gives the tensors of the member's network, by the names of its module, once it
            has joined a population or was put by.
    """

    slot: Slot
    trial: optuna.Trial
    member: Member
    origin: dict[str, Any]
    started: float
    reported: set[int] = field(default_factory=set)
    judged: int = 0
    place: Place | None = None
    company: bool = True
    troubles: Troubles = field(default_factory=Troubles)
    lost: bool = False
    network: Callable[[], Mapping[str, Tensor]] = dict

    @property
    def trial_id(self) -> int:
        """Optuna's id of the trial, which is the same for every worker."""
        return self.trial._trial_id

    @property
    def begun(self) -> bool:
        """Whether the trial has trained before."""
        return self.place is not None or bool(self.reported)
