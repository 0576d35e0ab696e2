"""The grid of a published study, 144 cells x 3 folds, by populations and by GridSearchCV.

784-128-10 on Fashion-MNIST: ReLU, SELU or SiLU, batch norm or none, dropout 0.2 or 0.4, learning
rate 0.001, 0.002 or 0.01, RMSprop or Adam, batch 512 or 1024; 15 epochs. The study normalised the
input; here batch norm is on the hidden layer, on both sides.

- hpo: two processes of one thread. Some cells of one batch size join a population, each three
  times, a fold each on a stream of its own; every fold is scored on its own held-out rows. The
  whole is timed, from the start of the processes to the last score.
- `GridSearchCV` of scikit-learn over `NeuralNetClassifier` of skorch, the same folds, two jobs of
  one thread, without the refit: a sample of the cells, half of it before ours and half after. The
  start of its processes is not timed.

Both are told as seconds for an epoch of one fold of one cell, of which the whole has 6,480.
`--dataset digits --batch-sizes 64,128 --epochs 1 --cells 4 --sample 2` does less.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import fmean

from benchmarks.grid_cells import FOLDS, PUBLISHED, Cell, all_cells, spread
from benchmarks.grid_train import add_options
from benchmarks.processes import environment, output_of, side_by_side

_TOGETHER = 8
_SAMPLE = 4


@dataclass
class Peer:
    """What GridSearchCV came to on a sample, one entry a run.

    Attributes:
        rates: seconds a fold-epoch.
        means: of the sampled cells, by place.
    """

    rates: list[float]
    means: dict[int, float]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks grid")
    add_options(parser)
    parser.add_argument("--cells", type=int, default=0, help="only so many cells")
    parser.add_argument("--together", type=int, default=_TOGETHER, help="cells of a population")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sample", type=int, default=_SAMPLE, help="cells of GridSearchCV; or 0")
    parser.add_argument("--peer-epochs", type=int, help="of GridSearchCV, if not the same")
    options = parser.parse_args(arguments)
    if options.sample and find_spec("skorch") is None:
        sys.exit(
            "GridSearchCV needs skorch: pip install 'hpo[bench]', or leave it out: --sample 0"
        )
    cells = all_cells([int(size) for size in options.batch_sizes.split(",")])
    chosen = spread(cells, options.cells)
    sample = [chosen[place] for place in spread([cells[one] for one in chosen], options.sample)]
    sample = sample if options.sample else []
    half = (len(sample) + 1) // 2
    peer = Peer([], {})
    _run_peer(options, sample[:half], peer)
    start = time.perf_counter()
    found = _train_all(options, cells, chosen)
    seconds = time.perf_counter() - start
    _run_peer(options, sample[half:], peer)
    _print_times(options, seconds, len(chosen), len(sample), peer)
    _print_accuracies(options, cells, found, peer)


def _train_all(
    options: argparse.Namespace, cells: Sequence[Cell], chosen: Sequence[int]
) -> dict[int, list[float]]:
    """The accuracies of the folds of each chosen cell; processes take groups as they get free."""
    groups: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for size in dict.fromkeys(cells[place].batch_size for place in chosen):
        of_size = [place for place in chosen if cells[place].batch_size == size]
        for first in range(0, len(of_size), options.together):
            groups.put(of_size[first : first + options.together])
    work = [partial(_drive, options, groups) for _ in range(options.processes)]
    found = side_by_side(work, options.processes)
    return {place: folds for part in found for place, folds in part.items()}


def _drive(
    options: argparse.Namespace, groups: queue.SimpleQueue[list[int]]
) -> dict[int, list[float]]:
    """Give one process a group after the other, until there are none."""
    found: dict[int, list[float]] = {}
    command = [sys.executable, "-m", "benchmarks.grid_train", *_shared(options, options.epochs)]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            try:
                group = groups.get_nowait()
            except queue.Empty:
                break
            process.stdin.write(json.dumps(group) + "\n")
            process.stdin.flush()
            found.update((place, folds) for place, folds in json.loads(process.stdout.readline()))
    return found


def _run_peer(options: argparse.Namespace, places: list[int], peer: Peer) -> None:
    if not places:
        return
    epochs = options.peer_epochs or options.epochs
    told = output_of(
        [
            *(sys.executable, "-m", "benchmarks.grid_peer", *_shared(options, epochs)),
            *("--cells", ",".join(map(str, places)), "--jobs", str(options.processes)),
        ]
    )
    facts = json.loads(told)
    peer.rates.append(facts["seconds"] / (len(places) * FOLDS * epochs))
    peer.means.update(zip(places, facts["means"], strict=True))


def _shared(options: argparse.Namespace, epochs: int) -> list[str]:
    return [
        *("--dataset", options.dataset, "--batch-sizes", options.batch_sizes),
        *("--epochs", str(epochs)),
    ]


def _print_times(
    options: argparse.Namespace, seconds: float, cells: int, sampled: int, peer: Peer
) -> None:
    fold_epochs = cells * FOLDS * options.epochs
    own = seconds / fold_epochs
    ours = f"hpo, {options.together} cells x {FOLDS} folds side by side"
    print("| | seconds a fold-epoch | the whole, minutes |")
    print("|---|---|---|")
    print(f"| {ours} | {own:.4f} | {seconds / 60:.1f} |")
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
        f"\n{cells} cells x {FOLDS} folds x {options.epochs} epochs, n = 1, {options.processes} "
        f"processes of one thread, their start included. GridSearchCV: {sampled} of these cells, "
        f"{options.peer_epochs or options.epochs} epochs each, in n = {len(peer.rates)} runs, "
        f"{options.processes} jobs of one thread; mean (min to max)."
    )


def _print_accuracies(
    options: argparse.Namespace,
    cells: Sequence[Cell],
    found: dict[int, list[float]],
    peer: Peer,
) -> None:
    ranked = sorted(found, key=lambda place: -fmean(found[place]))
    shown = {1: ranked[0]}
    published = next((place for place in ranked if cells[place] == PUBLISHED), None)
    if published is not None:
        shown[ranked.index(published) + 1] = published
    shown[len(ranked)] = ranked[-1]
    print("\n| rank | cell | held-out accuracy, %, mean of the folds (min to max) |")
    print("|---|---|---|")
    for rank, place in sorted(shown.items()):
        note = " (the published best)" if place == published else ""
        folds = [100 * accuracy for accuracy in found[place]]
        print(
            f"| {rank} of {len(ranked)} | {cells[place]}{note} | {fmean(folds):.2f} "
            f"({min(folds):.2f} to {max(folds):.2f}) |"
        )
    if peer.means and (options.peer_epochs or options.epochs) == options.epochs:
        gaps = [100 * (fmean(found[place]) - mean) for place, mean in peer.means.items()]
        print(
            f"\nOn the {len(gaps)} sampled cells hpo is {fmean(gaps):+.2f} points from "
            f"GridSearchCV in the mean ({min(gaps):+.2f} to {max(gaps):+.2f})."
        )
