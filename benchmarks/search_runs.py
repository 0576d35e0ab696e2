"""Searches as they were: what each trial reported, and when.

`stock` searches a study's space with Optuna as it comes and a plain torch loop, in a process of
its own: `python -m benchmarks.search_runs --study studies/digits.yaml --sampler tpe`. It prints
the run as JSON. `hpo` runs `hpo optimize` on a database that notes the moment of every row, and
reads the run out of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from torch.nn import functional

from benchmarks import tutorial
from benchmarks.processes import output_of
from hpo import space
from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.definition import load_definition
from hpo.models.mlp import Mlp, initial_state
from hpo.search.storage import open_storage
from hpo.training.population import EVALUATION_ROWS
from hpo.training.schedules import rate_factor
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import Split, prepare

__all__ = ["NAME", "Run", "TrialRun", "hpo", "optimize", "run_from", "stock"]

NAME = "run"
"""What a search of `optimize` is called in its database."""


@dataclass(frozen=True)
class TrialRun:
    """One trial; moments are seconds since the first trial of its search began.

    Attributes:
        ended: None for one that was in training when the search was stopped.
        reports: moment and value of every epoch, in their order.
    """

    began: float
    ended: float | None
    reports: tuple[tuple[float, float], ...]


Run = list[TrialRun]
"""The trials of a search by number."""

_NOTES = """
CREATE TABLE noted (
    what TEXT,
    trial_id INTEGER,
    value REAL,
    moment REAL DEFAULT ((julianday('now') - 2440587.5) * 86400.0)
);
CREATE TRIGGER note_begin AFTER INSERT ON trials
BEGIN INSERT INTO noted (what, trial_id) VALUES ('began', NEW.trial_id); END;
CREATE TRIGGER note_report AFTER INSERT ON trial_intermediate_values
BEGIN INSERT INTO noted (what, trial_id, value)
VALUES ('reported', NEW.trial_id, NEW.intermediate_value); END;
CREATE TRIGGER note_end AFTER UPDATE OF state ON trials
WHEN NEW.state IN ('COMPLETE', 'PRUNED', 'FAIL')
BEGIN INSERT INTO noted (what, trial_id) VALUES ('ended', NEW.trial_id); END;
"""


def hpo(
    study: Path, seed: int, trials: int, seconds: float, population: str, changes: Sequence[str]
) -> Run:
    """Search by `hpo optimize`, one worker, one thread.

    Args:
        seconds: the search stops then.
        changes: `key=value` each, as `--set` takes them.
    """
    with tempfile.TemporaryDirectory(prefix="hpo-search-") as folder:
        bounds = ("--trials", str(trials), "--timeout", str(seconds))
        open_storage(_url(folder)).close()
        with contextlib.closing(sqlite3.connect(_file(folder))) as database:
            database.executescript(_NOTES)
        optimize(study, folder, seed, changes, "--population", population, *bounds)
        with contextlib.closing(sqlite3.connect(_file(folder))) as database:
            return _noted(database)


def optimize(study: Path, folder: str, seed: int, changes: Sequence[str], *options: str) -> str:
    """Search by `hpo optimize` with one thread, in a folder of its own, as the study `NAME`.

    Returns:
        The database's URL.
    """
    url = _url(folder)
    output_of(
        [
            *(sys.executable, "-m", "hpo", "optimize", "--study", str(study.resolve())),
            *("--name", NAME, "--seed", str(seed), "--quiet", *options, *_settings(changes)),
        ],
        folder=folder,
        HPO_STATE=f"{folder}/state",
        HPO_STORAGE=url,
    )
    return url


def stock(
    study: Path, seed: int, trials: int, seconds: float, sampler: str, changes: Sequence[str]
) -> Run:
    """Search by stock Optuna, one thread.

    Args:
        sampler: `tpe`, with the median pruner, both with every default; or `random`, without.
    """
    told = output_of(
        [
            *(sys.executable, "-m", "benchmarks.search_runs", "--study", str(study)),
            *("--seed", str(seed), "--trials", str(trials), "--seconds", str(seconds)),
            *("--sampler", sampler, *_settings(changes)),
        ]
    )
    return run_from(json.loads(told))


def _settings(changes: Sequence[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def run_from(rows: list[dict[str, Any]]) -> Run:
    """A run out of what `asdict` made of its trials, once that has been JSON."""
    return [
        TrialRun(row["began"], row["ended"], tuple((at, value) for at, value in row["reports"]))
        for row in rows
    ]


def _url(folder: str) -> str:
    return f"sqlite:///{_file(folder)}"


def _file(folder: str) -> str:
    return f"{folder}/hpo.db"


def _noted(database: sqlite3.Connection) -> Run:
    """What the database noted."""
    trials: dict[int, TrialRun] = {}
    start = None
    for what, trial_id, value, moment in database.execute("SELECT * FROM noted ORDER BY rowid"):
        start = moment if start is None else start
        at = moment - start
        if what == "began":
            trials[trial_id] = TrialRun(at, None, ())
        elif what == "ended":
            trials[trial_id] = replace(trials[trial_id], ended=at)
        elif value is not None:  # it is finite
            known = trials[trial_id]
            trials[trial_id] = replace(known, reports=(*known.reports, (at, value)))
    return [trials[trial_id] for trial_id in sorted(trials)]


# --- stock Optuna, in a process of its own


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_runs")
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--sampler", choices=("tpe", "random"), required=True)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    definition = load_definition(options.study, [*options.changes, f"search.seed={options.seed}"])
    assert definition.search.metric == "accuracy"
    data = prepare(definition)
    torch.set_num_threads(1)
    search = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=options.seed)
        if options.sampler == "tpe"
        else optuna.samplers.RandomSampler(seed=options.seed),
        pruner=optuna.pruners.MedianPruner()
        if options.sampler == "tpe"
        else optuna.pruners.NopPruner(),
    )

    run: Run = []
    start = time.monotonic()

    def objective(trial: optuna.Trial) -> float:
        began = time.monotonic() - start
        reports: list[tuple[float, float]] = []

        def report(value: float, epoch: int) -> None:
            trial.report(value, epoch)
            reports.append((time.monotonic() - start, value))

        try:
            _train(trial, space.draw(definition, trial), data, options.seed, report)
            return max(value for _, value in reports)
        finally:
            run.append(TrialRun(began, time.monotonic() - start, tuple(reports)))

    search.optimize(objective, options.trials, timeout=options.seconds)
    print(json.dumps([asdict(trial) for trial in run]))


def _train(
    trial: optuna.Trial,
    config: TrialConfig,
    data: Split,
    seed: int,
    report: Callable[[float, int], None],
) -> None:
    """Train one network and report the accuracy after every epoch."""
    task = data.task
    torch.manual_seed(derive_seed(seed, trial.number))
    assert isinstance(config.model, MlpConfig)
    model = Mlp(config.model, task.examples.features, task.outputs)
    state = initial_state(
        config.model, task.examples.features, task.outputs, torch.default_generator
    )
    model.load_state_dict(state, strict=False)
    optimizer = _optimizer(config.optimizer, model)
    stream = Stream(data.training, config.batch_size, seed, number=trial.number)
    best, best_epoch = 0.0, 0
    for epoch in range(1, config.epochs + 1):
        loss = _train_epoch(model, optimizer, config, stream, epoch - 1, data)
        held_out = task.examples.batches(
            data.validation[0], task.normalization, torch.float32, EVALUATION_ROWS
        )
        accuracy = tutorial.accuracy(model, held_out, task.examples.device)
        report(accuracy, epoch)
        if accuracy > best:
            best, best_epoch = accuracy, epoch
        if not math.isfinite(loss) or trial.should_prune():
            raise optuna.TrialPruned
        if config.patience is not None and epoch - best_epoch >= config.patience:
            break


def _train_epoch(
    model: Mlp,
    optimizer: torch.optim.Optimizer,
    config: TrialConfig,
    stream: Stream,
    epoch: int,
    data: Split,
) -> float:
    """Returns the mean loss."""
    task = data.task
    model.train()
    total = torch.zeros(())
    generator = stream.augmentation(epoch)
    for step, index in enumerate(stream.epoch(epoch), start=epoch * stream.batches):
        features, labels = task.examples.batch(
            index, task.normalization, torch.float32, task.augmentations, generator
        )
        factor = rate_factor(config.schedule, step, stream.batches, config.epochs)
        optimizer.param_groups[0]["lr"] = config.optimizer.lr * factor
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(
            model(features), labels, label_smoothing=config.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
    return total.item() / stream.batches


def _optimizer(config: OptimizerConfig, model: Mlp) -> torch.optim.Optimizer:
    """Torch's own, fused where torch has that."""
    parameters, lr, decay = list(model.parameters()), config.lr, config.weight_decay
    betas, epsilon = (config.beta1, config.beta2), config.epsilon
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr, config.momentum, 0, decay, config.nesterov, fused=True
        )
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr, betas, epsilon, decay, fused=True)
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, lr, betas, epsilon, decay, fused=True)
    if config.name == "nadam":
        return torch.optim.NAdam(parameters, lr, betas, epsilon, decay)
    assert config.name == "rmsprop"
    return torch.optim.RMSprop(
        parameters, lr, config.alpha, epsilon, decay, momentum=config.momentum
    )


if __name__ == "__main__":
    main(sys.argv[1:])
