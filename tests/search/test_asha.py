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

from hpo.search import records
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


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_copies_of_a_trial_are_no_rivals(direction: str) -> None:
    """A sampler that settles draws the best configuration again and again."""
    study = study_of(AshaPruner(min_epochs=1, reduction=4, epochs=20), direction)
    sign = 1.0 if direction == "maximize" else -1.0
    *others, best = trials_with(study, [[sign * value / 10] for value in range(9)])
    for trial in others:
        study.tell(trial, state=TrialState.PRUNED)
    study.tell(best, sign)
    for trial in trials_with(study, [[sign * 0.8]] * 5):
        records.write_outcome(study._storage, trial._trial_id, {"twin": best.number}, [])
        study.tell(trial, sign)
    second, fourth = trials_with(study, [[sign * 0.75], [sign * 0.55]])
    assert not second.should_prune()
    assert fourth.should_prune()


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


def test_rungs_are_judged_and_their_multiples() -> None:
    pruner = AshaPruner(min_epochs=2, reduction=3, epochs=120)
    for epoch in range(1, 70):
        study = study_of(pruner)
        worst = trials_with(study, [[1.0] * epoch] * 5 + [[0.0] * epoch])[-1]
        judged = {2, 4, 6, 12, 18, 36, 54}  # the next rung would be at 162, half is over at 60
        assert worst.should_prune() == (epoch in judged)


def test_what_is_nearly_done_is_let_finish() -> None:
    pruner = AshaPruner(min_epochs=1, reduction=3, epochs=20)
    for epoch in range(1, 20):
        study = study_of(pruner)
        worst = trials_with(study, [[1.0] * epoch] * 5 + [[0.0] * epoch])[-1]
        # A rung at 9 would be past a third of the run; the one at 3 is asked after until half.
        assert worst.should_prune() == (epoch in (1, 2, 3, 6, 9))


def test_who_came_early_is_judged_again_among_those_who_came_since() -> None:
    pruner = AshaPruner(min_epochs=2, reduction=4, epochs=20)
    study = study_of(pruner)
    poor, good = trials_with(study, [[0.1, 0.2], [0.1, 0.7]])
    study.tell(good, 0.7)
    (alone,) = trials_with(study_of(pruner), [[0.1, 0.2]])
    assert poor.should_prune()
    assert not alone.should_prune()
    # It had gone on, since nobody else was there; four epochs on, better ones have come and gone.
    (early,) = trials_with(study, [[0.3, 0.4, 0.5]])
    early.report(0.99, 4)  # what counts is what it had at the rung
    for late in trials_with(study, [[0.0, 0.5], [0.0, 0.6]]):
        study.tell(late, state=TrialState.PRUNED)
    assert early.should_prune()
    early.report(0.99, 5)
    assert not early.should_prune()


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_who_is_stopped_later_gives_its_room_back(state: TrialState) -> None:
    def goes_on(stopped_at: int) -> bool:
        study = study_of(AshaPruner(min_epochs=2, reduction=4, epochs=32))
        for trial in trials_with(study, [[0.1, 0.2]] * 5):
            study.tell(trial, state=TrialState.PRUNED)
        (best,) = trials_with(study, [[0.5, 0.9, *[0.9] * 8]])
        study.tell(best, 0.9)
        (early,) = trials_with(study, [[0.3] * stopped_at])
        study.tell(early, state=state)
        (late,) = trials_with(study, [[0.4, 0.8]])
        return not late.should_prune()

    assert goes_on(stopped_at=2)  # of the eight one went on; there is room for two
    assert goes_on(stopped_at=4)
    assert not goes_on(stopped_at=8)  # it went on to the next rung and was stopped by that


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
    pruned: Collection[int] = (),
) -> bool:
    """The definition, literally: at a rung, no more than a share of all may be better.

    Nor may those who went on and those who are better and stand there take all the room, unless
    hardly anybody is better. At a multiple of the last rung, no more than half may be better
    there; who is stopped by that has not gone on.
    """
    now = len(curves[own])
    rungs = [min_epochs * reduction**k for k in range(16)]
    rungs = [rung for rung in rungs if rung <= now and rung * reduction <= epochs]
    if not rungs:
        return True
    epoch = rungs[-1]
    sign = 1 if maximize else -1
    scores = [max(sign * v for v in curve[:epoch]) for curve in curves if len(curve) >= epoch]
    mine = max(sign * v for v in curves[own][:epoch])
    better = sum(score > mine for score in scores)
    if now > epoch:
        return now % epoch > 0 or 2 * now > epochs or better < max(1, len(scores) // 2)
    room = max(1, len(scores) // reduction)
    taken = 0
    upper = epoch * reduction if epoch * reduction**2 <= epochs else math.inf
    for number, curve in enumerate(curves):
        if number in pruned:
            taken += len(curve) >= upper
        elif (number in complete and len(curve) == epoch) or len(curve) > epoch:
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
    pruned: list[int] = []
    while running or len(trials) < len(curves):
        new = len(trials) < len(curves) and (not running or data.draw(st.booleans()))
        if new:
            running.append(len(trials))
            trials.append(study.ask())
            so_far.append([])
        own = data.draw(st.sampled_from(running))
        so_far[own].append(curves[own][len(so_far[own])])
        trials[own].report(so_far[own][-1], len(so_far[own]))
        expected = should_go_on(so_far, own, 1, reduction, LONG, maximize, complete, pruned)
        assert trials[own].should_prune() != expected
        if not expected and data.draw(st.booleans()):  # else somebody lets it go on all the same
            running.remove(own)
            pruned.append(own)
            study.tell(trials[own], state=TrialState.PRUNED)
        elif len(so_far[own]) == len(curves[own]):
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
