"""Searches as they were: finished trials in the order in which they ended.

`stock` searches a study's space with Optuna as it comes and a plain torch loop, in a process of
its own: `python -m benchmarks.search_runs --study studies/digits.yaml --sampler tpe`. It prints
the run as JSON. `hpo` runs `hpo optimize` and reads the run out of its database.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState
from torch.nn import functional

from benchmarks import tutorial
from benchmarks.processes import output_of
from hpo import space
from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.definition import load_definition
from hpo.models.mlp import Mlp, initial_state
from hpo.training.population import EVALUATION_ROWS
from hpo.training.schedules import rate_factor
from hpo.training.streams import Stream, derive_seed
from hpo.training.task import Split, prepare

__all__ = ["NAME", "Run", "hpo", "optimize", "run_of", "stock"]

NAME = "run"
"""What a search of `optimize` is called in its database."""

Run = list[tuple[float, float | None]]
"""For each finished trial, in order: seconds since the first trial began, and the best value that
it reported, if it reported one."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


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
        url = optimize(study, folder, seed, changes, "--population", population, *bounds)
        return run_of(optuna.load_study(study_name=NAME, storage=url))


def optimize(study: Path, folder: str, seed: int, changes: Sequence[str], *options: str) -> str:
    """Search by `hpo optimize` with one thread, in a folder of its own, as the study `NAME`.

    Returns:
        The database's URL.
    """
    url = f"sqlite:///{folder}/hpo.db"
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
    return [(moment, value) for moment, value in json.loads(told)]


def _settings(changes: Sequence[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def run_of(study: optuna.Study) -> Run:
    """What a study's finished trials came to; the metric is accuracy."""
    trials = study.get_trials(deepcopy=False)
    start = min(trial.datetime_start for trial in trials if trial.datetime_start)
    ended = [
        ((trial.datetime_complete - start).total_seconds(), _best(trial))
        for trial in trials
        if trial.state in _FINISHED and trial.datetime_complete
    ]
    return sorted(ended, key=lambda entry: entry[0])


def _best(trial: optuna.trial.FrozenTrial) -> float | None:
    values = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return max(values, default=None)


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

    def objective(trial: optuna.Trial) -> float:
        return _train(trial, space.draw(definition, trial), data, options.seed)

    search.optimize(objective, options.trials, timeout=options.seconds)
    print(json.dumps(run_of(search)))


def _train(trial: optuna.Trial, config: TrialConfig, data: Split, seed: int) -> float:
    """Train one network and report every epoch; returns the best accuracy."""
    task = data.task
    torch.manual_seed(derive_seed(seed, trial.number))
    assert isinstance(config.model, MlpConfig)
    model = Mlp(config.model, task.examples.features, task.classes)
    state = initial_state(
        config.model, task.examples.features, task.classes, torch.default_generator
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
        trial.report(accuracy, epoch)
        if accuracy > best:
            best, best_epoch = accuracy, epoch
        if not math.isfinite(loss) or trial.should_prune():
            raise optuna.TrialPruned
        if config.patience is not None and epoch - best_epoch >= config.patience:
            break
    return best


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
