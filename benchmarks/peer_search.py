"""A process that searches as a peer does, until a moment: Optuna alone, or Ray Tune with two.

`python -m benchmarks.peer_search optuna|ray OPTIONS` appends a line of JSON to `--out` for every
trial that trained to its end or, under Ray, was stopped: `time` (seconds since 1970), `value` (the
validation accuracy that it ended with) and `config`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers

__all__: list[str] = []

_Note = Callable[[Mapping[str, Any], float], None]


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["optuna", "ray"])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--validation", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    work = peers.Work(
        options.dataset, options.validation, options.seed, options.epochs, options.rows
    )

    def note(config: Mapping[str, Any], value: float) -> None:
        line = json.dumps({"time": time.time(), "value": value, "config": dict(config)})
        with options.out.open("a") as lines:
            lines.write(line + "\n")

    search = _optuna if options.peer == "optuna" else _ray
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        search(work, options.until, note, folder)


def _optuna(work: peers.Work, until: float, note: _Note, folder: str) -> None:
    """Optuna's example: TPE and the median pruner with their defaults, SQLite, one process."""
    import optuna

    torch.manual_seed(work.seed)

    def objective(trial: optuna.Trial) -> float:
        config = _suggested(trial)
        value = 0.0
        for epoch, value in enumerate(peers.validation_accuracies(work, config)):
            trial.report(value, epoch)
            if time.time() > until:
                trial.study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned
        note(config, value)
        return value

    study = optuna.create_study(
        storage=f"sqlite:///{folder}/peer.db",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=work.seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(objective, timeout=max(0.0, until - time.time()))


def _suggested(trial: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"n_layers": trial.suggest_int("n_layers", *peers.LAYERS)}
    for layer in range(config["n_layers"]):
        units, dropout = f"n_units_l{layer}", f"dropout_l{layer}"
        config[units] = trial.suggest_int(units, *peers.UNITS)
        config[dropout] = trial.suggest_float(dropout, *peers.DROPOUT)
    config["optimizer"] = trial.suggest_categorical("optimizer", peers.OPTIMIZERS)
    config["lr"] = trial.suggest_float("lr", *peers.RATES, log=True)
    return config


def _ray(work: peers.Work, until: float, note: _Note, folder: str) -> None:
    """Ray's own tutorial: random draws and ASHA with its settings there; a core for each trial."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing of this is told to anybody
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    class Notes(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, trial: Any, **_: Any) -> None:
            if "accuracy" in trial.last_result:
                note(trial.config, trial.last_result["accuracy"])

    def trainable(config: dict[str, Any]) -> None:
        torch.manual_seed(work.seed)
        for value in peers.validation_accuracies(work, config):
            tune.report({"accuracy": value})

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=f"{folder}/ray",
    )
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=_distributions(tune),
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=-1,
            time_budget_s=max(1.0, until - time.time()),
            scheduler=ASHAScheduler(max_t=work.epochs, grace_period=1, reduction_factor=2),
            search_alg=BasicVariantGenerator(random_state=work.seed, max_concurrent=2),
        ),
        run_config=tune.RunConfig(
            storage_path=f"{folder}/results", verbose=0, callbacks=[Notes()]
        ),
    ).fit()
    ray.shutdown()


def _distributions(tune: Any) -> dict[str, Any]:
    """Every layer has its numbers, whether a network has so many or not."""
    most = peers.LAYERS[1]
    low, high = peers.UNITS
    return {
        "n_layers": tune.randint(peers.LAYERS[0], most + 1),
        **{f"n_units_l{layer}": tune.randint(low, high + 1) for layer in range(most)},
        **{f"dropout_l{layer}": tune.uniform(*peers.DROPOUT) for layer in range(most)},
        "optimizer": tune.choice(list(peers.OPTIMIZERS)),
        "lr": tune.loguniform(*peers.RATES),
    }


if __name__ == "__main__":
    _main()
