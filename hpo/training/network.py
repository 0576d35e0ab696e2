"""What a member trains: one network, or one for each fold, each on a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from hpo.config import TrialConfig
from hpo.training.optimizers import Optimizer, optimizer_of
from hpo.training.snapshot import NetworkSnapshot

__all__ = ["Network"]


@dataclass(eq=False)
class Network:
    """One network, without the tensors that its population holds for it.

    Args:
        config: how it is built and trained; its member's.
        seed: of its initialisation and its dropout.
        stream: which of its population's streams it reads.

    Attributes:
        loss: of the batches of an unfinished epoch, summed.
        gradient_norms: of these, if its config asks for them: a sum for each linear layer.
        trouble: why its loss is not finite any more, where that can be told.
        snapshot: what it goes on from, until it has joined a population.
    """

    config: TrialConfig
    seed: int
    stream: int
    optimizer: Optimizer = field(init=False, repr=False)
    loss: float = field(default=0.0, init=False)
    gradient_norms: list[float] = field(default_factory=list, init=False)
    trouble: str = field(default="", init=False)
    snapshot: NetworkSnapshot | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.optimizer = optimizer_of(self.config)

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
