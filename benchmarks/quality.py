"""Search quality: the best validation accuracy by finished trials and by seconds, four ways.

All search the same space for the same metric on the same rows, in a process of one thread each:

- `random`: Optuna's `RandomSampler`, no pruner, a plain torch loop over tensors, one trial at a
  time. (Optuna's and not hpo's, so that its seconds are those of the plain loop as well.)
- `optuna`: `TPESampler()` and `MedianPruner()` with every default, in the same loop.
- `hpo, one`: `hpo optimize --population 1`.
- `hpo, auto`: `hpo optimize`, with as many side by side as it chooses.

By trials, the best of the first so many counts, about what a search with such a budget ends with:
trials that train side by side end in an order that says little, the pruned ones first.
By seconds, every value counts from the moment of its report, whether its trial has ended or goes
on; below that stands the best of those trials only that had ended. The clock starts with the first
trial. Seeds are the study's: other rows held out, other draws. Runs
are put down in `--out FOLDER` as they end, and those that are there already are not run again, so
a long measurement can be done in pieces; another version of hpo starts with an empty folder.
`--datasets digits --seeds 2 --trials 4` does less; `--contestants "hpo, one;hpo, 8"` takes any
number for `--population`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import quality_tables, search_runs
from benchmarks.processes import side_by_side
from benchmarks.quality_tables import CONTESTANTS, Runs

_SEEDS = {"digits": 10, "fashion_mnist": 3}
_OTHER_SEEDS = 3


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks quality")
    parser.add_argument("--datasets", default=",".join(_SEEDS), help="names in studies/")
    parser.add_argument("--seeds", type=int, help="10 of digits, 3 of others, if left out")
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=900.0, help="the most of a search")
    parser.add_argument("--contestants", default=";".join(CONTESTANTS), help="separated by ;")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/plots"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "quality.jsonl"
    jobs = [_job(options, *which) for which in _order(options)]
    done = _read(kept)
    missing = [job for job in jobs if _name(job) not in done]
    side_by_side([partial(_run, job, kept) for job in missing], options.at_once)
    done = _read(kept)
    for dataset in options.datasets.split(","):
        runs: Runs = {}
        for job in jobs:
            if job["dataset"] == dataset:
                runs.setdefault(job["contestant"], []).append(done[_name(job)])
        print(f"\n### {dataset}\n")
        quality_tables.show(runs, options.trials)
        written = quality_tables.plot(runs, dataset, options.out)
        print(f"\nWritten: {', '.join(map(str, written))}")


def _order(options: argparse.Namespace) -> list[tuple[str, int, str]]:
    """Dataset, seed and contestant of every run; who is first changes from seed to seed."""
    contestants = options.contestants.split(";")
    order = []
    for dataset in options.datasets.split(","):
        for seed in range(options.seeds or _SEEDS.get(dataset, _OTHER_SEEDS)):
            first = seed % len(contestants)
            turned = contestants[first:] + contestants[:first]
            order += [(dataset, seed, contestant) for contestant in turned]
    return order


def _job(options: argparse.Namespace, dataset: str, seed: int, contestant: str) -> dict[str, Any]:
    """All that a run depends on."""
    return {
        "dataset": dataset,
        "seed": seed,
        "contestant": contestant,
        "trials": options.trials,
        "seconds": options.seconds,
        "changes": options.changes,
    }


def _name(job: dict[str, Any]) -> str:
    return json.dumps(job, sort_keys=True)


def _run(job: dict[str, Any], kept: Path) -> None:
    """Run a search and put it down."""
    study = Path("studies") / f"{job['dataset']}.yaml"
    search: Callable[..., search_runs.Run]
    search, how = {
        "random": (search_runs.stock, "random"),
        "optuna": (search_runs.stock, "tpe"),
        "hpo, one": (search_runs.hpo, "1"),
    }.get(job["contestant"]) or (search_runs.hpo, job["contestant"].removeprefix("hpo, "))
    run = search(study, job["seed"], job["trials"], job["seconds"], how, job["changes"])
    line = json.dumps({"job": job, "run": [asdict(trial) for trial in run]})
    with kept.open("a") as file:
        file.write(line + "\n")


def _read(kept: Path) -> dict[str, search_runs.Run]:
    if not kept.exists():
        return {}
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    return {_name(row["job"]): search_runs.run_from(row["run"]) for row in rows}
