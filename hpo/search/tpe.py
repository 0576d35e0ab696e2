"""TPE whose cost does not grow with the study.

TPE splits the trials into the best, `below`, and all others, `above`, and draws where the ratio
of their densities is largest (Bergstra et al. 2011). Optuna's `below` is a tenth of the trials
and at most 25, so only `above` grows. There a trial weighs less the older it is, down to 1/n
(Bergstra et al. 2013; Watanabe 2023). Here the old ones of `above` are left out: it
holds the newest `WINDOW` trials. Up to so many finished trials the draws are Optuna's own, but for
what failed.

Optuna forgets a trial that failed. Where networks diverge, at a rate that is a little too high,
nothing then speaks against drawing there again, and next to the best rates the search ends in what
it cannot train: of 50 draws in such a space 46 failed, and 14 so. Here a failed trial repels as it
did while it ran (`constant_liar`): it is in `above`, and in nothing else that is counted.

Everything private of Optuna that is used here is compared with stock draws by a test. Where a
later Optuna lacks a name, its own way of doing things takes over.
"""

from __future__ import annotations

import copy
import warnings
from bisect import insort
from collections.abc import Container
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _BatchedCategoricalDistributions
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy import special

from hpo.search.history import History, history_of
from hpo.search.records import SURPLUS

__all__ = ["WINDOW", "WindowedTpe"]

WINDOW = 250
"""How many of the newest finished trials a draw considers, besides the best.

A tenth of them are 25: `below` is then the same as without a window.
"""

_MOST_BELOW = 25  # optuna.samplers._tpe.sampler.default_gamma
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


class WindowedTpe(TPESampler):
    """Optuna's TPE over the best trials, the newest ones, and those that run.

    Joint over the parameters of a condition (`group`), and keeping trials that run side by side
    apart (`constant_liar`), and away from those that failed.

    Args:
        startup_trials: so many are drawn at random first.
        window: how many of the newest finished trials are considered.
    """

    def __init__(self, *, seed: int, startup_trials: int, window: int = WINDOW) -> None:
        with warnings.catch_warnings():
            # It is used on purpose and tested; any other warning goes through.
            warnings.filterwarnings("ignore", "Argument ``group`` is an", ExperimentalWarning)
            super().__init__(
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=startup_trials,
                seed=seed,
            )
        self._window = max(window, startup_trials)
        self._past: tuple[int, optuna.Study] | None = None
        self._parzen_estimator_cls = _Density

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn jointly, as all finished trials have them."""
        history = history_of(study)
        self._past = (trial.number, _Past(study, _considered(study, history, self._window)))
        firsts = history.index(_Firsts).by_number()
        return super().infer_relative_search_space(_Past(study, firsts), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The joint draw."""
        return super().sample_relative(self._past_of(study, trial), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The draw of a parameter that no finished trial has."""
        past = self._past_of(study, trial)
        return super().sample_independent(past, trial, param_name, param_distribution)

    def _past_of(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        """What was there when the trial was first asked for a value."""
        if self._past is None or self._past[0] != trial.number:
            self._past = (
                trial.number,
                _Past(study, _considered(study, history_of(study), self._window)),
            )
        return self._past[1]


class _Past(optuna.Study):
    """A study that knows some of its trials only, and reads none."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        vars(self).update(vars(study))
        self._known_trials = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        trials = self._known_trials
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials


class _Best:
    """The trials that can be among the best by Optuna's order.

    Complete ones come first, by value; then pruned ones, by how far they came and what they
    reported there.
    """

    def __init__(self, maximize: bool) -> None:
        self._sign = -1.0 if maximize else 1.0
        self._ranked: dict[TrialState, list[tuple[tuple[float, float], int, FrozenTrial]]] = {
            state: [] for state in _COUNTED
        }

    def add(self, trial: FrozenTrial) -> None:
        ranked = self._ranked.get(trial.state)
        if ranked is not None:
            insort(ranked, (self._rank(trial), trial.number, trial))
            del ranked[_MOST_BELOW:]

    def trials(self) -> list[FrozenTrial]:
        """The best 25."""
        ranked = [entry for state in _COUNTED for entry in self._ranked[state]]
        return [trial for _, _, trial in ranked[:_MOST_BELOW]]

    def _rank(self, trial: FrozenTrial) -> tuple[float, float]:
        if trial.state == TrialState.COMPLETE:
            assert trial.value is not None
            return self._sign * trial.value, 0.0
        if not trial.intermediate_values:
            return 1.0, 0.0
        step, value = max(trial.intermediate_values.items())
        return -float(step), float("inf") if np.isnan(value) else self._sign * value


class _Firsts:
    """The first trial of each set of parameters: all that decides which are drawn jointly."""

    def __init__(self) -> None:
        self._first: dict[frozenset[str], FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        if trial.state in _COUNTED:
            names = frozenset(trial.distributions)
            first = self._first.get(names)
            if first is None or trial.number < first.number:
                self._first[names] = trial

    def by_number(self) -> list[FrozenTrial]:
        return sorted(self._first.values(), key=lambda trial: trial.number)


def _considered(study: optuna.Study, history: History, window: int) -> list[FrozenTrial]:
    """The best, the newest, what failed since those, and those that run; by number."""
    best = history.index(_Best, study.direction == StudyDirection.MAXIMIZE)
    chosen = {trial.number: trial for trial in (*best.trials(), *history.unfinished)}
    newest = failed = 0
    for trial in reversed(history.trials):
        if trial.state in _COUNTED:
            chosen[trial.number] = trial
            newest += 1
        elif trial.state == TrialState.FAIL and SURPLUS not in trial.user_attrs:
            failed += 1
            if failed <= window:
                chosen[trial.number] = _as_running(trial)
        if newest == window:
            break
    return [chosen[number] for number in sorted(chosen)]


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.state = TrialState.RUNNING
    return seen


class _Density(_ParzenEstimator):
    """Optuna's density, with SciPy's logarithm of the normal distribution.

    Optuna's own is a loop in Python, and the densities at whole numbers are made of it.
    """

    def log_pdf(self, samples_dict: dict[str, np.ndarray]) -> np.ndarray:
        """The logarithm of the density at each sample, float64 `[samples]`."""
        mixture = self._mixture_distribution
        total = np.log(mixture.weights)[np.newaxis]  # [samples, kernels]
        for column, kernels in zip(
            self._transform(samples_dict).T, mixture.distributions, strict=True
        ):
            if isinstance(kernels, _BatchedCategoricalDistributions):
                total = total + np.log(kernels.weights).T[column.astype(np.int64)]
            else:
                total = total + _log_density(column, kernels)
        return np.asarray(special.logsumexp(total, axis=1))


def _log_density(values: np.ndarray, kernels: Any) -> np.ndarray:
    """Of truncated normals at values, `[values, kernels]`; of whole steps, their mass."""

    def standard(value: Any) -> np.ndarray:
        return np.asarray((value - kernels.mu) / kernels.sigma)

    points, places = np.unique(values, return_inverse=True)
    points = points[:, np.newaxis]
    half = kernels.step / 2
    scale = np.log if kernels.is_log else np.asarray
    if half:
        found = _log_mass(standard(scale(points - half)), standard(scale(points + half)))
    else:
        found = -(standard(scale(points)) ** 2) / 2 - np.log(kernels.sigma * np.sqrt(2 * np.pi))
    kept = _log_mass(standard(kernels.adapted_low), standard(kernels.adapted_high))
    return np.asarray(found - kept)[places]


def _log_mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The logarithm of the standard normal's mass between two bounds.

    Of an interval right of zero the mirrored one is taken, where the tail is exact.
    """
    right = low > 0
    low, high = np.where(right, -high, low), np.where(right, -low, high)
    upper, lower = special.log_ndtr(high), special.log_ndtr(low)
    return np.asarray(upper + np.log1p(-np.exp(lower - upper)))
