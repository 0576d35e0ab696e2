"""A population: members that see the same batches, or batches in step, trained in one pass.

Members come and go at the end of an epoch. A member's result depends on its config, its seed and
the epoch of the stream at which it joined; who lies beside it changes the rounding and no more.

Between two batches a member can be written down as a snapshot, and goes on from it in another
process. On a CPU, with the same members beside it, it comes to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from hpo.data.tensors import Normalization
from hpo.models.tensors import first_tensors, sizes_for
from hpo.training.blocks import Block, cost, lay_out
from hpo.training.diagnostics import mean_norms
from hpo.training.dropout import InputNoise
from hpo.training.history import EpochRecord
from hpo.training.member import Member
from hpo.training.network import Network
from hpo.training.snapshot import NetworkSnapshot, Snapshot
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import Task

__all__ = ["EVALUATION_ROWS", "Member", "Population", "Stopped"]

EVALUATION_ROWS = 2048
"""How many rows are scored at once, of all streams together, but of each `_FEW_ROWS` at least."""

_FEW_ROWS = 256  # smaller products are slow

_INITIALIZATION, _DROPOUT = 1, 2
_NOWHERE = torch.empty(0, dtype=torch.int64)
_Rows = tuple[list[Tensor], list[Tensor]]
"""Features `[rows, inputs]`, and labels `[rows]` or targets, of each stream."""


class Stopped(Exception):  # noqa: N818 - not an error: the epoch was left because it was asked to
    """An epoch was left between two batches; the next `train_epoch` goes on there."""


class Population:
    """Members side by side.

    In a search all of them read one stream, or one for each fold; the seeds of a retrain have
    streams of their own. All have one batch size.

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
        self._places = _NOWHERE  # of the networks in the block, member by member, fold by fold
        self._generators: dict[Network, torch.Generator] = {}  # of dropout

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
                member.reads(self._stream_of(member.snapshot))
            for network in member.networks:
                self._generators[network] = self._dropout_generator(network)
        if members:
            self._arrange([*self.members, *members])

    def keep(self, staying: Collection[Member]) -> None:
        """Let all others leave."""
        if len(staying) < len(self.members):
            self._arrange([member for member in self.members if member in staying])
        # Also of those who could not be laid out: with their networks goes the optimizers' memory.
        networks = [network for member in self.members for network in member.networks]
        self._generators = {network: self._generators[network] for network in networks}

    def state(self, member: Member) -> dict[str, Tensor]:
        """Copies of the tensors of a member without folds, by the names of its module."""
        (network,) = member.networks
        return self._state(network)

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
            networks=[
                NetworkSnapshot.of(
                    network.config,
                    network.loss,
                    network.optimizer,
                    self._state(network),
                    self._generators[network].get_state(),
                    network.gradient_norms,
                )
                for network in member.networks
            ],
        )

    def shares(self) -> list[float]:
        """Each member's part of the work; they add up to one."""
        shape, outputs = self.task.shape, self.task.outputs
        costs = [cost(m.config, shape, outputs) * m.folds for m in self.members]
        return [cost / sum(costs) for cost in costs]

    def train_epoch(self, stopping: Callable[[], bool] = lambda: False) -> Tensor:
        """Train every member on one epoch of its stream, or on what is left of it.

        Args:
            stopping: asked before every batch.

        Returns:
            `[members]`, each one's mean training loss; of its folds, where it has some.

        Raises:
            Stopped: `stopping` said so; called again, it goes on there.
        """
        assert self._block is not None
        block = self._block
        self._between_batches = False
        if self.batch == 0:
            block.begin_epoch()
        for batch, (features, labels, noise) in enumerate(self._batches(block.noisy)):
            if stopping():
                self._pause(max(batch, self.batch))
                raise Stopped
            if batch >= self.batch:  # else done before, and drawn for its noise alone
                block.step(features, labels, noise)
        losses = block.losses / self.batches
        block.losses.zero_()
        self.epoch += 1
        self._pause(0)
        losses = losses.index_select(0, self._places)
        folds = [member.folds for member in self.members]
        if len(losses) == len(folds):
            return losses
        return torch.stack([own.mean() for own in torch.split(losses, folds)])

    def evaluate(self, rows: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        """Score every network on some rows, as they are: no augmentation, no dropout.

        Args:
            rows: int64 `[n]`, by their index in the task's examples; or such rows of each fold.

        Returns:
            Every metric of the task's goal, `[networks]` each, in the order of `members`, fold by
            fold.
        """
        assert self._block is not None
        rows = [rows] if isinstance(rows, Tensor) else rows
        parts = [self._block.score(features, labels) for features, labels in self._scored(rows)]
        sums = torch.stack(parts).sum(0)
        scores = self.task.goal.scores(sums, self._scale(len(rows)))
        return {name: values.index_select(0, self._places) for name, values in scores.items()}

    def run_epoch(
        self,
        validation: Tensor | Sequence[Tensor],
        stopping: Callable[[], bool] = lambda: False,
    ) -> list[EpochRecord]:
        """Train an epoch, score every member, and append to their histories.

        Args:
            validation: int64 `[n]`, the rows that score all; or such rows of each fold.
            stopping: asked before every batch.

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
        evaluated = self.evaluate(validation)
        scores = {name: iter(values.tolist()) for name, values in evaluated.items()}
        records = []
        for member, train_loss in zip(self.members, train_losses, strict=True):
            record = EpochRecord.of(
                *(len(member.history.records) + 1, train_loss),
                {name: list(islice(values, member.folds)) for name, values in scores.items()},
                seconds=member.seconds,
                metric=member.metric,
                gradient_norms=mean_norms([n.gradient_norms for n in member.networks]),
            )
            member.history.add(record)
            member.seconds = 0.0
            for network in member.networks:
                network.gradient_norms = []
            records.append(record)
        self._between_batches = True
        return records

    def _pause(self, batch: int) -> None:
        """Note where between two batches the members are, and their losses so far."""
        assert self._block is not None
        self.batch = batch
        for network, loss in zip(self._block.networks, self._block.losses.tolist(), strict=True):
            network.loss = loss
        for network, norms in self._block.gradient_norms().items():
            network.gradient_norms = norms
        self._between_batches = True

    def _state(self, network: Network) -> dict[str, Tensor]:
        assert self._block is not None
        return self._block.state(network)

    def _scored(self, rows: Sequence[Tensor]) -> Iterator[_Rows]:
        """Rows to score, some at a time: of one stream for all, or of each stream.

        Where folds differ in size, the smaller ones are filled up with rows that do not count.
        """
        task, most = self.task, max(len(own) for own in rows)
        normalizations = self._normalizations(len(rows))
        at_once = max(_FEW_ROWS, EVALUATION_ROWS // len(normalizations))
        read = self._streams_read()
        for start in range(0, most, at_once):
            drawn = []
            for stream, normalization in enumerate(normalizations):
                if len(rows) > 1 and stream not in read:
                    drawn.append((_NOWHERE, _NOWHERE))
                    continue
                own = rows[stream % len(rows)][start : start + at_once]
                missing = min(most - start, at_once) - len(own)
                index = torch.cat([own, own.new_zeros(missing)]) if missing else own
                features, labels = task.examples.batch(index, normalization, task.precision)
                if missing:
                    labels[len(own) :] = task.goal.filler
                drawn.append((features, labels))
            yield [features for features, _ in drawn], [labels for _, labels in drawn]

    def _normalizations(self, parts: int) -> list[Normalization]:
        """Of the rows to score: of one stream for all where there is one part, or of each."""
        found = [stream.normalization or self.task.normalization for stream in self.streams]
        return found[:1] if parts == 1 else found

    def _scale(self, parts: int) -> Tensor | None:
        """What one stands for in the targets of each network, `[networks, targets]`."""
        assert self._block is not None
        scales = [one.target_std for one in self._normalizations(parts)]
        known = [scale for scale in scales if scale is not None]
        if not known:
            return None
        streams = [network.stream if parts > 1 else 0 for network in self._block.networks]
        return torch.stack([known[stream] for stream in streams])

    def _batches(self, noisy: bool) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
        """The epoch's batches: features, labels and, if it is wanted, noise of each stream.

        A stream that nobody reads any more has nothing in them.
        """
        task, read = self.task, self._streams_read()
        generators = [stream.augmentation(self.epoch) for stream in self.streams]
        device = task.examples.device
        sources: list[InputNoise] = []
        if noisy:
            size = (task.examples.features, self.batch_size)
            drawn_from = map(self._noise_generator, self.streams)
            sources = [InputNoise(*size, generator, device) for generator in drawn_from]
        orders = [stream.epoch(self.epoch, device) for stream in self.streams]
        for indices in zip(*orders, strict=False):
            drawn = [
                task.examples.batch(
                    index,
                    stream.normalization or task.normalization,
                    task.precision,
                    task.augmentations,
                    generator,
                )
                if place in read
                else (_NOWHERE, _NOWHERE)
                for place, (stream, index, generator) in enumerate(
                    zip(self.streams, indices, generators, strict=True)
                )
            ]
            features, labels = map(list, zip(*drawn, strict=True))
            yield features, labels, [source.draw() for source in sources]

    def _streams_read(self) -> set[int]:
        """Those that members still have; the seeds of a retrain end one by one."""
        assert self._block is not None
        return {network.stream for network in self._block.networks}

    def _arrange(self, members: Sequence[Member]) -> None:
        """Lay out the wide tensors anew, and carry over the members that stay."""
        staying = [member for member in self.members if member in set(members)]
        old = {network: self._state(network) for member in staying for network in member.networks}
        # Frees the old buffers before the new ones are made.
        if self._block is not None:
            self._block.release()
        self._block, self.members, self._places = None, [], _NOWHERE
        if not members:
            return
        try:
            self._block = lay_out(
                members,
                self._generators,
                self.task,
                self.batch_size,
                self.batches,
                lambda network: old.get(network) or self._first_state(network),
            )
        except BaseException:
            for network in [network for member in members for network in member.networks]:
                network.optimizer.release()
            raise
        self.members = sorted(members, key=lambda member: member.key)
        place_of = {network: place for place, network in enumerate(self._block.networks)}
        places = [place_of[network] for member in self.members for network in member.networks]
        self._places = torch.tensor(places, device=self.task.examples.device)
        for member in members:
            member.snapshot = None

    def _stream_of(self, snapshot: Snapshot) -> int:
        """Which of the streams a snapshot's member reads; the snapshot must be of this place."""
        task, place = self.task, (snapshot.epoch, snapshot.batch)
        sizes = sizes_for(snapshot.config.model, task.shape, task.outputs)
        assert place == (self.epoch, self.batch), f"taken at {place}"
        for network in snapshot.networks:
            assert network.shape == (sizes, task.dtype), f"taken of {network.shape}"
        return [stream.number for stream in self.streams].index(snapshot.stream)

    def _first_state(self, network: Network) -> dict[str, Tensor]:
        if network.snapshot is not None:
            return network.snapshot.model_state()
        seed = derive_seed(network.seed, _INITIALIZATION)
        return first_tensors(network.config.model, self.task.shape, self.task.outputs, seed)

    def _noise_generator(self, stream: Stream) -> torch.Generator:
        return stream.noise(self.epoch, self.task.examples.device)

    def _dropout_generator(self, network: Network) -> torch.Generator:
        generator = torch.Generator(self.task.examples.device)
        generator.manual_seed(derive_seed(network.seed, _DROPOUT))
        if network.snapshot is not None:
            state, steps = network.snapshot.dropout, network.snapshot.steps
            if state.shape == generator.get_state().shape:
                generator.set_state(state)
            else:  # of another kind of device: other masks from here on, as random as these
                generator.manual_seed(derive_seed(network.seed, _DROPOUT, steps))
        return generator
