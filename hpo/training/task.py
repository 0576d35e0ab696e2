"""What networks learn from: a dataset's rows on a device, split and normalised for one study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.config import MlpConfig, NumpyCnnConfig
from hpo.data import describe, load_train
from hpo.data.augment import Augmentation, build_augmentations
from hpo.data.rows import kind_of
from hpo.data.splits import divide
from hpo.data.tensors import Normalization
from hpo.data.vectors import Examples, on_device
from hpo.definition import StudyDefinition, largest
from hpo.definition.families import ConvolutionalSection
from hpo.definition.networks import MlpSection
from hpo.definition.problems import render
from hpo.errors import DefinitionError
from hpo.models.stages import largest_stages
from hpo.models.suitability import unsuitable
from hpo.training.devices import (
    pick_device,
    pick_precision,
    use_threads,
    use_threads_in_numpy,
    use_true_float32,
)
from hpo.training.goals import CLASSES, TARGETS, Goal
from hpo.training.streams import Stream

__all__ = ["Fold", "Split", "Task", "check", "prepare"]


@dataclass(frozen=True)
class Task:
    """What members learn from, and where.

    Attributes:
        examples: the training part of a dataset, on the device.
        outputs: how many a network has.
        normalization: from the rows that are trained on.
        augmentations: of training batches only.
        precision: the dtype of the operands of matrix products.
        dtype: of everything else; float64 serves the tests.
        goal: what networks are trained for.
    """

    examples: Examples
    outputs: int
    normalization: Normalization
    augmentations: Sequence[Augmentation] = ()
    precision: torch.dtype = torch.float32
    dtype: torch.dtype = torch.float32
    goal: Goal = CLASSES

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row: `(channels, height, width)` where it has a class, or `(features,)`."""
        return self.examples.shape


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
        UsageError: it is unknown or has no images for what is asked of it, or the split, the
            device or a batch size cannot be served.

    Torch's threads, and NumPy's where it trains, are set to what work of this size can use, and
    numbers below 1.2e-38 count as zero in this process.
    """
    # The gradients of a network that is sure of itself end down there, where products take three
    # times as long. Before torch begins its threads: they take it over.
    torch.set_flush_denormal(True)
    use_true_float32()
    _check_dataset(definition)
    device = _device(definition)
    dataset = definition.dataset
    about = describe(dataset.name)
    rows = load_train(dataset.name, kind_of(about))
    if len(rows) != about.n_train:
        # This has just unpacked somebody's own archive; until then nobody could count its rows.
        _check_dataset(definition)
    parts = [
        (torch.from_numpy(training), torch.from_numpy(validation))
        for training, validation in divide(dataset, len(rows), definition.search.seed)
    ]
    if with_validation_rows:
        parts = [(torch.cat(parts[0]), parts[0][1])]
    examples = on_device(rows, device)
    _use_threads(definition, examples.shape)
    folds = tuple(Fold(*part, examples.normalization(part[0])) for part in parts)
    task = Task(
        examples=examples,
        outputs=about.outputs,
        normalization=folds[0].normalization,
        augmentations=build_augmentations(
            [(step.name, step.settings.model_dump()) for step in dataset.augment]
        ),
        precision=_precision(definition, device),
        goal=TARGETS if about.targets else CLASSES,
    )
    return Split(task, folds)


def check(definition: StudyDefinition) -> None:
    """Refuse what no machine could train, without a look at the data itself.

    Raises:
        DataError: the package that brings the dataset is broken.
        UsageError: the dataset is unknown or has no images for what is asked of it, or the split
            or a batch size cannot be served.
    """
    describe(definition.dataset.name)
    _check_dataset(definition)


def _device(definition: StudyDefinition) -> torch.device:
    """Where the rows lie; networks in NumPy train on the CPU, whatever device the study names."""
    if _families(definition) == {NumpyCnnConfig.family}:
        return torch.device("cpu")
    return pick_device(definition.training.device)


def _precision(definition: StudyDefinition, device: torch.device) -> torch.dtype:
    """That of the batches too, which networks in NumPy read in float32.

    On a CPU with matrix units a step of a convolutional network in bfloat16 took 0.9 to 1.5 times
    as long as one in float32, so `auto` looks at products where there are perceptrons. A number
    to predict from would lose all but three digits, so there it is float32.
    """
    families, name = _families(definition), definition.training.precision
    alone = MlpConfig.family not in families and device.type == "cpu" and name == "auto"
    measured = describe(definition.dataset.name).targets > 0 and name == "auto"
    if NumpyCnnConfig.family in families or alone or measured:
        return torch.float32
    return pick_precision(name, device)


def _use_threads(definition: StudyDefinition, shape: Sequence[int]) -> None:
    use_threads(_work(definition, shape))
    if NumpyCnnConfig.family in _families(definition):
        use_threads_in_numpy()


def _work(definition: StudyDefinition, shape: Sequence[int]) -> int:
    """Multiplications in the largest product of a step, of any network that the study can draw.

    Of a perceptron that of the first layer is looked at.
    """
    most = 0
    for run in definition.runs:
        rows = largest(run.training.batch_size)
        for network in run.model.options.values():
            if isinstance(network, MlpSection):
                most = max(most, math.prod(shape) * network.widest * rows)
            if isinstance(network, ConvolutionalSection):
                found = largest_stages(network, shape)
                most = max(most, *(stage.weights * stage.pixels * rows for stage in found))
    return most


def _families(definition: StudyDefinition) -> set[str]:
    """Of networks, that the study may draw or its variations have."""
    return {name for run in definition.runs for name in run.model.families}


def _check_dataset(definition: StudyDefinition) -> None:
    """Refuse what it cannot serve, for a study that comes from no file."""
    if problems := unsuitable(definition):
        raise DefinitionError(render(problems, {}, f"study {definition.name}"))
