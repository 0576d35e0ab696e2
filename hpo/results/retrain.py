"""The winner, trained once more on all the rows there are, and the one look at the test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import torch
from torch import Tensor

from hpo.data import describe, fetch, load_test
from hpo.data.rows import kind_of
from hpo.data.tensors import Normalization
from hpo.data.vectors import Examples, VectorTensors, on_device
from hpo.definition import StudyDefinition
from hpo.errors import TrainingError
from hpo.models.alone import build_module
from hpo.results import overfitting
from hpo.results.finalists import Finalist, choose, score_again, which_seeds
from hpo.results.prediction import Prediction
from hpo.results.states import SavedStates
from hpo.results.statistics import Summary, summarize
from hpo.training.blocks import device_of
from hpo.training.footprint import limits, member_bytes
from hpo.training.mishaps import attempt
from hpo.training.population import Member, Population
from hpo.training.scoring import score_network
from hpo.training.streams import derive_seed
from hpo.training.task import Split, prepare

__all__ = ["Retrained", "retrain_best"]

_RETRAIN = 5  # tells these seeds and streams from all others of a study


@dataclass(frozen=True)
class Retrained:
    """What a retrain came to.

    Attributes:
        winner: with its values on the validation rows.
        finalists: all that were scored again, best first.
        test: the study's metric on the test rows, one value a seed.
        test_metrics: every metric on the test rows, one value a seed.
        seeds: what each network was initialised with.
        normalization: of the rows that were trained on.
        shape: of what goes in, `(channels, height, width)` or `(features,)`.
        classes: how many there are; 0 where targets are predicted.
        outputs: how many a network has.
        device: where it was trained.
        prediction: on the test rows, where one number is predicted from one.
    """

    winner: Finalist
    finalists: list[Finalist]
    validation: Summary
    test: Summary
    test_metrics: dict[str, list[float]]
    seeds: list[int]
    normalization: Normalization
    shape: tuple[int, ...]
    classes: int
    outputs: int
    device: str
    prediction: Prediction | None

    def report(self, definition: StudyDefinition, name: str, artifact: str) -> dict[str, Any]:
        """What `hpo retrain-best --format json` prints."""
        validation = self.validation
        return {
            "study": name,
            "winner": self.winner.number,
            "params": self.winner.params,
            "validation": {"mean": validation.mean, "std": validation.std, "n": validation.n},
            **overfitting.fields(self.winner.curve),
            "test": {"metric": definition.search.metric, **self.test.to_dict()},
            "artifact": artifact,
        }

    def details(self) -> dict[str, Any]:
        """What else goes into the artifact's metrics."""
        return {
            "trained_epochs": self.winner.epochs,
            "test_metrics": self.test_metrics,
            "finalists": [
                {
                    "trial": finalist.number,
                    "values": list(finalist.values),
                    "best_epochs": list(finalist.best_epochs),
                }
                for finalist in self.finalists
            ],
        }


def retrain_best(
    study: optuna.Study,
    definition: StudyDefinition,
    states: SavedStates,
    stopping: Callable[[], bool],
    heard: Callable[[str], None],
) -> Retrained:
    """Name the winner, train it over seeds on training and validation rows, and test it once.

    The number of epochs is what served the winner on the validation rows; its schedule keeps
    the horizon that it was searched with.

    Args:
        states: gets the tensors of the network of each seed, by the names of the module of
            `hpo.models.alone`.
        stopping: asked before every batch.
        heard: is told, in a sentence, how it goes.

    Raises:
        Stopped: `stopping` said so; nothing is left behind.
        FileError: the disk has no room for the networks.
        TrainingError: there is no finalist, or training diverged.
        DataError: the dataset cannot be had.
    """
    # All files of the dataset are there and whole, or it is said now and not after the training.
    fetch(definition.dataset.name)
    finalists = score_again(
        choose(study, definition), definition, prepare(definition), stopping, heard
    )
    winner = finalists[0]
    epochs = f"{winner.epochs} epoch{'s' if winner.epochs > 1 else ''}"
    heard(f"winner: trial {winner.number}, retrained for {epochs} on all rows")
    data = prepare(definition, with_validation_rows=True)
    seeds = [
        derive_seed(definition.search.seed, _RETRAIN, seed)
        for seed in range(definition.retrain.seeds)
    ]
    _train(winner, definition, data, seeds, states, stopping, heard)
    metrics, prediction = _test(winner, definition, data, states)
    task = data.task
    return Retrained(
        winner=winner,
        finalists=finalists,
        validation=summarize(winner.values),
        test=summarize(metrics[definition.search.metric]),
        test_metrics=metrics,
        seeds=seeds,
        normalization=task.normalization,
        shape=task.shape,
        classes=describe(definition.dataset.name).classes,
        outputs=task.outputs,
        device=device_of(winner.config, task),
        prediction=prediction,
    )


def _train(
    winner: Finalist,
    definition: StudyDefinition,
    data: Split,
    seeds: list[int],
    states: SavedStates,
    stopping: Callable[[], bool],
    heard: Callable[[str], None],
) -> None:
    """Every seed on a stream of its own, all in one population as far as that gains."""
    task, config = data.task, winner.config
    cost = member_bytes(config, task.shape, task.outputs)
    room = max(1, limits(task.examples.device).memory // cost)
    order_seed = derive_seed(definition.search.seed, _RETRAIN)
    while len(states) < len(seeds):
        group = range(len(states), min(len(states) + room, len(seeds)))
        streams = [data.streams(config.batch_size, order_seed, seed)[0] for seed in group]
        population = Population(task, *streams)
        members = [
            Member(seed, config, seeds[seed], stream=place) for place, seed in enumerate(group)
        ]
        named = which_seeds(group, len(seeds))
        work = partial(_train_together, population, members, winner.epochs, stopping, heard, named)
        mishap = attempt(work)
        if mishap is None:
            _put_down(population, members, states)
        elif mishap.memory and len(group) > 1:
            room = len(group) // 2
        else:
            raise TrainingError(f"the winner could not be retrained: {mishap.reason}")


def _train_together(
    population: Population,
    members: list[Member],
    epochs: int,
    stopping: Callable[[], bool],
    heard: Callable[[str], None],
    named: str,
) -> None:
    population.add(members)
    for epoch in range(epochs):
        population.train_epoch(stopping)
        heard(f"retrain: epoch {epoch + 1} of {epochs}, {named}")


def _put_down(population: Population, members: list[Member], states: SavedStates) -> None:
    if any(member.trouble for member in members):
        raise _diverged()
    for member in members:
        state = population.state(member)
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise _diverged()
        states.append(state)


def _diverged() -> TrainingError:
    return TrainingError(
        "the winner diverged when it was retrained on all rows; nothing was tested or "
        "written; raise retrain.finalists or search on"
    )


def _test(
    winner: Finalist, definition: StudyDefinition, data: Split, states: SavedStates
) -> tuple[dict[str, list[float]], Prediction | None]:
    """The one look at the test set: every metric of every network, and what they predict.

    It is opened only now, when nothing can be chosen any more.
    """
    examples, task = data.task.examples, data.task
    name = definition.dataset.name
    test = on_device(load_test(name, kind_of(describe(name))), examples.device)
    model = build_module(winner.config.model, task.shape, task.outputs)
    model = model.to(examples.device).eval()
    found = [score_network(model, state, test, task) for state in states]
    metrics = {name: [scores[name] for scores, _ in found] for name in task.goal.metrics}
    return metrics, _prediction(test, task.normalization, [outputs for _, outputs in found])


def _prediction(
    test: Examples, normalization: Normalization, outputs: list[Tensor]
) -> Prediction | None:
    """Of each network in the target's own units, where one number is predicted from one."""
    if not isinstance(test, VectorTensors) or test.features > 1 or test.targets.shape[1] > 1:
        return None
    predicted = normalization.to_targets(torch.stack(outputs).double())
    inputs, targets = test.inputs.double().cpu(), test.targets.double().cpu()
    return Prediction(
        inputs[:, 0].numpy(), targets[:, 0].numpy(), predicted[:, :, 0].cpu().numpy()
    )
