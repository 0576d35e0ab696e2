"""What a trial has been through, kept with it, and when that is enough.

- An exception is tried again so often as the study says (`search.retries`), then the trial fails.
  In company nobody knows whose it was, so all of them go on alone first, and nothing is counted.
- Out of memory in company is tried again with half as many members; alone it is tried once more.
- A trial whose worker died is taken over. Where workers die one after another while a trial does
  not get on, it may be the trial that kills them: it goes on alone, and fails in the end.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial

from hpo.training.mishaps import Mishap

__all__ = ["TROUBLES", "Troubles"]

TROUBLES = "hpo:troubles"
"""The trial's user attribute that holds them."""

_SUSPECT_DEATHS = 3
_MOST_DEATHS = 5


@dataclass(frozen=True)
class Troubles:
    """The mishaps of one trial.

    Attributes:
        errors: exceptions while it trained alone.
        memory: how often memory was short, in company or alone.
        deaths: workers in a row that died or fell silent while it stood at `epoch`.
        verdict: why the trial fails; None as long as it is worth another try.
    """

    errors: int = 0
    memory: int = 0
    deaths: int = 0
    epoch: int = 0
    verdict: str | None = None

    @classmethod
    def of(cls, trial: FrozenTrial) -> Troubles:
        """Those of a trial so far."""
        noted = trial.user_attrs.get(TROUBLES)
        return cls(**noted) if noted else cls()

    @property
    def suspect(self) -> bool:
        """Whether it is better to keep others away from this trial's process."""
        return self.deaths >= _SUSPECT_DEATHS

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def after(self, mishap: Mishap, *, alone: bool, retries: int) -> Troubles:
        """With one more mishap.

        Args:
            alone: whether the trial had a population of its own.
            retries: how often an exception is tried again.
        """
        if mishap.memory:
            over = alone and self.memory > 0
            verdict = f"{mishap.reason}, also on its own" if over else None
            return replace(self, memory=self.memory + 1, verdict=verdict)
        if not alone:
            return self
        errors = self.errors + 1
        tried = "" if errors == 1 else f" (tried {errors} times)"
        verdict = f"{mishap.reason}{tried}" if errors > retries else None
        return replace(self, errors=errors, verdict=verdict)

    def after_death(self, epoch: int) -> Troubles:
        """With one more worker that died.

        Args:
            epoch: the last one that the trial has reported.
        """
        deaths = self.deaths + 1 if epoch == self.epoch else 1
        verdict = None
        if deaths > _MOST_DEATHS:
            verdict = (
                f"{deaths} workers in a row died while it trained epoch {epoch + 1}; "
                "perhaps the machine's memory is too small for it"
            )
        return replace(self, deaths=deaths, epoch=epoch, verdict=verdict)
