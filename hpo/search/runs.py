"""What a trial of a study with variations is, beside its config.

Which variation it is follows from its slot, so each is trained once over any number of workers and
restarts. All of them begin with the same seed, and those of one batch size read the same batches
from the first epoch on: what differs is what the variation says, and nothing hangs on who trains
it, or beside whom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import optuna

from hpo import space
from hpo.definition import StudyDefinition, describe_variation
from hpo.search.entry import Place

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """Where a trial begins.

    Attributes:
        seeded_by: the number from which its training's seed is derived.
        place: the stream and epoch at which it begins; None leaves that open.
        origin: what is noted with it.
    """

    seeded_by: int
    place: Place | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: StudyDefinition, trial: optuna.Trial) -> Self:
        """That of a trial which has been drawn."""
        if not definition.variations:
            return cls(trial.number)
        number = trial.params[space.VARIATION]
        sizes = [run.training.batch_size for run in definition.runs]
        words = describe_variation(definition.variations[number])
        return cls(0, Place(sizes.index(sizes[number]), 0), {"variation": words})
