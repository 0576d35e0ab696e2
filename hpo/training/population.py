"""A population: members that see the same batches, or batches in step, trained in one pass.

Members come and go at the end of an epoch. A member's result depends on its config, its seed and
the epoch of the stream at which it joined; who lies beside it changes the rounding and no more.

Between two batches a member can be written down as a snapshot, and goes on from it in another
process. On a CPU, with the same members beside it, it comes to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from hpo.models.mlp import initial_state
from hpo.training.block import Block, cost
from hpo.training.diagnostics import GRADIENT_NORMS, finite
from hpo.training.dropout import DropoutMasks
from hpo.training.history import EpochRecord
from hpo.training.member import Member
from hpo.training.snapshot import Snapshot
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import Task

__all__ = ["EVALUATION_ROWS", "Member", "Population", "Stopped"]

EVALUATION_ROWS = 2048
"""How many rows are scored at once."""

_INITIALIZATION, _DROPOUT = 1, 2
_Batch = tuple[list[Tensor], list[Tensor]]
"""Features `[batch, inputs]` and labels `[batch]`, of each stream."""


class Stopped(Exception):  # noqa: N818 - not an error: the epoch was left because it was asked to
    """An epoch was left between two batches; the next `train_epoch` goes on there."""


class Population:
    """Members side by side.

    In a search all of them read one stream; folds, and the seeds of a retrain, have a stream
    each, all of one batch size.

    Args:
        task: the data and the device.
        streams: the batches that members see.
        epoch: of the streams, at which it begins; members with a snapshot of there may join.
        batch: how many batches of that epoch these have done.

    Attributes:
        members: who trains now.
        epoch: of the streams; grows by one with every `train_epoch`.
        batch: how many batches of it are done; 0 unless the epoch was stopped.
        batches: how many there are in an epoch, the same of every stream.
    """

    def __init__(self, task: Task, *streams: Stream, epoch: int = 0, batch: int = 0) -> None:
        self.task = task
        self.streams = streams
        self.batch_size = streams[0].batch_size
        self.batches = min(stream.batches for stream in streams)
        assert 0 <= batch < self.batches
        self.epoch = epoch
        self.batch = batch
        self.members: list[Member] = []
        self._between_batches = True
        self._block: Block | None = None
        self._masks: dict[Member, DropoutMasks] = {}

    def __len__(self) -> int:
        return len(self.members)

    def add(self, members: Collection[Member]) -> None:
        """Let new members join; they train from the next epoch on, or from their snapshot's place.

        A member's config must have the streams' batch size, and its snapshot this place.
        """
        for member in members:
            assert member.config.batch_size == self.batch_size
            if member.snapshot is None:
                assert self.batch == 0, "a new member joins at the end of an epoch"
                member.joined = self.epoch
            else:
                member.stream = self._stream_of(member.snapshot)
            self._masks[member] = self._new_masks(member)
        if members:
            self._arrange([*self.members, *members])

    def keep(self, staying: Collection[Member]) -> None:
        """Let all others leave."""
        if len(staying) < len(self.members):
            self._arrange([member for member in self.members if member in staying])
            self._masks = {member: self._masks[member] for member in self.members}

    def state(self, member: Member) -> dict[str, Tensor]:
        """Copies of a member's tensors, by the names of `Mlp.state_dict()`."""
        assert self._block is not None
        return self._block.state(member)

    def snapshot(self, member: Member) -> Snapshot:
        """Copy all that a member is; what is trained afterwards does not change it.

        In the middle of an epoch that is possible after `Stopped`, and not after another
        exception: then nobody knows what of the batch was done.
        """
        assert self._between_batches, "an exception has left a batch half done"
        return member.at(
            stream=self.streams[member.stream].number,
            epoch=self.epoch,
            batch=self.batch,
            model=self.state(member),
            dropout=self._masks[member].generator.get_state(),
        )

    def shares(self) -> list[float]:
        """Each member's part of the work; they add up to one."""
        inputs, outputs = self.task.examples.features, self.task.classes
        costs = [cost(member.config, inputs, outputs) for member in self.members]
        return [cost / sum(costs) for cost in costs]

    def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
        """Train every member on one epoch of its stream, or on what is left of it.

        Args:
            stopping: asked before every batch.

        Returns:
            `[members]`, each one's mean training loss in nats.

        Raises:
            Stopped: `stopping` said so; called again, it goes on there.
        """
        assert self._block is not None
        block = self._block
        self._between_batches = False
        if block.norms is not None and self.batch == 0:
            block.norms.clear()
        for batch, (features, labels) in enumerate(self._batches()):
            if stopping():
                self._pause(max(batch, self.batch))
                raise Stopped
            if batch >= self.batch:  # else done before, and drawn for its augmentation alone
                block.step(features, labels)
        losses = block.losses / self.batches
        block.losses.zero_()
        self.epoch += 1
        self._pause(0)
        return losses

    def evaluate(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Score every member on some rows, as they are: no augmentation, no dropout.

        Args:
            rows: int64 `[n]`, by their index in the task's examples.

        Returns:
            `[members]` each: mean cross-entropy in nats, and accuracy in [0, 1].
        """
        assert self._block is not None
        task = self.task
        losses = torch.zeros(len(self.members), device=task.examples.device, dtype=torch.float64)
        right = torch.zeros_like(losses)
        for features, labels in task.examples.batches(
            rows, task.normalization, task.precision, EVALUATION_ROWS
        ):
            loss, correct = self._block.score(features, labels)
            losses += loss
            right += correct
        return losses / len(rows), right / len(rows)

    def run_epoch(
        self, validation: Tensor, stopping: Callable[[], bool] = lambda: False
    ) -> list[EpochRecord]:
        """Train an epoch, score every member, and append to their histories.

        Returns:
            The epoch of each member, in the order of `members`.

        Raises:
            Stopped: as `train_epoch` does; called again, it goes on there.
        """
        start = time.perf_counter()
        try:
            train_losses = self.train_epoch(stopping).tolist()
        finally:
            seconds = time.perf_counter() - start
            for member, share in zip(self.members, self.shares(), strict=True):
                member.seconds += seconds * share
        self._between_batches = False  # until the epoch is in the histories
        losses, accuracies = (scores.tolist() for scores in self.evaluate(validation))
        records = []
        for place, member in enumerate(self.members):
            record = EpochRecord(
                epoch=len(member.history.records) + 1,
                train_loss=train_losses[place],
                loss=losses[place],
                accuracy=accuracies[place],
                seconds=member.seconds,
                gradient_norms=finite(member.gradient_norms),
            )
            member.history.add(record)
            member.seconds, member.gradient_norms = 0.0, []
            records.append(record)
        self._between_batches = True
        return records

    def _pause(self, batch: int) -> None:
        """Note where between two batches the members are, and their losses so far."""
        assert self._block is not None
        self.batch = batch
        for member, loss in zip(self.members, self._block.losses.tolist(), strict=True):
            member.loss = loss
        if self._block.norms is not None:
            for member, norms in zip(self.members, self._block.norms.sums(), strict=True):
                if GRADIENT_NORMS in member.config.diagnostics:
                    member.gradient_norms = norms
        self._between_batches = True

    def _batches(self) -> Iterator[_Batch]:
        """The epoch's batches: features and labels of each stream."""
        task = self.task
        generators = [stream.augmentation(self.epoch) for stream in self.streams]
        device = task.examples.device
        orders = [stream.epoch(self.epoch, device) for stream in self.streams]
        for indices in zip(*orders, strict=False):
            drawn = [
                task.examples.batch(
                    index, task.normalization, task.precision, task.augmentations, generator
                )
                for index, generator in zip(indices, generators, strict=True)
            ]
            yield [features for features, _ in drawn], [labels for _, labels in drawn]

    def _arrange(self, members: Sequence[Member]) -> None:
        """Lay out the wide tensors anew, and carry over the members that stay."""
        old = {member: self.state(member) for member in self.members if member in set(members)}
        # Frees the old buffers before the new ones are made.
        if self._block is not None:
            self._block.release()
        self._block, self.members = None, []
        if not members:
            return
        self._block = Block(
            members,
            self._masks,
            self.task,
            self.batch_size,
            self.batches,
            lambda member: old.get(member) or self._first_state(member),
        )
        self.members = self._block.members

    def _stream_of(self, snapshot: Snapshot) -> int:
        """Which of the streams a snapshot's member reads; the snapshot must be of this place."""
        task, place = self.task, (snapshot.epoch, snapshot.batch)
        network = (task.examples.features, task.classes, task.dtype)
        assert place == (self.epoch, self.batch), f"taken at {place}"
        assert snapshot.network == network, f"taken of {snapshot.network}"
        return [stream.number for stream in self.streams].index(snapshot.stream)

    def _first_state(self, member: Member) -> dict[str, Tensor]:
        if member.snapshot is not None:
            return member.snapshot.model_state()
        generator = torch.Generator().manual_seed(derive_seed(member.seed, _INITIALIZATION))
        features = self.task.examples.features
        return initial_state(member.config.model, features, self.task.classes, generator)

    def _new_masks(self, member: Member) -> DropoutMasks:
        generator = torch.Generator(self.task.examples.device)
        generator.manual_seed(derive_seed(member.seed, _DROPOUT))
        if member.snapshot is not None:
            state, steps = member.snapshot.dropout, member.snapshot.steps
            if state.shape == generator.get_state().shape:
                generator.set_state(state)
            else:  # of another kind of device: other masks from here on, as random as these
                generator.manual_seed(derive_seed(member.seed, _DROPOUT, steps))
        return DropoutMasks(member.config.model.dropout, generator)
