"""A member: one config in training, without the tensors that its population holds for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hpo.config import TrialConfig
from hpo.training.history import History
from hpo.training.network import Network
from hpo.training.snapshot import NetworkSnapshot, Snapshot
from hpo.training.streams import derive_seed

__all__ = ["Member"]

_FOLD = 3  # tells the seeds of a member's folds from all else that is derived from its seed


@dataclass(eq=False)
class Member:
    """One config in training: one network, or one for each fold, in step with each other.

    Args:
        key: tells the members of a population apart, and decides how they lie; a trial's number,
            or that of a seed in a retrain.
        config: how it is built and trained.
        seed: of its initialisation and its dropout.
        metric: what its history is judged by.
        stream: which of its population's streams it reads; the first of them, where it has folds.
        folds: how many networks it has, on as many streams in a row.

    Attributes:
        networks: fold by fold.
        history: its epochs so far; with folds, the means over them.
        joined: the epoch of its stream after which it began; None before that.
        seconds: its share of the time that an unfinished epoch took.
        snapshot: what it goes on from, until it has joined a population.
    """

    key: int
    config: TrialConfig
    seed: int
    metric: str = "accuracy"
    stream: int = 0
    folds: int = 1
    networks: tuple[Network, ...] = field(init=False, repr=False)
    history: History = field(init=False)
    joined: int | None = None
    seconds: float = field(default=0.0, init=False)
    snapshot: Snapshot | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.history = History(self.metric)
        self.networks = tuple(
            Network(self.config, self._seed_of(fold), self.stream + fold)
            for fold in range(self.folds)
        )

    @classmethod
    def restored(cls, key: int, snapshot: Snapshot) -> Member:
        """A member that goes on where a snapshot was taken, once it joins a population there.

        Which of the population's streams it reads is found when it joins.
        """
        facts = snapshot.facts
        member = cls(
            *(key, snapshot.config, facts["seed"], facts["metric"]),
            folds=len(facts["networks"]),
            joined=facts["joined"],
        )
        member.history = History.from_curve(facts["metric"], facts["history"])
        member.seconds = facts["seconds"]
        member.snapshot = snapshot
        for network, own in zip(member.networks, snapshot.networks, strict=True):
            network.loss, network.snapshot = own.facts["loss"], own
            network.gradient_norms = list(own.facts["gradient_norms"])
        return member

    @property
    def trouble(self) -> str:
        """Why its loss is not finite any more, where one of its networks can tell."""
        return next((network.trouble for network in self.networks if network.trouble), "")

    def reads(self, stream: int) -> None:
        """Say which of its population's streams it reads; the first of them, with folds."""
        self.stream = stream
        for fold, network in enumerate(self.networks):
            network.stream = stream + fold

    def at(
        self, *, stream: int, epoch: int, batch: int, networks: Sequence[NetworkSnapshot]
    ) -> Snapshot:
        """A snapshot of it, with what its population knows of it.

        Args:
            stream: the number of the (first) stream.
            networks: of each of its networks.
        """
        facts = {
            "config": self.config.to_dict(),
            "seed": self.seed,
            "metric": self.metric,
            "stream": stream,
            "joined": self.joined,
            "epoch": epoch,
            "batch": batch,
            "seconds": self.seconds,
            "history": self.history.curve(),
        }
        return Snapshot.of(facts, networks)

    def _seed_of(self, fold: int) -> int:
        return self.seed if self.folds == 1 else derive_seed(self.seed, _FOLD, fold)
