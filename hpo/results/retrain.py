"""The winner, trained once more on all the rows there are, and the one look at the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from hpo.results.finalists import Finalist, score_again, which_seeds
from hpo.results.prediction import Prediction
from hpo.results.states import SavedStates
from hpo.results.statistics import summarize
from hpo.training.blocks import device_of
from hpo.training.footprint import limits, member_bytes
from hpo.training.mishaps import attempt
from hpo.training.population import Member, Population
from hpo.training.scoring import score_network
from hpo.training.streams import derive_seed
from hpo.training.task import Split, prepare

__all__ = ["Trained", "Verdict", "details", "open_test_set", "report", "retrain"]

_RETRAIN = 5  # tells these seeds and streams from all others of a study


@dataclass(frozen=True)
class Trained:
    """The winner, trained over seeds on all rows but those of the test set, which is closed.

    Attributes:
        winner: with its values on the validation rows.
        finalists: all that were scored again, best first.
        seeds: what each network was initialised with.
        data: what it was trained on.
    """

    winner: Finalist
    finalists: list[Finalist]
    seeds: list[int]
    data: Split

    @property
    def device(self) -> str:
        """Where it was trained."""
        return device_of(self.winner.config, self.data.task)


@dataclass(frozen=True)
class Verdict:
    """What the one look at the test set showed.

    Attributes:
        metrics: every metric on the test rows, one value a seed.
        prediction: on the test rows, where one number is predicted from one.
    """

    metrics: dict[str, list[float]]
    prediction: Prediction | None


def report(
    trained: Trained, verdict: Verdict, definition: StudyDefinition, name: str, artifact: str
) -> dict[str, Any]:
    """What `hpo retrain-best --format json` prints."""
    winner, metric = trained.winner, definition.search.metric
    validation = summarize(winner.values)
    return {
        "study": name,
        "winner": winner.number,
        "params": winner.params,
        "validation": {"mean": validation.mean, "std": validation.std, "n": validation.n},
        **overfitting.fields(winner.curve),
        "test": {"metric": metric, **summarize(verdict.metrics[metric]).to_dict()},
        "artifact": artifact,
    }


def details(trained: Trained, verdict: Verdict) -> dict[str, Any]:
    """What else goes into the artifact's metrics."""
    return {
        "trained_epochs": trained.winner.epochs,
        "test_metrics": verdict.metrics,
        "finalists": [
            {
                "trial": finalist.number,
                "values": list(finalist.values),
                "best_epochs": list(finalist.best_epochs),
            }
            for finalist in trained.finalists
        ],
    }


def retrain(
    finalists: Sequence[Finalist],
    definition: StudyDefinition,
    states: SavedStates,
    stopping: Callable[[], bool],
    heard: Callable[[str], None],
) -> Trained:
    """Name the winner and train it over seeds on training and validation rows.

    The number of epochs is what served the winner on the validation rows; its schedule keeps
    the horizon that it was searched with.

    Args:
        finalists: as `finalists.choose` gives them.
        states: gets the tensors of the network of each seed, by the names of the module of
            `hpo.models.alone`.
        stopping: asked before every batch.
        heard: is told, in a sentence, how it goes.

    Raises:
        Stopped: `stopping` said so; nothing is left behind.
        FileError: the disk has no room for the networks.
        TrainingError: training diverged.
        DataError: the dataset cannot be had.
    """
    # All files of the dataset are there and whole, or it is said now and not after the training.
    fetch(definition.dataset.name)
    scored = score_again(finalists, definition, prepare(definition), stopping, heard)
    winner = scored[0]
    epochs = f"{winner.epochs} epoch{'s' if winner.epochs > 1 else ''}"
    heard(f"winner: trial {winner.number}, retrained for {epochs} on all rows")
    data = prepare(definition, with_validation_rows=True)
    seeds = [
        derive_seed(definition.search.seed, _RETRAIN, seed)
        for seed in range(definition.retrain.seeds)
    ]
    _train(winner, definition, data, seeds, states, stopping, heard)
    return Trained(winner, scored, seeds, data)


def open_test_set(trained: Trained, definition: StudyDefinition, states: SavedStates) -> Verdict:
    """The one look at the test set: every metric of every network, and what they predict.

    It is opened only now, when nothing can be chosen any more.

    Raises:
        DataError: the test rows cannot be had.
        FileError: the networks cannot be read.
    """
    task, device = trained.data.task, trained.data.task.examples.device
    name = definition.dataset.name
    rows = on_device(load_test(name, kind_of(describe(name))), device)
    model = build_module(trained.winner.config.model, task.shape, task.outputs)
    model = model.to(device).eval()
    found = [score_network(model, state, rows, task) for state in states]
    metrics = {name: [scores[name] for scores, _ in found] for name in task.goal.metrics}
    outputs = [outputs for _, outputs in found]
    return Verdict(metrics, _prediction(rows, task.normalization, outputs))


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
        losses: list[Tensor] = []
        work = partial(
            _train_together, population, members, winner.epochs, stopping, heard, named, losses
        )
        mishap = attempt(work)
        if mishap is None:
            _put_down(population, members, losses[-1], states)
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
    losses: list[Tensor],
) -> None:
    population.add(members)
    for epoch in range(epochs):
        losses.append(population.train_epoch(stopping))
        heard(f"retrain: epoch {epoch + 1} of {epochs}, {named}")


def _put_down(
    population: Population, members: list[Member], losses: Tensor, states: SavedStates
) -> None:
    # Huge weights are finite, and what comes out of them is not.
    if any(member.trouble for member in members) or not losses.isfinite().all():
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
