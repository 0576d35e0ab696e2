"""What networks learn from: a dataset's rows on a device, split and normalised for one study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.data import describe, load_train, split
from hpo.data import folds as cut_into_folds
from hpo.data.augment import Augmentation, build_augmentations
from hpo.data.suitability import unsuitable
from hpo.data.tensors import ImageTensors, Normalization
from hpo.definition import StudyDefinition, largest
from hpo.definition.networks import MlpSection
from hpo.definition.problems import render
from hpo.errors import DefinitionError, UsageError
from hpo.training.devices import pick_device, pick_precision, use_threads
from hpo.training.streams import Stream

__all__ = ["Fold", "Split", "Task", "check", "prepare"]

_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What members learn from, and where.

    Attributes:
        examples: the training part of a dataset, on the device.
        classes: how many outputs a network has.
        normalization: from the rows that are trained on.
        augmentations: of training batches only.
        precision: the dtype of the operands of matrix products.
        dtype: of everything else; float64 serves the tests.
    """

    examples: ImageTensors
    classes: int
    normalization: Normalization
    augmentations: Sequence[Augmentation] = ()
    precision: torch.dtype = torch.float32
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to score by, by their index in the examples, int64 `[n]` each.

    Attributes:
        normalization: from the rows that are trained on.
    """

    training: Tensor
    validation: Tensor
    normalization: Normalization


@dataclass(frozen=True)
class Split:
    """A task and how its rows are divided: once, or into folds.

    Attributes:
        folds: one, unless the study has `dataset.folds`.
    """

    task: Task
    folds: tuple[Fold, ...]

    @property
    def training(self) -> Tensor:
        """The rows that are trained on; of the first fold."""
        return self.folds[0].training

    @property
    def validation(self) -> tuple[Tensor, ...]:
        """The rows that score an epoch, of each fold."""
        return tuple(fold.validation for fold in self.folds)

    def streams(self, batch_size: int, seed: int, number: int) -> list[Stream]:
        """The streams that a member reads, one for each fold.

        Args:
            seed: the study's.
            number: tells these from all other streams of the study.
        """
        count = len(self.folds)
        return [
            Stream(one.training, batch_size, seed, number * count + fold, one.normalization)
            for fold, one in enumerate(self.folds)
        ]


def prepare(definition: StudyDefinition, *, with_validation_rows: bool = False) -> Split:
    """Load a study's training data and split it by the study's seed.

    Args:
        with_validation_rows: for the last retrain: the validation rows are trained on as well,
            and the normalisation is theirs too.

    Raises:
        DataError: the dataset cannot be had.
        UsageError: it is unknown or has no images to augment, or the split, the device or a batch
            size cannot be served.

    Torch's threads are set to what work of this size can use.
    """
    _check_augmentations(definition)
    device = pick_device(definition.training.device)
    dataset = definition.dataset
    rows = load_train(dataset.name)
    parts = [
        (torch.from_numpy(training), torch.from_numpy(validation))
        for training, validation in _divide(definition, len(rows))
    ]
    _check_batch_size(definition, min(len(training) for training, _ in parts))
    if with_validation_rows:
        parts = [(torch.cat(parts[0]), parts[0][1])]
    examples = ImageTensors(rows, device)
    use_threads(_work(definition, examples.features))
    folds = tuple(Fold(*part, examples.normalization(part[0])) for part in parts)
    task = Task(
        examples=examples,
        classes=describe(dataset.name).classes,
        normalization=folds[0].normalization,
        augmentations=build_augmentations(
            [(step.name, step.settings.model_dump()) for step in dataset.augment]
        ),
        precision=pick_precision(definition.training.precision, device),
    )
    return Split(task, folds)


def check(definition: StudyDefinition) -> None:
    """Refuse what no machine could train, without a look at the data itself.

    Raises:
        DataError: the package that brings the dataset is broken.
        UsageError: the dataset is unknown or has no images to augment, or the split or a batch
            size cannot be served.
    """
    _check_augmentations(definition)
    parts = _divide(definition, describe(definition.dataset.name).n_train)
    _check_batch_size(definition, min(len(training) for training, _ in parts))


def _divide(definition: StudyDefinition, rows: int) -> list[tuple[_Rows, _Rows]]:
    """The training and validation rows, once or for each fold."""
    dataset, seed = definition.dataset, definition.search.seed
    if dataset.folds is not None:
        return cut_into_folds(rows, dataset.folds, seed)
    assert dataset.validation is not None, "a definition has a share or folds"
    return [split(rows, dataset.validation, seed)]


def _work(definition: StudyDefinition, features: int) -> int:
    """Multiplications in the first layer of the largest network that the study can draw."""
    return max(
        features * network.widest * largest(run.training.batch_size)
        for run in definition.runs
        for network in run.model.options.values()
        if isinstance(network, MlpSection)
    )


def _check_augmentations(definition: StudyDefinition) -> None:
    """Refuse them where there are no images, for a study that comes from no file."""
    if problems := unsuitable(definition):
        raise DefinitionError(render(problems, {}, f"study {definition.name}"))


def _check_batch_size(definition: StudyDefinition, rows: int) -> None:
    """Refuse a study that could draw a batch larger than its training rows."""
    batch = max(largest(run.training.batch_size) for run in definition.runs)
    if batch > rows:
        message = (
            f"training.batch_size: a batch of {batch} is larger than the {rows} training rows "
            f"of {definition.dataset.name}; choose a smaller batch"
        )
        raise UsageError(message)
