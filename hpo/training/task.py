"""What networks learn from: a dataset's rows on a device, split and normalised for one study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.data import describe, load_train, split
from hpo.data.augment import Augmentation, build_augmentations
from hpo.data.tensors import ImageTensors, Normalization
from hpo.definition import StudyDefinition, largest
from hpo.definition.networks import MlpSection
from hpo.errors import UsageError
from hpo.training.devices import pick_device, pick_precision, use_threads

__all__ = ["Split", "Task", "check", "prepare"]


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
class Split:
    """A task with its rows by their index in the examples, int64 `[n]` each."""

    task: Task
    training: Tensor
    validation: Tensor


def prepare(definition: StudyDefinition, *, with_validation_rows: bool = False) -> Split:
    """Load a study's training data and split it by the study's seed.

    Args:
        with_validation_rows: for the last retrain: the validation rows are trained on as well,
            and the normalisation is theirs too.

    Raises:
        DataError: the dataset cannot be had.
        UsageError: it is unknown, or the split, the device or a batch size cannot be served.

    Torch's threads are set to what work of this size can use.
    """
    device = pick_device(definition.training.device)
    dataset = definition.dataset
    rows = load_train(dataset.name)
    training, validation = (
        torch.from_numpy(part)
        for part in split(len(rows), dataset.validation, definition.search.seed)
    )
    _check_batch_size(definition, len(training))
    if with_validation_rows:
        training = torch.cat([training, validation])
    examples = ImageTensors(rows, device)
    use_threads(_work(definition, examples.features))
    task = Task(
        examples=examples,
        classes=describe(dataset.name).classes,
        normalization=examples.normalization(training),
        augmentations=build_augmentations(
            [(step.name, step.settings.model_dump()) for step in dataset.augment]
        ),
        precision=pick_precision(definition.training.precision, device),
    )
    return Split(task, training, validation)


def check(definition: StudyDefinition) -> None:
    """Refuse what no machine could train, without a look at the data itself.

    Raises:
        DataError: the package that brings the dataset is broken.
        UsageError: the dataset is unknown, or the split or a batch size cannot be served.
    """
    dataset = definition.dataset
    training, _ = split(describe(dataset.name).n_train, dataset.validation, definition.search.seed)
    _check_batch_size(definition, len(training))


def _work(definition: StudyDefinition, features: int) -> int:
    """Multiplications in the first layer of the largest network that the study can draw."""
    return max(
        features * network.widest * largest(run.training.batch_size)
        for run in definition.runs
        for network in run.model.options.values()
        if isinstance(network, MlpSection)
    )


def _check_batch_size(definition: StudyDefinition, rows: int) -> None:
    """Refuse a study that could draw a batch larger than its training rows."""
    batch = max(largest(run.training.batch_size) for run in definition.runs)
    if batch > rows:
        message = (
            f"training.batch_size: a batch of {batch} is larger than the {rows} training rows "
            f"of {definition.dataset.name}; choose a smaller batch"
        )
        raise UsageError(message)
