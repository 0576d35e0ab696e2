"""What a second worker gains over one, beside what a second process of plain products gains.

The machine's cores are not always its own: a virtual machine's second core may bring 1.5 or 1.9 of
the first. So both gains are measured in turns, in one run. A worker has one thread here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

from benchmarks.processes import environment
from benchmarks.spread import median_and_range, ratios

_REPEATS = 3
_TRIALS = 48
_STUDY = """
dataset: {name: fashion_mnist}
model: {mlp: {widths: [256, 128]}}
optimizer: {adam: {lr: {float: [1.0e-4, 1.0e-2], log: true}}}
training: {batch_size: 128, epochs: 2}
search: {pruner: none}
"""
_PRODUCTS = """
import time, torch
torch.set_num_threads(1)
left, right, out = torch.randn(128, 784), torch.randn(784, 2048), torch.empty(128, 2048)
end, done = time.perf_counter() + 12, 0
while time.perf_counter() < end:
    torch.mm(left, right, out=out)
    done += 1
print(done)
"""


def main() -> None:
    """Print both gains, and their ratio."""
    hpo_gains, product_gains = [], []
    for _ in range(_REPEATS):  # in turn, so that a slow moment hits both
        product_gains.append(_products(2) / _products(1))
        hpo_gains.append(_trials_a_minute(2) / _trials_a_minute(1))
    over = ratios(hpo_gains, product_gains)
    print("| | gain of two over one (min to max) |")
    print("|---|---|")
    print(f"| plain matrix products, processes | {median_and_range(product_gains)} |")
    print(f"| trials a minute, workers | {median_and_range(hpo_gains)} |")
    print(f"| the second over the first | {median_and_range(over)} |")
    print(
        f"\nMedian of n = {_REPEATS}. {_TRIALS} trials of 784-256-128-10 on Fashion-MNIST, 2 "
        "epochs each, SQLite, timed from the first trial's start to the last one's end."
    )


def _products(processes: int) -> float:
    command = [sys.executable, "-c", _PRODUCTS]
    running = [
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate()[0]) for process in running)


def _trials_a_minute(workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "gain.yaml").write_text(_STUDY)
        subprocess.run(
            [
                *(sys.executable, "-m", "hpo", "optimize", "--study", "gain.yaml", "--quiet"),
                *("--trials", str(_TRIALS), "--workers", str(workers), "--population", "8"),
            ],
            cwd=folder,
            env=environment(HPO_STATE=str(Path(folder) / "state")),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        study = optuna.load_study(study_name="gain", storage=f"sqlite:///{folder}/hpo.db")
        starts = [trial.datetime_start for trial in study.trials if trial.datetime_start]
        ends = [trial.datetime_complete for trial in study.trials if trial.datetime_complete]
        return _TRIALS / (max(ends) - min(starts)).total_seconds() * 60
