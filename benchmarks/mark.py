"""Time to the mark: how long until a config is known that, retrained, reaches a test accuracy.

For each seed hpo searches `--study` with every default, by its command. Then each peer searches
the same rows for some times the seconds that hpo took to the mark: the tutorials' search
(Optuna's example), and the same loop under Ray Tune's ASHA with two trials at a time
(`peer_search.py`).

A config is known when its trial is over and the best so far, in seconds since the command began.
Afterwards, and not timed, these configs are retrained in their order, on training and validation
rows, over `--retrain-seeds` seeds; the first whose mean test accuracy reaches `--mark` sets the
time. Those whose validation accuracy is more than `--margin` below the mark are taken as failing:
validation accuracy is above test accuracy here, and no retrain gains so much. A peer that does not
get there counts as its limit: `--peers optuna:10,ray:5` are the goals. Ray comes with the extra
`bench`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers, retrains
from benchmarks.processes import ROOT
from benchmarks.searches import environment, searched
from hpo import studies
from hpo.definition import StudyDefinition, load_definition

__all__ = ["Known", "Reached", "first_to_reach", "main"]

_TITLES = {"optuna": "the tutorials' search", "ray": "Ray Tune's ASHA, two at a time"}
_PATIENCE = 300.0  # a peer ends of itself; seconds after its time in which it has to


@dataclass(frozen=True)
class Known:
    """A config whose trial is over.

    Attributes:
        seconds: from the start of the search's command to that moment.
        value: its validation accuracy.
        retrain: trains it anew and returns the test accuracy of each seed.
    """

    seconds: float
    value: float
    retrain: Callable[[], list[float]]


@dataclass(frozen=True)
class Reached:
    """What a search came to.

    Attributes:
        seconds: when the config was known that reaches the mark; None if none does.
        value: validation accuracy of that config, or of the best.
        tests: its test accuracies; empty if none was worth a retrain.
        trials: how many the search ended with a value.
    """

    seconds: float | None
    value: float
    tests: list[float]
    trials: int


def main(arguments: Sequence[str] = ()) -> None:
    options = _options(arguments)
    limits = _limits(options.peers.split(","))
    definition = load_definition(studies.find(options.study).resolve())
    print("| seed | search | trials | to the mark, s | over hpo | validation, % | test, % |")
    print("|---|---|---|---|---|---|---|")
    ratios: dict[str, list[float]] = {name: [] for name in limits}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        ours = _ours(seed, options)
        _print(seed, "hpo", ours, "not reached", "1" if ours.seconds else "")
        if ours.seconds is None:
            continue  # there is nothing to be measured against
        for name, times in limits.items():
            limit = times * ours.seconds
            theirs = _theirs(name, definition, seed, limit, options)
            ratio = (theirs.seconds or limit) / ours.seconds
            ratios[name].append(ratio)
            over = f"{ratio:.1f}" if theirs.seconds else f"{ratio:.1f} or more"
            _print(seed, _TITLES[name], theirs, f"not in {limit:.0f}", over)
    print()
    for name, found in ratios.items():
        _conclude(_TITLES[name], found, limits[name])
    print(
        f"\nThe mark: {options.mark * 100:g} % on the test rows of {definition.dataset.name}, the "
        f"mean over n = {options.retrain_seeds} seeds of a retrain."
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mark")
    parser.add_argument("--study", default="fashion_mnist")
    parser.add_argument("--mark", type=float, default=0.905)
    parser.add_argument("--margin", type=float, default=0.015)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--peers",
        default="optuna:10,ray:5",
        help="each with the times of hpo's seconds after which it is given up",
    )
    parser.add_argument("--trials", type=int, help="hpo's; those of the study if left out")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="for hpo")
    parser.add_argument("--epochs", type=int, default=10, help="of a peer's trial")
    parser.add_argument("--rows", type=int, default=1_000_000, help="a peer trains on; at most")
    parser.add_argument("--threads", type=int, help="of the tutorials' search; torch's own choice")
    parser.add_argument("--retrain-seeds", type=int, default=3)
    return parser.parse_args(arguments)


def _limits(peers: Sequence[str]) -> dict[str, float]:
    """The peers that are wanted, each with its limit."""
    limits: dict[str, float] = {}
    for peer in filter(None, peers):
        name, _, times = peer.partition(":")
        if name not in _TITLES:
            sys.exit(f"there is no peer {name}; there are {', '.join(_TITLES)}")
        try:
            limits[name] = float(times)
        except ValueError:
            sys.exit(f"--peers: {peer} has no limit; write {name}:5 for 5 times hpo's seconds")
    if "ray" in limits and importlib.util.find_spec("ray") is None:
        sys.exit("Ray is not installed: pip install 'hpo[bench]', or --peers optuna:10")
    return limits


def first_to_reach(
    found: Sequence[Known], mark: float, margin: float, heard: Callable[[str], None]
) -> Reached:
    """Retrain the best so far, one after the other, until one reaches the mark.

    Args:
        margin: how far below the mark a validation accuracy may lie that is worth a retrain.
        heard: is told, in a sentence, how it goes.
    """
    best, tests = float("-inf"), list[float]()
    for one in sorted(found, key=lambda one: one.seconds):
        if one.value <= best:
            continue
        best = one.value
        if one.value < mark - margin:
            continue
        tests = one.retrain()
        mean = statistics.mean(tests)
        heard(f"known after {one.seconds:.0f} s: validation {one.value:.4f}, test {mean:.4f}")
        if mean >= mark:
            return Reached(one.seconds, one.value, tests, len(found))
    return Reached(None, best, tests, len(found))


def _ours(seed: int, options: argparse.Namespace) -> Reached:
    _hear(f"seed {seed}: hpo optimize --study {options.study}")
    with searched(options.study, seed, options.trials, options.overrides) as search:
        definition, trials = retrains.read(search.url, search.name)
    tested = partial(retrains.test_accuracies, definition, seeds=options.retrain_seeds)
    found = [
        Known(trial.ended - search.began, trial.value, partial(tested, trial)) for trial in trials
    ]
    return first_to_reach(found, options.mark, options.margin, _hear)


def _theirs(
    name: str, definition: StudyDefinition, seed: int, limit: float, options: argparse.Namespace
) -> Reached:
    """A peer's search on the rows that hpo had, ended after `limit` seconds, and its retrains."""
    _hear(f"seed {seed}: {_TITLES[name]}, for {limit:.0f} s")
    dataset = definition.dataset
    assert dataset.validation is not None, "a study with folds has no peer here"
    work = peers.Work(dataset.name, dataset.validation, seed, options.epochs, options.rows)
    began = time.time()
    lines = _searched_by_peer(name, work, began + limit, options.threads)
    tested = partial(peers.test_accuracies, work, seeds=options.retrain_seeds)
    found = [
        Known(line["time"] - began, line["value"], partial(tested, line["config"]))
        for line in lines
        if line["time"] <= began + limit
    ]
    return first_to_reach(found, options.mark, options.margin, _hear)


def _searched_by_peer(
    name: str, work: peers.Work, until: float, threads: int | None
) -> list[dict[str, Any]]:
    """What `peer_search.py` wrote down, in a process of its own that began just now."""
    more = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="mark-") as folder:
        out, log = Path(folder) / "trials.jsonl", Path(folder) / "log"
        out.touch()
        command = [
            *(sys.executable, "-m", "benchmarks.peer_search", name, "--out", str(out)),
            *("--dataset", work.dataset, "--validation", str(work.validation)),
            *("--seed", str(work.seed), "--epochs", str(work.epochs), "--rows", str(work.rows)),
            *("--until", str(until)),
        ]
        with log.open("w") as written:
            child = subprocess.run(
                command,
                cwd=ROOT,
                env=environment(**more),
                stdout=written,
                stderr=written,
                timeout=until - time.time() + _PATIENCE,
            )
        if child.returncode:
            sys.exit(f"{_TITLES[name]} ended with {child.returncode}: {log.read_text()[-2000:]}")
        return [json.loads(line) for line in out.read_text().splitlines()]


def _hear(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _print(seed: int, title: str, reached: Reached, otherwise: str, over: str) -> None:
    seconds = otherwise if reached.seconds is None else f"{reached.seconds:.0f}"
    value = f"{reached.value * 100:.2f}" if reached.trials else ""
    test = f"{statistics.mean(reached.tests) * 100:.2f}" if reached.tests else ""
    cells = [seed, title, reached.trials, seconds, over, value, test]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _conclude(title: str, ratios: Sequence[float], limit: float) -> None:
    if not ratios:
        return
    capped = sum(ratio >= limit for ratio in ratios)
    print(
        f"{title}: {statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to "
        f"{max(ratios):.1f}), n = {len(ratios)}, {capped} of them ended at the limit."
    )
