"""A grid with folds: `hpo optimize` beside scikit-learn's GridSearchCV over skorch.

`studies/fashion_mnist_grid.yaml` has 144 cells of 784-128-10 with 3 folds of 15 epochs: ReLU, SELU
or swish, batch norm of the inputs or none, dropout of the inputs, learning rate, RMSprop or Adam,
batch 512 or 1024.

- hpo: the command, with two workers of one thread. The whole is timed, from the start of the
  command to its end, with all that a user gets: the database, checkpoints, learning curves, a
  score of every fold after every epoch.
- `GridSearchCV` over `NeuralNetClassifier` of skorch, the same folds, two jobs of one thread,
  without the refit, one score after the last epoch: a sample of the cells, half of it before ours
  and half after. The start of its processes is not timed.

Both are told as seconds for an epoch of one fold of one cell, of which the whole has 6,480.
`--set dataset.name=digits --set training.batch_size=64 --trials 4 --sample 2` does less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean
from typing import Any

import optuna

from benchmarks.processes import output_of
from benchmarks.search_runs import NAME, optimize
from hpo import grid, space, studies
from hpo.data import fetch
from hpo.definition import StudyDefinition, load_definition

__all__ = ["PUBLISHED", "main"]

PUBLISHED: Mapping[str, Any] = {
    "mlp.activation": "silu",
    "mlp.input_batch_norm": True,
    "mlp.input_dropout": 0.2,
    "optimizer": "adam",
    "adam.lr": 0.01,
    "training.batch_size": 512,
}
"""What the study named as the best cell of the grid, with a mean accuracy of 89.04 %."""

_Cell = Mapping[str, Any]


@dataclass
class Peer:
    """What GridSearchCV came to on a sample.

    Attributes:
        rates: seconds a fold-epoch, one entry a run.
        means: accuracy of the sampled cells, by their name.
    """

    rates: list[float]
    means: dict[str, float]


@dataclass(frozen=True)
class Visited:
    """A cell that hpo trained: the accuracy of each fold after the last epoch, and its value."""

    cell: _Cell
    folds: list[float]
    value: float

    @property
    def mean(self) -> float:
        """Of the folds."""
        return fmean(self.folds)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks grid")
    parser.add_argument("--study", default="fashion_mnist_grid")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--trials", type=int, help="only so many cells")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=4, help="cells of GridSearchCV; or 0")
    parser.add_argument("--peer-epochs", type=int, help="of GridSearchCV, if not the same")
    options = parser.parse_args(arguments)
    if options.sample and find_spec("skorch") is None:
        sys.exit(
            "GridSearchCV needs skorch: pip install 'hpo[bench]', or leave it out: --sample 0"
        )
    definition = grid.sized(load_definition(studies.find(options.study), options.changes))
    fetch(definition.dataset.name)  # no download is timed
    cells = grid.cells(definition)[: options.trials]
    # They come in an order that is shuffled but for the batch size.
    sample = cells[:: max(1, len(cells) // max(1, options.sample))][: options.sample]
    half = (len(sample) + 1) // 2
    epochs = options.peer_epochs or definition.training.epochs
    peer = Peer([], {})
    _run_peer(definition, sample[:half], epochs, options.workers, peer)
    seconds, visited = _run_hpo(options, len(cells))
    _run_peer(definition, sample[half:], epochs, options.workers, peer)
    fold_epochs = len(cells) * (definition.dataset.folds or 1) * definition.training.epochs
    _print_times(options, seconds, fold_epochs, len(sample), epochs, peer)
    _print_accuracies(visited, peer, same=epochs == definition.training.epochs)


def _run_hpo(options: argparse.Namespace, trials: int) -> tuple[float, list[Visited]]:
    with tempfile.TemporaryDirectory(prefix="hpo-grid-") as folder:
        start = time.perf_counter()
        url = optimize(
            studies.find(options.study),
            folder,
            0,
            options.changes,
            *("--workers", str(options.workers), "--trials", str(trials)),
        )
        seconds = time.perf_counter() - start
        found = optuna.load_study(study_name=NAME, storage=url).get_trials(deepcopy=False)
    return seconds, [
        Visited(trial.params, trial.user_attrs["hpo:curve"][-1]["folds"], trial.value or 0.0)
        for trial in found
        if trial.state == optuna.trial.TrialState.COMPLETE
    ]


def _run_peer(
    definition: StudyDefinition, cells: Sequence[_Cell], epochs: int, jobs: int, peer: Peer
) -> None:
    if not cells:
        return
    drawn = [space.draw(definition, optuna.trial.FixedTrial(dict(cell))) for cell in cells]
    asked = {
        "dataset": definition.dataset.name,
        "folds": definition.dataset.folds,
        "seed": definition.search.seed,
        "epochs": epochs,
        "jobs": jobs,
        "cells": [config.to_dict() for config in drawn],
    }
    told = output_of([sys.executable, "-m", "benchmarks.grid_peer", json.dumps(asked)])
    facts = json.loads(told)
    peer.rates.append(facts["seconds"] / (len(cells) * (definition.dataset.folds or 1) * epochs))
    peer.means.update(zip(map(_named, cells), facts["means"], strict=True))


def _named(cell: _Cell) -> str:
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in cell.items())


def _print_times(
    options: argparse.Namespace,
    seconds: float,
    fold_epochs: int,
    sampled: int,
    epochs: int,
    peer: Peer,
) -> None:
    own = seconds / fold_epochs
    print("| | seconds a fold-epoch | the whole, minutes |")
    print("|---|---|---|")
    print(f"| hpo, {options.workers} workers | {own:.4f} | {seconds / 60:.1f} |")
    if peer.rates:
        rate = fmean(peer.rates)
        print(
            f"| GridSearchCV over skorch | {rate:.4f} ({min(peer.rates):.4f} to "
            f"{max(peer.rates):.4f}) | {rate * fold_epochs / 60:.1f}, extrapolated |"
        )
        print(
            f"| ratio | {rate / own:.1f} ({min(peer.rates) / own:.1f} to "
            f"{max(peer.rates) / own:.1f}) | |"
        )
    print(
        f"\n{fold_epochs} fold-epochs, n = 1, {options.workers} processes of one thread, their "
        f"start included. GridSearchCV: {sampled} of these cells, {epochs} epochs each, in "
        f"n = {len(peer.rates)} runs, {options.workers} jobs of one thread; mean (min to max)."
    )


def _print_accuracies(visited: Sequence[Visited], peer: Peer, *, same: bool) -> None:
    ranked = sorted(visited, key=lambda one: -one.mean)
    places = {0, len(ranked) - 1}
    places |= {place for place, one in enumerate(ranked) if one.cell == PUBLISHED}
    print("\n| rank | cell | accuracy of the folds after the last epoch, % (min to max) | value |")
    print("|---|---|---|---|")
    for place in sorted(places):
        one = ranked[place]
        note = " (the published best)" if one.cell == PUBLISHED else ""
        folds = [100 * accuracy for accuracy in one.folds]
        print(
            f"| {place + 1} of {len(ranked)} | {_named(one.cell)}{note} | {fmean(folds):.2f} "
            f"({min(folds):.2f} to {max(folds):.2f}) | {100 * one.value:.2f} |"
        )
    print("\nThe value is the mean of the folds at its best epoch.")
    ours = {_named(one.cell): one.mean for one in visited}
    gaps = [100 * (ours[name] - mean) for name, mean in peer.means.items() if name in ours]
    if same and gaps:
        print(
            f"On the {len(gaps)} sampled cells hpo is {fmean(gaps):+.2f} points from "
            f"GridSearchCV in the mean ({min(gaps):+.2f} to {max(gaps):+.2f})."
        )
