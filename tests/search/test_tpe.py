"""The bounded TPE against Optuna's own, draw by draw."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import TrialState

from hpo.search import tpe
from hpo.search.history import history_of
from hpo.search.records import SURPLUS
from hpo.search.tpe import WindowedTpe

STARTUP = 10


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def stock(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP,
            seed=seed,
        )


def fixed_to(sampler: BaseSampler) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PartialFixedSampler({"batch": 32}, sampler)


def network(trial: optuna.Trial) -> float:
    """The shape of hpo's spaces: every kind of range, depth and optimizer as conditions."""
    layers = trial.suggest_int("layers", 1, 3)
    widths = [trial.suggest_int(f"width_{i}", 16, 512, log=True) for i in range(layers)]
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    batch = trial.suggest_categorical("batch", [16, 32, 64])
    cost = (layers - 2) ** 2 / 4 + (dropout - 0.2) ** 2 + abs(math.log2(batch) - 5) / 8
    cost += sum(math.log(width / 100) ** 2 for width in widths) / layers / 4
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "adam":
        lr = trial.suggest_float("adam.lr", 1e-4, 1e-1, log=True)
        return cost + math.log10(lr / 3e-3) ** 2 / 4
    lr = trial.suggest_float("sgd.lr", 1e-3, 1.0, log=True)
    momentum = trial.suggest_float("sgd.momentum", 0.0, 0.95, step=0.05)
    return cost + 0.1 + (math.log10(lr / (0.3 * (1 - momentum) + 1e-3))) ** 2 / 4


def search(
    sampler_of: Any,
    trials: int,
    direction: str = "minimize",
    side_by_side: int = 1,
    failing: bool = False,
) -> optuna.Study:
    """Trials with samplers of their own; one in three is pruned; one in eleven may fail."""
    way = optuna.study.StudyDirection[direction.upper()]
    study = optuna.create_study(direction=way, sampler=sampler_of(0))
    sign = 1 if direction == "minimize" else -1
    for first in range(0, trials, side_by_side):
        running = []
        for number in range(first, first + side_by_side):
            study.sampler = sampler_of(number)
            trial = study.ask()
            running.append((trial, sign * network(trial)))
        for trial, value in reversed(running):
            trial.report(value, 1 + trial.number % 4)
            state = TrialState.COMPLETE
            if trial.number % 3 == 2:
                state = TrialState.PRUNED
            elif failing and trial.number % 11 == 10:
                state = TrialState.FAIL
            study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    return study


def params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("side_by_side", [1, 5])
def test_up_to_the_window_the_draws_are_stock_optunas(direction: str, side_by_side: int) -> None:
    ours = search(
        lambda n: WindowedTpe(seed=n, startup_trials=STARTUP), 60, direction, side_by_side
    )
    theirs = search(stock, 60, direction, side_by_side)
    assert params(ours) == params(theirs)


def test_with_a_fixed_parameter_the_draws_are_stock_optunas() -> None:
    ours = search(lambda n: fixed_to(WindowedTpe(seed=n, startup_trials=STARTUP)), 30)
    theirs = search(lambda n: fixed_to(stock(n)), 30)
    assert params(ours) == params(theirs)
    assert {trial.params["batch"] for trial in ours.trials} == {32}


def test_beyond_the_window_the_best_stay_and_old_others_go() -> None:
    study = search(lambda n: WindowedTpe(seed=n, startup_trials=STARTUP), 90)
    history = history_of(study)
    chosen = [trial.number for trial in tpe._considered(study, history, 40)]
    assert chosen == sorted(set(chosen))
    counted = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    complete = [t for t in counted if t.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda t: (t.value, t.number))[:25]
    newest = counted[-40:]
    assert chosen == sorted({t.number for t in (*best, *newest)})
    assert len(chosen) < len(counted)
    # What Optuna calls `below` is the same of the chosen as of all.
    everything = tpe._considered(study, history, 10_000)
    assert [trial.number for trial in everything] == [trial.number for trial in counted]
    splits = [
        optuna.samplers._tpe.sampler._split_trials(study, trials, 25)[0]
        for trials in (tpe._considered(study, history, 40), everything)
    ]
    assert splits[0] == splits[1] != []


def fragile(sampler_of: Any, trials: int) -> optuna.Study:
    """Networks that diverge at rates a little above the best."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = sampler_of(number)
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        width = trial.suggest_int("width", 16, 512, log=True)
        value = -(math.log10(lr / 0.25) ** 2) - math.log10(width / 128) ** 2
        if lr > 0.3:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)
    return study


def test_what_fails_is_not_drawn_again_and_again() -> None:
    def failed(sampler_of: Any) -> int:
        states = [trial.state for trial in fragile(sampler_of, 60).trials]
        return states.count(TrialState.FAIL)

    ours = [failed(lambda n, s=s: WindowedTpe(seed=s + n, startup_trials=10)) for s in (0, 1000)]
    theirs = [failed(lambda n, s=s: stock(s + n)) for s in (0, 1000)]
    assert sum(ours) <= 0.7 * sum(theirs)


def test_failed_trials_repel_and_count_for_nothing_else() -> None:
    study = search(stock, 33, failing=True)
    surplus = study.ask()
    network(surplus)
    numbers = [t.number for t in study.trials if t.state == TrialState.FAIL]
    study._storage.set_trial_user_attr(surplus._trial_id, SURPLUS, "its worker was replaced")
    study.tell(surplus, state=TrialState.FAIL)
    chosen = {trial.number: trial for trial in tpe._considered(study, history_of(study), 250)}
    assert numbers == [10, 21]
    assert surplus.number not in chosen
    assert {chosen[number].state for number in numbers} == {TrialState.RUNNING}
    assert [study.trials[n].state for n in numbers] == [TrialState.FAIL] * 2
    # Ten that failed are no start: the next is drawn at random, as stock would.
    fresh = optuna.create_study(sampler=WindowedTpe(seed=0, startup_trials=STARTUP))
    for _ in range(STARTUP):
        trial = fresh.ask()
        network(trial)
        fresh.tell(trial, state=TrialState.FAIL)
    assert fresh.ask().relative_params == {}


def test_running_trials_count_however_old() -> None:
    study = search(stock, 40)
    old = study.ask()
    network(old)
    for number in range(50):
        study.add_trial(optuna.trial.create_trial(value=float(number)))
    chosen = tpe._considered(study, history_of(study), 20)
    assert old.number in [trial.number for trial in chosen]


def test_pruned_trials_fill_up_the_best_in_optunas_order() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    reports: list[dict[int, float]] = [
        {1: 0.9}, {1: 0.1, 3: 0.2}, {1: 0.2, 3: 0.4}, {}, {2: math.nan}, {2: 0.3}, {3: 0.4}
    ]  # fmt: skip
    for values in reports:
        study.add_trial(
            optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values=values)
        )
    best = history_of(study).index(tpe._Best, True).trials()
    assert [trial.number for trial in best] == [0, 3, 7, 2, 6, 5, 1, 4]
    for count in range(1, 9):
        below, _ = optuna.samplers._tpe.sampler._split_trials(study, study.trials, count)
        assert {trial.number for trial in below} == {trial.number for trial in best[:count]}


def test_a_rare_parameter_is_still_drawn_jointly_when_its_trials_are_old() -> None:
    study = search(stock, 30)
    rare = optuna.distributions.FloatDistribution(0, 1)
    study.add_trial(
        optuna.trial.create_trial(value=9.0, params={"rare": 0.5}, distributions={"rare": rare})
    )
    for _ in range(60):
        study.add_trial(optuna.trial.create_trial(value=5.0))
    study.sampler = WindowedTpe(seed=1, startup_trials=STARTUP, window=20)
    assert "rare" in study.ask().relative_params


def test_no_more_is_below_in_optuna_than_is_kept() -> None:
    gamma = optuna.samplers._tpe.sampler.default_gamma
    assert gamma(10**6) == gamma(tpe.WINDOW) == tpe._MOST_BELOW


def test_an_optuna_without_the_private_name_reads_everything(monkeypatch: Any) -> None:
    """Then a draw is slow, and stock."""
    monkeypatch.delattr(tpe._Past, "_get_trials")
    ours = search(lambda n: WindowedTpe(seed=n, startup_trials=STARTUP, window=12), 30)
    assert params(ours) == params(search(stock, 30))


DISTRIBUTIONS: list[BaseDistribution] = [
    FloatDistribution(-3.0, 7.0),
    FloatDistribution(1e-5, 1.0, log=True),
    FloatDistribution(0.0, 0.95, step=0.05),
    IntDistribution(1, 4),
    IntDistribution(16, 1024, log=True),
    IntDistribution(0, 100, step=10),
    CategoricalDistribution(["a", "b", "c"]),
]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), spread=st.sampled_from([1e-3, 1]))
def test_the_density_is_optunas(seed: int, count: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    space = {str(place): one for place, one in enumerate(DISTRIBUTIONS)}
    parameters = stock(0)._parzen_estimator_parameters
    observations = {name: internal(one, rng, count, spread) for name, one in space.items()}
    samples = {name: internal(one, rng, 24, 1.0) for name, one in space.items()}
    ours = tpe._Density(observations, space, parameters)
    theirs = _ParzenEstimator(observations, space, parameters)
    assert ours.log_pdf(samples) == pytest.approx(theirs.log_pdf(samples), rel=1e-9, abs=1e-9)
    one, other = (np.random.RandomState(seed % 1000) for _ in range(2))
    drawn, expected = ours.sample(one, 24), theirs.sample(other, 24)
    assert all((drawn[name] == expected[name]).all() for name in space)


def internal(
    distribution: BaseDistribution, rng: np.random.Generator, count: int, spread: float
) -> np.ndarray:
    """Values in Optuna's own representation, in a part of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return rng.integers(len(distribution.choices), size=count).astype(float)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        values = np.exp(rng.uniform(np.log(low), np.log(low) + spread * np.log(high / low), count))
    else:
        values = rng.uniform(low, low + spread * (high - low), count)
    if distribution.step is not None:
        values = low + np.round((values - low) / distribution.step) * distribution.step
    return np.clip(values, low, high)


@pytest.mark.slow
def test_far_beyond_the_window_the_search_is_as_good_as_stock(monkeypatch: Any) -> None:
    """At a fifth of the size, so that stock takes seconds: 50 trials, and a best share of 5."""
    monkeypatch.setattr(tpe, "_MOST_BELOW", 5)
    ours = [best_of(lambda n: WindowedTpe(seed=n, startup_trials=10, window=50), s) for s in SEEDS]
    theirs = [best_of(stock, seed) for seed in SEEDS]
    random = [best_of(lambda n: RandomSampler(seed=n), seed) for seed in SEEDS]
    expected = statistics.median(theirs) + statistics.stdev(theirs)
    assert statistics.median(ours) <= expected < statistics.median(random)


SEEDS = range(5)


def best_of(make: Any, seed: int) -> float:
    def sampler(number: int) -> BaseSampler:
        made: BaseSampler = make(seed * 10_000 + number)
        if isinstance(made, TPESampler):
            made._gamma = lambda n: min(math.ceil(0.1 * n), 5)
        return made

    return search(sampler, 200).best_value
