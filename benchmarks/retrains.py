"""Trials of an hpo study, and what they test at when they are retrained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hpo.config import TrialConfig
from hpo.data import LabelledRows, load_test, load_train
from hpo.data.tensors import ImageTensors
from hpo.definition import StudyDefinition
from hpo.search import records
from hpo.search.storage import open_storage
from hpo.search.study import load
from hpo.training.population import Member, Population
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import prepare

__all__ = ["PastTrial", "read", "test_accuracies"]

_SEEDS = 9  # tells these seeds and streams from those of a study


@dataclass(frozen=True)
class PastTrial:
    """A trial that trained to its end.

    Attributes:
        ended: when, in seconds since 1970.
        value: its validation accuracy at its best epoch.
        epochs: of its best epoch; so long it is retrained.
    """

    ended: float
    value: float
    config: TrialConfig
    epochs: int


def read(url: str, name: str) -> tuple[StudyDefinition, Sequence[PastTrial]]:
    """A study's definition, and its complete trials."""
    with open_storage(url, must_exist=True) as storage:
        study, definition = load(storage, name)
        assert definition.search.metric == "accuracy"
        found = []
        for trial in study.get_trials(deepcopy=False):
            record = records.read(trial, maximize=True)
            if record.state != "complete" or records.is_twin(trial):
                continue
            assert trial.datetime_complete
            assert record.config
            assert record.value is not None
            found.append(
                PastTrial(
                    trial.datetime_complete.timestamp(),
                    record.value,
                    record.config,
                    record.outcome["best_epoch"],
                )
            )
    return definition, found


def test_accuracies(definition: StudyDefinition, trial: PastTrial, seeds: int) -> list[float]:
    """Train a trial's config on training and validation rows, as `hpo retrain-best` does.

    One seed is one member, on a stream of its own; the schedule keeps its horizon.
    """
    data = prepare(definition, with_validation_rows=True)
    name, config = definition.dataset.name, trial.config
    both = _joined(load_train(name), load_test(name))
    device = data.task.examples.device
    task = replace(data.task, examples=ImageTensors(both, device))
    study_seed = derive_seed(definition.search.seed, _SEEDS)
    streams = [Stream(data.training, config.batch_size, study_seed, seed) for seed in range(seeds)]
    population = Population(task, *streams)
    population.add(
        [Member(seed, config, derive_seed(study_seed, seed), stream=seed) for seed in range(seeds)]
    )
    for _ in range(trial.epochs):
        population.train_epoch()
    test_rows = torch.arange(len(data.training), len(both))
    accuracies = population.evaluate(test_rows)["accuracy"]
    return [float(one) for one in accuracies]


def _joined(first: LabelledRows, second: LabelledRows) -> LabelledRows:
    """Rows of both, so that one population can be trained on these and scored on those."""
    images = np.concatenate([first.images, second.images])
    return LabelledRows(images, np.concatenate([first.labels, second.labels]))
