"""How the cost of training grows: seconds of an epoch of one model, by members, width and batch.

A population of equal members 784-width-width-10 with batch norm, dropout 0.2 and Adam trains on
Fashion-MNIST; some batches are timed, and what an epoch of 50,000 rows would take follows from
them. Two points are left out: those whose members do not fit into the memory that a worker may
take (`hpo/training/footprint.py`), and those of which one batch takes too long (`--longest`).

`--members 1,8 --widths 32 --batches 64 --dataset digits --seconds 0.05 --rounds 1` does less.
`--out FOLDER` receives the plot, as a page and as a picture, and all numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch

from benchmarks import growth_plot, machine
from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import describe, load_train
from hpo.data.tensors import ImageTensors
from hpo.training.devices import device_name, pick_device, pick_precision
from hpo.training.footprint import limits, member_bytes
from hpo.training.population import Member, Population, Stopped
from hpo.training.streams import Stream
from hpo.training.task import Task

__all__ = ["EPOCH_ROWS", "Point", "main", "measure"]

EPOCH_ROWS = 50_000
_MEMBERS = (1, 2, 4, 8, 16, 32, 64)
_SIZES = (32, 64, 128, 256, 512, 1024)
_WARM_UP = 2
_LEAST = 3


@dataclass(frozen=True)
class Point:
    """What was measured of one population.

    Attributes:
        seconds: of an epoch of 50,000 rows for one member; None if it did not fit.
        rounds: the same, round by round.
        memory: bytes that its members take by the estimate that bounds a worker.
        parameters: of one member.
    """

    members: int
    width: int
    batch: int
    seconds: float | None
    rounds: tuple[float, ...]
    memory: int
    parameters: int


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--members", default=_text(_MEMBERS))
    parser.add_argument("--widths", default=_text(_SIZES))
    parser.add_argument("--batches", default=_text(_SIZES))
    parser.add_argument("--seconds", type=float, default=0.25, help="of a point in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of one batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/plots"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    task = _task(options)
    points = _measure_all(options, task)
    _print(points, options)
    precision = str(task.precision).removeprefix("torch.")
    device = f"{device_name(task.examples.device)}, {precision}"
    facts = {
        "machine": machine.describe(),
        "device": device,
        "threads": options.threads,
        "points": [asdict(point) for point in points],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = options.out / f"growth_{options.device.partition(':')[0]}.json"
    numbers.write_text(json.dumps(facts, indent=1) + "\n")
    written = growth_plot.save(points, device, options.out, numbers.stem)
    print(f"\nWritten: {', '.join(str(path) for path in [numbers, *written])}")


def measure(
    task: Task, members: int, config: TrialConfig, seconds: float, longest: float
) -> float | None:
    """Seconds of one batch of a population of equal members; None if a batch takes too long.

    Args:
        seconds: for how long batches are timed; at least three are, if the data has so many.
    """
    rows = torch.arange(len(task.examples))
    population = Population(task, Stream(rows, config.batch_size, seed=0))
    population.add([Member(key, config, seed=key) for key in range(members)])
    clock = _Clock(task.examples.device, seconds, longest, population.batches)
    try:
        population.train_epoch(clock)
    except Stopped:
        pass
    finally:
        population.keep(())
    return clock.seconds_a_batch


class _Clock:
    """Is asked before every batch whether to stop, and so can tell how long they take.

    A GPU still works on what it was given before: it is waited for when the clock starts and
    when it stops, and never in between.
    """

    def __init__(self, device: torch.device, seconds: float, longest: float, batches: int) -> None:
        self.seconds_a_batch: float | None = None
        self._device = device
        self._seconds, self._longest = seconds, longest
        self._last = batches - 1
        self._warm_up = min(_WARM_UP, self._last - 1)
        self._done = -1
        self._start = 0.0

    def __call__(self) -> bool:
        self._done += 1
        timed = self._done - self._warm_up
        if timed <= 0:
            before, self._start = self._start, self._now()
            return self._done > 0 and self._start - before > self._longest
        enough = timed >= _LEAST and time.perf_counter() - self._start >= self._seconds
        if not enough and self._done < self._last:
            return False
        self.seconds_a_batch = (self._now() - self._start) / timed
        return True

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _task(options: argparse.Namespace) -> Task:
    device = pick_device(options.device)
    examples = ImageTensors(load_train(options.dataset), device)
    normalization = examples.normalization(torch.arange(len(examples)))
    precision = pick_precision("auto", device)
    return Task(examples, describe(options.dataset).classes, normalization, precision=precision)


def _measure_all(options: argparse.Namespace, task: Task) -> list[Point]:
    """Every point, in as many passes over all of them as there are rounds."""
    places = list(_places(options))
    found: dict[tuple[int, int, int], list[float]] = {place: [] for place in places}
    for _ in range(options.rounds):  # in turns, so that a slow moment does not hit one point
        for members, width, batch in places:
            config = _config(width, batch)
            if not _fits(task, members, config) or 3 * batch > len(task.examples):
                continue
            each = measure(task, members, config, options.seconds, options.longest)
            if each is not None:
                found[members, width, batch].append(each / batch * EPOCH_ROWS / members)
    return [_point(task, *place, tuple(rounds)) for place, rounds in found.items()]


def _places(options: argparse.Namespace) -> Iterator[tuple[int, int, int]]:
    for batch, width, members in product(
        *(map(int, text.split(",")) for text in (options.batches, options.widths, options.members))
    ):
        yield members, width, batch


def _config(width: int, batch: int) -> TrialConfig:
    return TrialConfig(
        model=MlpConfig(widths=(width, width), batch_norm=True, dropout=0.2),
        optimizer=OptimizerConfig(name="adam", lr=1e-3),
        batch_size=batch,
    )


def _fits(task: Task, members: int, config: TrialConfig) -> bool:
    each = member_bytes(config, task.shape, task.outputs)
    return members * each <= limits(task.examples.device, members).memory


def _point(task: Task, members: int, width: int, batch: int, rounds: tuple[float, ...]) -> Point:
    features, classes = task.examples.features, task.outputs
    return Point(
        members=members,
        width=width,
        batch=batch,
        seconds=median(rounds) if rounds else None,
        rounds=rounds,
        memory=members * member_bytes(_config(width, batch), task.shape, classes),
        parameters=features * width + width * width + 4 * width + (width + 1) * classes,
    )


def _print(points: Sequence[Point], options: argparse.Namespace) -> None:
    """A table for each batch size: widths downwards, members to the right."""
    members = list(dict.fromkeys(point.members for point in points))
    for batch in dict.fromkeys(point.batch for point in points):
        print(f"\nbatch {batch}\n\n| width | {' | '.join(map(str, members))} |")
        print("|---" * (len(members) + 1) + "|")
        for width in dict.fromkeys(point.width for point in points):
            row = [p.seconds for p in points if (p.width, p.batch) == (width, batch)]
            fastest = min((seconds for seconds in row if seconds is not None), default=None)
            print(f"| {width} | {' | '.join(_cell(seconds, fastest) for seconds in row)} |")
    print(
        f"\nSeconds of an epoch of {EPOCH_ROWS:,} rows for one member, by the number of members; "
        f"the least of a row is bold, - did not fit. Median of n = {options.rounds} rounds of "
        f"{options.seconds} s, on {options.device}, {options.threads} threads."
    )


def _cell(seconds: float | None, fastest: float | None) -> str:
    if seconds is None:
        return "-"
    return f"**{seconds:.3g}**" if seconds == fastest else f"{seconds:.3g}"


def _text(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
