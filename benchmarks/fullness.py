"""How full the device stays: members running, over members that fit, in a search with ASHA.

It is averaged over time from the first trial's start until the budget's last wave begins, when the
last free slot was claimed; after that nobody is left to join. A worker takes as many members as
`--population` says, as long as the next one fits into its memory beside the others; what runs is
read from the trials' start and end in the database of a real search.

`hpo optimize` runs here unless `--storage URL --study NAME` names a search that has been. With
`--cross-check` the search runs in this process instead, and what the training loop itself sees is
printed beside it: there a member runs only while it is trained or scored, not while others are
drawn. `--study digits --trials 12 --set training.epochs=3` does less.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import optuna

from benchmarks.fullness_watch import Watched, search_watched
from benchmarks.search_runs import NAME, optimize
from hpo.data import describe
from hpo.definition import StudyDefinition, load_definition
from hpo.models.stages import image_shape
from hpo.search import records
from hpo.search.storage import open_storage
from hpo.search.study import load
from hpo.search.worker import WorkerOptions, room_for
from hpo.training.devices import pick_device
from hpo.training.footprint import member_bytes

__all__ = ["Fullness", "Stay", "fullness", "main"]


@dataclass(frozen=True)
class Stay:
    """One trial in training.

    Attributes:
        start, end: moments, in seconds.
        memory: bytes that its tensors take.
        training: seconds of it that were spent on its training.
    """

    worker: str
    start: float
    end: float
    memory: int
    training: float


@dataclass(frozen=True)
class Fullness:
    """What came of a search.

    Attributes:
        share: members running over members that fit, averaged until the last wave.
        running: members running, averaged over the same time.
        seconds: until the last wave began, and of the whole.
        training: share of the whole that the workers spent on training steps.
    """

    share: float
    running: float
    seconds: tuple[float, float]
    training: float


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fullness")
    parser.add_argument("--storage", help="a database that holds the search already")
    parser.add_argument("--study", default="fashion_mnist", help="in studies/, or there")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--population", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--cross-check", action="store_true")
    options = parser.parse_args(arguments)
    with _search(options) as (url, name, watched):
        with open_storage(url, must_exist=True) as storage:
            search, definition = load(storage, name)
            trials = search.get_trials(deepcopy=False)
        device = pick_device(definition.training.device)
        population = options.population
        room = room_for(
            definition, device, WorkerOptions(None if population == "auto" else int(population))
        )
        found = fullness(_stays(trials, definition), room.members, room.memory)
    _print(options, found, room.members, len(trials), watched)


def fullness(stays: Sequence[Stay], members: int, memory: int) -> Fullness:
    """Average over time how full the workers were.

    Args:
        members: that a worker takes at most.
        memory: bytes that a worker's members may take together.
    """
    begun, ended = min(stay.start for stay in stays), max(stay.end for stay in stays)
    last = max(stay.start for stay in stays)
    ran = fitted = 0.0
    workers = {stay.worker for stay in stays}
    for worker in workers:
        own = sorted((stay for stay in stays if stay.worker == worker), key=lambda s: s.start)
        moments = {begun, last, *(s.start for s in own), *(min(s.end, last) for s in own)}
        for start, end in pairwise(sorted(moments)):
            now = [stay for stay in own if stay.start <= start < stay.end]
            following = next((stay for stay in own if stay.start > start), None)
            used = sum(stay.memory for stay in now)
            crowded = bool(now) and following is not None and used + following.memory > memory
            ran += (end - start) * len(now)
            fitted += (end - start) * (len(now) if crowded else max(members, len(now)))
    training = sum(stay.training for stay in stays)
    return Fullness(
        share=ran / fitted if fitted else 1.0,
        running=ran / (last - begun) if last > begun else float(len(stays)),
        seconds=(last - begun, ended - begun),
        training=training / (ended - begun) / len(workers),
    )


@contextmanager
def _search(options: argparse.Namespace) -> Iterator[tuple[str, str, Watched | None]]:
    """Where the search is: the database's URL, its name there, and what the loop saw of it."""
    if options.storage:
        yield options.storage, options.study, None
        return
    study = Path("studies") / f"{options.study}.yaml"
    with tempfile.TemporaryDirectory(prefix="hpo-fullness-") as folder:
        if options.cross_check:
            url = f"sqlite:///{folder}/hpo.db"
            bounds = [f"search.seed={options.seed}", f"search.trials={options.trials}"]
            definition = load_definition(study, [*options.changes, *bounds], name=NAME)
            yield url, NAME, search_watched(url, definition, options.population, Path(folder))
            return
        given = ("--population", options.population, "--trials", str(options.trials))
        yield optimize(study, folder, options.seed, options.changes, *given), NAME, None


def _stays(trials: Sequence[optuna.trial.FrozenTrial], definition: StudyDefinition) -> list[Stay]:
    """The trials that trained and have ended."""
    data = describe(definition.dataset.name)
    shape = image_shape(data.shape)
    stays = []
    for trial in trials:
        record = records.read(trial, maximize=definition.search.metric == "accuracy")
        if trial.datetime_start is None or trial.datetime_complete is None:
            continue
        if record.config is None or not record.curve or records.is_twin(trial):
            continue
        stays.append(
            Stay(
                worker=str(record.origin.get("worker")),
                start=trial.datetime_start.timestamp(),
                end=trial.datetime_complete.timestamp(),
                memory=member_bytes(record.config, shape, data.classes),
                training=sum(epoch["seconds"] for epoch in record.curve),
            )
        )
    return stays


def _print(
    options: argparse.Namespace,
    found: Fullness,
    most: int,
    trials: int,
    watched: Watched | None,
) -> None:
    print("| | members running over members that fit, % | members running |")
    print("|---|---|---|")
    print(f"| by the database | {100 * found.share:.1f} | {found.running:.2f} of {most} |")
    if watched is not None:
        print(
            f"| by the training loop | {100 * watched.running / most:.1f} "
            f"| {watched.running:.2f} of {most} |"
        )
    print(
        f"\n{options.study}: {trials} trials; {found.seconds[0]:.1f} s until the last wave, "
        f"{found.seconds[1]:.1f} s in all, {100 * found.training:.0f} % of them in training steps "
        "(the rest: scoring, drawing, telling)."
    )
    if watched is not None:
        print(
            f"A member shared its population with {watched.company - 1:.2f} others in the mean; "
            f"{watched.populations:.2f} populations trained in turn."
        )
