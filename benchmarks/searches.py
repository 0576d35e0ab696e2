"""Whole searches by the command line: how long `hpo optimize` takes from its start to its end.

`python -m benchmarks searches` runs 100 trials of `mnist` and of `fashion_mnist` with every
default, each in a folder, a database and a state of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from hpo import studies
from hpo.data import fetch
from hpo.definition import load_definition

__all__ = ["Search", "environment", "searched"]

_GOALS = {"mnist": "4 min", "fashion_mnist": "6 min"}
# Everybody has their own defaults here, whatever the shell of whoever measures says.
_LEFT_OUT = ("HPO_STORAGE", "HPO_STATE", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Search:
    """A search that is over.

    Attributes:
        name: of the study in its database.
        began: the moment of the command's start, in seconds since 1970.
        seconds: from its start to its end.
        url: of its database, for as long as the folder is there.
        status: what `hpo status --format json` says.
    """

    name: str
    began: float
    seconds: float
    url: str
    status: dict[str, Any]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks searches")
    parser.add_argument("--studies", default="mnist,fashion_mnist")
    parser.add_argument("--trials", type=int, help="those of the study if left out")
    parser.add_argument("--seeds", type=int, default=1, help="0, 1, ...; so many searches each")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args(arguments)
    print("| study | seed | trials | wall time, s | goal | complete | pruned | failed | best, % |")
    print("|---|---|---|---|---|---|---|---|---|")
    for study in options.studies.split(","):
        for seed in range(options.seeds):
            with searched(study, seed, options.trials, options.overrides) as search:
                _print(search, seed)
    print("\nThe best is the largest validation accuracy of a trial. n = 1 a row.")


def _print(search: Search, seed: int) -> None:
    status = search.status
    counts = [status[key] for key in ("complete", "pruned", "failed")]
    value = status["best_value"]
    cells = [
        *(search.name, seed, status["finished"], f"{search.seconds:.1f}"),
        *(_GOALS.get(search.name, ""), *counts, "" if value is None else f"{value * 100:.2f}"),
    ]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


@contextmanager
def searched(
    study: str, seed: int, trials: int | None = None, overrides: Sequence[str] = ()
) -> Iterator[Search]:
    """Search a study by the command; its database is there until the block is left.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    path = studies.find(study).resolve()
    definition = load_definition(path)
    fetch(definition.dataset.name)  # no download is timed
    budget = [] if trials is None else ["--trials", str(trials)]
    changes = [word for override in overrides for word in ("--set", override)]
    with tempfile.TemporaryDirectory(prefix="hpo-search-") as folder:
        words = ("optimize", "--study", str(path), "--seed", str(seed), *budget, *changes)
        began, start = time.time(), time.perf_counter()
        _hpo(folder, *words, "--quiet")
        seconds = time.perf_counter() - start
        status = json.loads(_hpo(folder, "status", "--study", definition.name, "--format", "json"))
        yield Search(definition.name, began, seconds, f"sqlite:///{folder}/hpo.db", status)


def environment(**extra: str) -> dict[str, str]:
    """For a process that is to have its own defaults, and to find this package and hpo."""
    kept = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **extra}


def _hpo(folder: str, *words: str) -> str:
    """What a command of hpo writes to stdout; warnings and errors are seen as they come."""
    child = subprocess.run(
        [sys.executable, "-m", "hpo", *words],
        cwd=folder,
        env=environment(HPO_STATE=str(Path(folder) / "state")),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return child.stdout
