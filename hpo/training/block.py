"""Members that lie in one set of wide tensors and take every step together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hpo.config import TrialConfig
from hpo.models.layout import arrange
from hpo.models.wide_mlp import WideMlp
from hpo.training.diagnostics import GRADIENT_NORMS, GradientNorms
from hpo.training.dropout import DropoutMasks, LayerMasks
from hpo.training.losses import cross_entropy, score
from hpo.training.member import Member
from hpo.training.schedules import rate_factor
from hpo.training.task import Task

__all__ = ["Block", "cost"]

_UNIT = 150  # parameters whose products cost what else is done for one hidden unit (measured)


def cost(config: TrialConfig, inputs: int, outputs: int) -> float:
    """What a member's step costs, in products of a row with one parameter."""
    sizes = [inputs, *config.model.widths, outputs]
    products = sum(below * width for below, width in pairwise(sizes))
    return float(products + _UNIT * sum(config.model.widths))


class Block:
    """Some members of a population, laid out for training.

    Args:
        members: who lies here, in any order.
        masks: of each, what draws its dropout.
        batch: rows of a training batch.
        batches: how many there are in an epoch; learning rates follow from it.
        state_of: a member's tensors, by the names of `Mlp.state_dict()`.

    Attributes:
        members: in the order in which they lie.
        losses: `[members]`, those of the batches of this epoch so far, summed, in nats.
        norms: the gradient norms of the members; None if nobody asks for them.
    """

    def __init__(
        self,
        members: Sequence[Member],
        masks: Mapping[Member, DropoutMasks],
        task: Task,
        batch: int,
        batches: int,
        state_of: Callable[[Member], Mapping[str, Tensor]],
    ) -> None:
        # By key: so a layout, and with it the rounding, follows from who is there, and not from
        # who came first.
        members = sorted(members, key=lambda member: member.key)
        configs = [member.config.model for member in members]
        order = arrange(configs, [member.stream for member in members])
        self.members = [members[place] for place in order]
        self.streams = [member.stream for member in self.members]
        self._task = task
        self._batches = batches
        self._model = WideMlp(
            [member.config.model for member in self.members],
            task.examples.features,
            task.classes,
            batch=batch,
            device=task.examples.device,
            streams=self.streams,
            dtype=task.dtype,
            operand_dtype=task.precision,
        )
        for place, member in enumerate(self.members):
            parameters = self._model.member_parameters(place)
            self._model.load(place, state_of(member))
            member.resume(list(parameters), task.examples.device)
            gradients = self._model.member_gradients(place)
            member.optimizer.bind(list(parameters.values()), list(gradients.values()))
        self._model.parameters_changed()
        self._masks = {
            depth: LayerMasks(
                [(own, masks[self.members[place]]) for place, own in of.items()], mask
            )
            for depth, (mask, of) in self._model.masks.items()
        }
        self._smoothing = self._tensor([m.config.label_smoothing for m in self.members])
        self.losses = self._tensor([member.loss for member in self.members])
        self.norms = self._gradient_norms()

    def state(self, member: Member) -> dict[str, Tensor]:
        """Copies of a member's tensors, by the names of `Mlp.state_dict()`."""
        return self._model.state(self.members.index(member))

    def release(self) -> None:
        """Let the optimizers go of the tensors, whose memory would live on with them."""
        for member in self.members:
            member.optimizer.release()

    def step(self, features: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Train every member on one batch.

        Args:
            features: of each stream, `[batch, inputs]`.
            labels: of each stream, `[batch]`.
        """
        if len(labels) == 1:
            own = labels[0][None]
        else:
            own = torch.stack([labels[stream] for stream in self.streams])
        logits = self._model.forward(features, self._fill_mask)
        losses, gradient = cross_entropy(logits, own, self._smoothing)
        self.losses += losses
        self._model.backward(gradient, None if self.norms is None else self.norms.observe)
        for member in self.members:
            member.optimizer.step(self._rate(member))
        self._model.parameters_changed()

    def score(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `losses.score`, for some rows, as they are."""
        return score(self._model.predict(features), labels)

    def _gradient_norms(self) -> GradientNorms | None:
        if not any(GRADIENT_NORMS in member.config.diagnostics for member in self.members):
            return None
        depths = [len(member.config.model.widths) for member in self.members]
        return GradientNorms(self._model, depths, [m.gradient_norms for m in self.members])

    def _fill_mask(self, depth: int) -> None:
        self._masks[depth].fill()

    def _rate(self, member: Member) -> float:
        config = member.config
        factor = rate_factor(config.schedule, member.optimizer.steps, self._batches, config.epochs)
        return config.optimizer.lr * factor

    def _tensor(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self._task.examples.device, dtype=self._task.dtype)
