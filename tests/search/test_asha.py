"""ASHA on real studies, and against its definition taken literally."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from hpo.search.asha import AshaPruner

LONG = 10_000


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def study_of(pruner: AshaPruner, direction: str = "maximize") -> optuna.Study:
    way = optuna.study.StudyDirection[direction.upper()]
    return optuna.create_study(direction=way, pruner=pruner)


def trials_with(study: optuna.Study, curves: list[list[float]]) -> list[optuna.Trial]:
    trials = []
    for curve in curves:
        trial = study.ask()
        for epoch, value in enumerate(curve, start=1):
            trial.report(value, epoch)
        trials.append(trial)
    return trials


def survivors(study: optuna.Study, trials: list[optuna.Trial]) -> list[int]:
    return [trial.number for trial in trials if not trial.should_prune()]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_a_population_that_arrives_together_the_best_third_goes_on(direction: str) -> None:
    study = study_of(AshaPruner(min_epochs=1, reduction=3, epochs=LONG), direction)
    values = [0.4, 0.9, 0.1, 0.5, 0.8, 0.2, 0.3, 0.7, 0.6]
    trials = trials_with(study, [[value] for value in values])
    best = [1, 4, 7] if direction == "maximize" else [2, 5, 6]
    assert survivors(study, trials) == best
    assert survivors(study, trials[::-1]) == best[::-1]  # asking writes nothing


def test_where_trials_get_better_and_better_one_in_so_many_goes_on() -> None:
    """As it is with a sampler that learns; by rank alone, about half would go on."""
    study = study_of(AshaPruner(min_epochs=1, reduction=4, epochs=LONG))
    values = np.random.default_rng(0).uniform(0.0, 0.1, 200) + np.arange(200) / 1000
    by_rank = on = 0
    for count, value in enumerate(values, start=1):
        (trial,) = trials_with(study, [[float(value)]])
        by_rank += sum(values[:count] > value) < max(1, count // 4)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
        else:
            on += 1
            study.tell(trial, float(value))
    assert 0.25 * len(values) <= on <= 0.35 * len(values)
    assert by_rank > 0.5 * len(values)


def test_what_is_outstanding_goes_on_though_the_room_is_taken() -> None:
    study = study_of(AshaPruner(min_epochs=1, reduction=4, epochs=LONG))
    for trial in trials_with(study, [[0.01 * number, 0.1] for number in range(16)]):
        study.tell(trial, 0.1)
    first, second = trials_with(study, [[0.9], [0.145]])
    assert not first.should_prune()
    assert second.should_prune()


def test_schedules_have_rungs_of_their_own() -> None:
    """A rate that falls late is behind one that stays high until then."""
    study = study_of(AshaPruner(min_epochs=1, reduction=2, epochs=LONG))
    early = {"constant": 0.8, "cosine": 0.5, "step": 0.7}
    trials = []
    for number in range(12):
        schedule = list(early)[number // 4]
        study.enqueue_trial({"schedule": schedule})
        trial = study.ask()
        trial.suggest_categorical("schedule", list(early))
        trial.report(early[schedule] + number / 1000, 1)
        trials.append(trial)
    assert survivors(study, trials) == [2, 3, 6, 7, 10, 11]


def test_only_rungs_are_judged() -> None:
    pruner = AshaPruner(min_epochs=2, reduction=3, epochs=LONG)
    for epoch in range(1, 60):
        study = study_of(pruner)
        worst = trials_with(study, [[1.0] * epoch] * 5 + [[0.0] * epoch])[-1]
        assert worst.should_prune() == (epoch in (2, 6, 18, 54))


def test_what_is_nearly_done_is_let_finish() -> None:
    pruner = AshaPruner(min_epochs=1, reduction=3, epochs=20)
    for epoch in range(1, 20):
        study = study_of(pruner)
        worst = trials_with(study, [[1.0] * epoch] * 5 + [[0.0] * epoch])[-1]
        assert worst.should_prune() == (epoch in (1, 3))  # at 9 a third of the run is over


def test_a_trial_is_judged_by_its_best_epoch_so_far() -> None:
    study = study_of(AshaPruner(min_epochs=3, reduction=2, epochs=LONG))
    early_best, late_best = trials_with(study, [[0.9, 0.1, 0.1], [0.1, 0.5, 0.6]])
    assert not early_best.should_prune()
    assert late_best.should_prune()


def test_later_epochs_of_others_do_not_count_at_an_earlier_rung() -> None:
    study = study_of(AshaPruner(min_epochs=1, reduction=2, epochs=LONG))
    trials_with(study, [[0.1, 0.99]])
    assert not trials_with(study, [[0.5]])[0].should_prune()


def test_somebody_always_goes_on() -> None:
    study = study_of(AshaPruner(min_epochs=1, reduction=1000, epochs=LONG))
    assert not trials_with(study, [[0.2]])[0].should_prune()
    assert trials_with(study, [[0.1]])[0].should_prune()
    better = trials_with(study, [[0.3], [0.3]])
    assert survivors(study, better) == [2, 3]  # equals are not told apart


def test_ended_trials_stay_in_the_comparison() -> None:
    study = study_of(AshaPruner(min_epochs=1, reduction=2, epochs=LONG))
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        (trial,) = trials_with(study, [[0.9]])
        study.tell(trial, 0.9 if state == TrialState.COMPLETE else None, state=state)
    first, second = trials_with(study, [[0.5], [0.95]])
    assert first.should_prune()
    assert not second.should_prune()


def test_a_trial_without_reports_goes_on() -> None:
    study = study_of(AshaPruner(min_epochs=1, reduction=3, epochs=LONG))
    trials_with(study, [[0.9]])
    assert not study.ask().should_prune()


def should_go_on(
    curves: list[list[float]],
    own: int,
    min_epochs: int,
    reduction: int,
    epochs: int,
    maximize: bool,
    complete: Collection[int] = (),
) -> bool:
    """The definition, literally: at a rung, no more than a share of all may be better.

    Nor may those who went on and those who are better and stand there take all the room, unless
    hardly anybody is better.
    """
    epoch = len(curves[own])
    rungs = {min_epochs * reduction**k for k in range(12)}
    if epoch not in rungs or epoch * reduction > epochs:
        return True
    sign = 1 if maximize else -1
    scores = [max(sign * v for v in curve[:epoch]) for curve in curves if len(curve) >= epoch]
    mine = max(sign * v for v in curves[own])
    better = sum(score > mine for score in scores)
    room = max(1, len(scores) // reduction)
    taken = 0
    for number, curve in enumerate(curves):
        if (number in complete and len(curve) == epoch) or len(curve) > epoch:
            taken += 1
        elif len(curve) == epoch:
            taken += max(sign * v for v in curve) > mine
    return better < room and (taken < room or better < max(1, len(scores) // reduction**2))


CURVES = st.lists(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9]), min_size=1, max_size=9),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(
    curves=CURVES,
    min_epochs=st.integers(1, 4),
    reduction=st.integers(2, 5),
    epochs=st.integers(1, 20),
    maximize=st.booleans(),
)
def test_it_is_the_definition(
    curves: list[list[float]], min_epochs: int, reduction: int, epochs: int, maximize: bool
) -> None:
    direction = "maximize" if maximize else "minimize"
    study = study_of(AshaPruner(min_epochs, reduction, epochs), direction)
    trials = trials_with(study, curves)
    for own, trial in enumerate(trials):
        expected = should_go_on(curves, own, min_epochs, reduction, epochs, maximize)
        assert trial.should_prune() != expected


@settings(deadline=None, max_examples=60)
@given(curves=CURVES, data=st.data(), reduction=st.integers(2, 4), maximize=st.booleans())
def test_it_is_the_definition_also_while_trials_come_report_and_end(
    curves: list[list[float]], data: st.DataObject, reduction: int, maximize: bool
) -> None:
    """The pruner keeps what ended trials had; that must be the same as looking at them all."""
    direction = "maximize" if maximize else "minimize"
    study = study_of(AshaPruner(1, reduction, LONG), direction)
    trials: list[optuna.Trial] = []
    so_far: list[list[float]] = []
    running: list[int] = []
    complete: list[int] = []
    while running or len(trials) < len(curves):
        new = len(trials) < len(curves) and (not running or data.draw(st.booleans()))
        if new:
            running.append(len(trials))
            trials.append(study.ask())
            so_far.append([])
        own = data.draw(st.sampled_from(running))
        so_far[own].append(curves[own][len(so_far[own])])
        trials[own].report(so_far[own][-1], len(so_far[own]))
        expected = should_go_on(so_far, own, 1, reduction, LONG, maximize, complete)
        assert trials[own].should_prune() != expected
        if len(so_far[own]) == len(curves[own]):
            running.remove(own)
            complete.append(own)
            study.tell(trials[own], so_far[own][-1])


def test_what_is_no_number_is_worse_than_any() -> None:
    study = study_of(AshaPruner(min_epochs=2, reduction=2, epochs=LONG))
    nothing, late, bad, good = trials_with(
        study, [[math.nan, math.nan], [math.nan, 0.5], [0.1, math.nan], [0.9, 0.2]]
    )
    study.tell(nothing, state=TrialState.FAIL)
    study.tell(good, 0.9)
    assert nothing.number == 0
    assert not late.should_prune()
    assert bad.should_prune()
