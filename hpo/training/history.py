"""What became of a member epoch by epoch, which epoch was its best, and when it has stalled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from hpo.definition.metrics import DIRECTIONS

__all__ = ["EpochRecord", "History"]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of one member.

    Attributes:
        epoch: 1 for the member's first.
        train_loss: mean over the epoch's batches, with the member's label smoothing.
        loss: mean over the validation rows: cross-entropy in nats, or the squared error of
            standardised targets.
        scores: the goal's other metrics on the validation rows, by name.
        seconds: the member's share of the time that its population trained.
        gradient_norms: of each linear layer, as `diagnostics.GradientNorms` has them; empty where
            the config does not ask for them.
        folds: with folds, of which the numbers above are the means: the study's metric of each.
    """

    epoch: int
    train_loss: float
    loss: float
    scores: Mapping[str, float]
    seconds: float
    folds: tuple[float, ...] = ()
    gradient_norms: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        epoch: int,
        train_loss: float,
        scores: Mapping[str, Sequence[float]],
        *,
        seconds: float,
        metric: str,
        gradient_norms: tuple[float, ...] = (),
    ) -> EpochRecord:
        """An epoch out of every metric of each fold; one fold alone is none."""
        means = {name: fmean(values) for name, values in scores.items()}
        loss, folds = means.pop("loss"), scores[metric]
        own = tuple(folds) if len(folds) > 1 else ()
        return cls(epoch, train_loss, loss, means, seconds, own, gradient_norms)

    @property
    def diverged(self) -> bool:
        """Whether a loss or a score is no longer a finite number."""
        return not all(map(math.isfinite, (self.train_loss, self.loss, *self.scores.values())))

    def value(self, metric: str) -> float:
        """One of the metrics."""
        return self.loss if metric == "loss" else self.scores[metric]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data, the scores beside the rest; `from_dict` gives it back.

        Lists that are empty are left out.
        """
        data = {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "loss": self.loss,
            **self.scores,
            "seconds": self.seconds,
        }
        return data | {name: list(own) for name in _LISTS if (own := getattr(self, name))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpochRecord:
        """Read what `to_dict` wrote."""
        rest = dict(data)
        own: dict[str, Any] = {name: tuple(rest.pop(name, ())) for name in _LISTS}
        own |= {name: rest.pop(name) for name in ("epoch", "train_loss", "loss", "seconds")}
        return cls(**own, scores=rest)


_LISTS = ("folds", "gradient_norms")


@dataclass
class History:
    """A member's epochs, first to last, judged by one metric.

    Args:
        metric: one of those of the members' goal.
    """

    metric: str
    records: list[EpochRecord] = field(default_factory=list)
    best: EpochRecord | None = None
    _others: dict[str, History] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_curve(cls, metric: str, curve: Iterable[Mapping[str, Any]]) -> History:
        """Read what `curve` wrote."""
        history = cls(metric)
        for record in curve:
            history.add(EpochRecord.from_dict(record))
        return history

    def add(self, record: EpochRecord) -> None:
        """Append an epoch; a diverged one is never the best."""
        self.records.append(record)
        for other in self._others.values():
            other.add(record)
        if not record.diverged and (self.best is None or self._beats(record, self.best)):
            self.best = record

    def value(self, record: EpochRecord) -> float:
        """The metric in that epoch."""
        return record.value(self.metric)

    def judged_by(self, metric: str | None) -> History:
        """The same epochs, judged by another metric; this history if there is no other."""
        if metric in (None, self.metric):
            return self
        if metric not in self._others:
            other = self._others[metric] = History(metric)
            for record in self.records:
                other.add(record)
        return self._others[metric]

    def stalled(self, patience: int | None, metric: str | None = None) -> bool:
        """Whether the last `patience` epochs brought nothing better (Prechelt 1998).

        Args:
            metric: what had to get better; the history's own if left out.
        """
        if patience is None:
            return False
        best = self.judged_by(metric).best
        return best is not None and len(self.records) - best.epoch >= patience

    @property
    def train_seconds(self) -> float:
        """Time spent on training alone, without validation, reports and waiting."""
        return sum(record.seconds for record in self.records)

    def curve(self) -> list[dict[str, Any]]:
        """The learning curve as JSON-ready data; `from_curve` gives the history back."""
        return [record.to_dict() for record in self.records]

    def _beats(self, record: EpochRecord, other: EpochRecord) -> bool:
        difference = self.value(record) - self.value(other)
        return difference > 0 if DIRECTIONS[self.metric] == "maximize" else difference < 0
