"""A member: one network in training, without the tensors that its population holds for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hpo.config import TrialConfig
from hpo.training.history import History
from hpo.training.optimizers import Optimizer, optimizer_of
from hpo.training.snapshot import Snapshot, pack

__all__ = ["Member"]


@dataclass(eq=False)
class Member:
    """One network in training.

    Args:
        key: tells the members of a population apart, and decides how they lie; a trial's number,
            or that of a seed in a retrain.
        config: how it is built and trained.
        seed: of its initialisation and its dropout.
        metric: what its history is judged by.
        stream: which of its population's streams it reads.

    Attributes:
        history: its epochs so far.
        joined: the epoch of its stream after which it began; None before that.
        loss: of the batches of an unfinished epoch, summed, in nats.
        seconds: its share of the time that these took.
        gradient_norms: of these, if its config asks for them: a sum for each linear layer.
        snapshot: what it goes on from, until it has joined a population.
    """

    key: int
    config: TrialConfig
    seed: int
    metric: str = "accuracy"
    stream: int = 0
    history: History = field(init=False)
    optimizer: Optimizer = field(init=False, repr=False)
    joined: int | None = None
    loss: float = field(default=0.0, init=False)
    seconds: float = field(default=0.0, init=False)
    gradient_norms: list[float] = field(default_factory=list, init=False)
    snapshot: Snapshot | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.history = History(self.metric)
        self.optimizer = optimizer_of(self.config)

    @classmethod
    def restored(cls, key: int, snapshot: Snapshot) -> Member:
        """A member that goes on where a snapshot was taken, once it joins a population there.

        Which of the population's streams it reads is found when it joins.
        """
        facts = snapshot.facts
        member = cls(key, snapshot.config, facts["seed"], facts["metric"], joined=facts["joined"])
        member.history = History.from_curve(facts["metric"], facts["history"])
        member.loss, member.seconds = facts["loss"], facts["seconds"]
        member.gradient_norms = list(facts["gradient_norms"])
        member.snapshot = snapshot
        return member

    def at(
        self, *, stream: int, epoch: int, batch: int, model: Mapping[str, Tensor], dropout: Tensor
    ) -> Snapshot:
        """A snapshot of it, with what its population knows of it.

        Args:
            stream: the number of the stream.
            model: parameters, then running statistics; they become the snapshot's own.
            dropout: the state of the generator of its masks.
        """
        optimizer = self.optimizer
        facts = {
            "config": self.config.to_dict(),
            "seed": self.seed,
            "metric": self.metric,
            "stream": stream,
            "joined": self.joined,
            "epoch": epoch,
            "batch": batch,
            "loss": self.loss,
            "seconds": self.seconds,
            "gradient_norms": list(self.gradient_norms),
            "history": self.history.curve(),
            "optimizer": {"steps": optimizer.steps, "scalars": dict(optimizer.scalars)},
        }
        return Snapshot(facts, pack(model, optimizer.state, dropout))

    def resume(self, parameters: Sequence[str], device: torch.device) -> None:
        """Give the optimizer what a snapshot holds of it, if there is one, and let go of that.

        Args:
            parameters: their names, in the order in which the optimizer will see them.
        """
        if self.snapshot is None:
            return
        state = self.snapshot.optimizer_state(parameters, device)
        self.optimizer.resume(**self.snapshot.facts["optimizer"], state=state)
        self.snapshot = None
