"""Rows trained per second: populations, a hand-written loop, and the public tutorials' loop.

All train 784-256-256-10 with batch norm, dropout 0.2 and Adam, batch 128, on rows of
Fashion-MNIST. The tutorials' loop is in `tutorial.py`. The hand-written loop is what a careful
person writes: no DataLoader, everything in memory, `Adam(fused=True)`. Every side runs in the same
number of processes, which start together and have one thread each, and the sides take turns, so
that a slow moment of the machine hits all. A round before the first is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

import torch

from benchmarks.processes import ROOT, environment
from benchmarks.sides import LOOP, TUTORIAL, population_name
from benchmarks.spread import median_and_range, ratios
from benchmarks.tutorial import BATCH

__all__ = ["check_device", "main", "parser_of"]

_ROWS = 50_000
_ROUNDS = 5
_MEMBERS = "1,2,4,8,16"


def main(arguments: Sequence[str] = ()) -> None:
    options = _options(arguments)
    populations = [
        (int(members), precision)
        for precision in options.precisions.split(",")
        for members in options.members.split(",")
    ]
    sides = {TUTORIAL: 1, LOOP: 1}
    sides |= {population_name(*one): one[0] for one in populations}
    rows = options.rows // BATCH * BATCH
    with _Fleet(list(sides), rows, options) as fleet:
        fleet.wait()
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for counted in range(-1, options.rounds):
            for number, (name, members) in enumerate(sides.items()):
                rate = rows * members * options.processes / fleet.seconds(number)
                if counted >= 0:
                    rates[name].append(rate)
    _print(rates)
    print(
        f"\nMedian of n = {options.rounds} epochs of {rows:,} rows of {options.dataset} on "
        f"{options.device}, in {options.processes} processes at once with {options.threads} "
        "thread each; from the start to the end of the slowest."
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_of("rate")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--members", default=_MEMBERS)
    parser.add_argument("--processes", type=int, help="2; on a GPU 1")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.rows < BATCH:
        parser.error(f"--rows: a batch has {BATCH} rows; ask for as many or more")
    check_device(options.device)
    if options.processes is None:
        options.processes = 1 if options.device.startswith("cuda") else 2
    return options


def parser_of(name: str) -> argparse.ArgumentParser:
    """Options of a benchmark that trains the same network: on what, where, and in what."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}")
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--precisions", default="float32", help="float32,bfloat16 has both")
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def check_device(name: str) -> None:
    """End with exit code 2 and a sentence where there is no such device."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        print("there is no GPU on this machine, or torch sees none", file=sys.stderr)
        sys.exit(2)


class _Fleet:
    """Processes that have built the same sides and train them at the same time."""

    def __init__(self, names: Sequence[str], rows: int, options: argparse.Namespace) -> None:
        threads = str(options.threads)
        command = [
            *(sys.executable, "-m", "benchmarks.sides", "--sides", "\n".join(names)),
            *("--dataset", options.dataset, "--rows", str(rows)),
            *("--device", options.device, "--threads", threads),
        ]
        own = environment(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        self._processes = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(options.processes)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            _stream(process.stdin).close()
            if error is not None:
                process.kill()
            process.wait()
            _stream(process.stdout).close()

    def wait(self) -> None:
        """Until every process has built its sides."""
        for process in self._processes:
            _answer(process)

    def seconds(self, side: int) -> float:
        """How long the slowest process took for an epoch; all begin at once."""
        for process in self._processes:
            print(side, file=_stream(process.stdin), flush=True)
        return max(float(_answer(process)) for process in self._processes)


def _answer(process: subprocess.Popen[str]) -> str:
    line = _stream(process.stdout).readline()
    if not line:
        raise RuntimeError(f"a process of the benchmark ended with {process.wait()}")
    return line


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _print(rates: dict[str, list[float]]) -> None:
    print(
        f"| | rows x members a second | over {TUTORIAL} (min to max) | over the {LOOP} "
        "(min to max) |"
    )
    print("|---|---|---|---|")
    for name, found in rates.items():
        over = " | ".join(
            median_and_range(ratios(found, rates[base])) for base in (TUTORIAL, LOOP)
        )
        print(f"| {name} | {statistics.median(found):,.0f} | {over} |")
