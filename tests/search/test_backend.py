from __future__ import annotations

import inspect
import re
import time
from datetime import datetime

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, _cached_storage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search.backend import Backend
from hpo.search.storage import Storage, open_storage

LOCAL = {  # what does not touch the database
    "get_heartbeat_interval",
    "get_heartbeat_stale_trial_callback",
    "check_trial_is_updatable",
}


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.create_study(storage=storage.optuna, study_name="a")


def stock(url: str) -> RDBStorage:
    """Optuna's own storage on the same database."""
    return RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))


def test_every_call_of_optunas_cache_has_patience() -> None:
    """A call that a newer Optuna adds is missed here, and not in an outage."""
    source = inspect.getsource(_cached_storage)
    called = set(re.findall(r"self\._backend\.(\w+)", source)) - LOCAL
    assert len(called) > 15
    own = {name for name in vars(Backend) if getattr(Backend, name) is not None}
    assert called - own == set()


def test_what_is_written_is_what_stock_optuna_reads(url: str, study: optuna.Study) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    trial.suggest_int("n", 1, 3)
    values = {0: 0.1 + 0.2, 1: float("inf"), 2: float("-inf"), 3: float("nan")}
    for step, value in values.items():
        trial.report(value, step)
    study._storage.set_trial_intermediate_value(trial._trial_id, 0, 7.5)  # replaces
    trial.set_user_attr("a", {"b": [1, None, "é"]})
    trial.set_user_attr("a", 2)
    study._storage.set_trial_system_attr(trial._trial_id, "s", "t")
    study.tell(trial, 0.25)
    other = stock(url)
    [read] = other.get_all_trials(study._study_id)
    other.engine.dispose()
    assert (read.number, read.state, read.values) == (0, TrialState.COMPLETE, [0.25])
    assert read.params == trial.params
    assert read.distributions == {
        "x": FloatDistribution(0.0, 1.0),
        "n": IntDistribution(1, 3),
    }
    reports = read.intermediate_values
    assert [reports[step] for step in (0, 1, 2)] == [7.5, float("inf"), float("-inf")]
    assert reports[3] != reports[3]
    assert (read.user_attrs, read.system_attrs) == ({"a": 2}, {"s": "t"})
    assert read.datetime_start is not None
    assert read.datetime_complete is not None
    age = datetime.now() - read.datetime_complete
    assert abs(age.total_seconds()) < 300
    assert read.datetime_start <= read.datetime_complete


def test_numbers_go_on_where_stock_optuna_left_them(url: str, study: optuna.Study) -> None:
    other = stock(url)
    numbers = [study.ask().number]
    numbers.append(optuna.load_study(study_name="a", storage=other).ask().number)
    numbers.append(study.ask().number)
    numbers.append(optuna.load_study(study_name="a", storage=other).ask().number)
    other.engine.dispose()
    assert numbers == [0, 1, 2, 3]


def test_whole_trials_and_waiting_ones_can_be_added(study: optuna.Study) -> None:
    study.add_trial(
        create_trial(
            params={"x": 0.5},
            distributions={"x": FloatDistribution(0, 1)},
            values=[2.0],
            intermediate_values={1: 3.0},
        )
    )
    study.enqueue_trial({"x": 0.75})
    trial = study.ask()
    assert (trial.number, trial.suggest_float("x", 0, 1)) == (1, 0.75)
    study.tell(trial, 1.0)
    assert [(one.value, one.state) for one in study.trials] == [
        (2.0, TrialState.COMPLETE),
        (1.0, TrialState.COMPLETE),
    ]


def test_a_finished_trial_takes_nothing_more(study: optuna.Study) -> None:
    storage = study._storage
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 1.0)
    key = trial._trial_id
    for write in (
        lambda: storage.set_trial_intermediate_value(key, 1, 0.5),
        lambda: storage.set_trial_user_attr(key, "a", 1),
        lambda: storage.set_trial_system_attr(key, "a", 1),
        lambda: storage.set_trial_param(key, "y", 0.5, FloatDistribution(0, 1)),
        lambda: storage.set_trial_state_values(key, TrialState.COMPLETE, [1.0]),
        lambda: storage.set_trial_state_values(key, TrialState.FAIL),
    ):
        with pytest.raises(UpdateFinishedTrialError):
            write()
    [read] = study.trials
    assert (read.value, read.intermediate_values, read.user_attrs) == (1.0, {}, {})


def test_what_does_not_exist_is_a_key_error(study: optuna.Study) -> None:
    storage = study._storage
    with pytest.raises(KeyError):
        storage.set_trial_intermediate_value(99, 1, 0.5)
    with pytest.raises(KeyError):
        storage.set_trial_state_values(99, TrialState.FAIL)
    with pytest.raises(KeyError):
        storage.create_new_trial(99)
    assert study.trials == []


def test_a_parameter_keeps_its_kind_and_its_first_value(url: str, study: optuna.Study) -> None:
    first, second = study.ask(), study.ask()
    first.suggest_float("x", 0, 1)
    drawn = first.params["x"]
    # Another process, which has not seen the first trial's range.
    with open_storage(url) as other:
        storage = other.optuna
        storage.get_all_trials(study._study_id)
        with pytest.raises(ValueError, match="distribution"):
            storage.set_trial_param(second._trial_id, "x", 1, IntDistribution(0, 3))
        storage.set_trial_param(first._trial_id, "x", drawn / 2, FloatDistribution(0, 1))
    assert study.trials[0].params == {"x": drawn}


def test_a_waiting_trial_is_popped_once(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.5})
    key = study.trials[0]._trial_id
    storage = study._storage
    assert storage.set_trial_state_values(key, TrialState.RUNNING)
    assert not storage.set_trial_state_values(key, TrialState.RUNNING)


# --- what is read


def fill(study: optuna.Study, *, plain: int = 0) -> None:
    """Trials in every state, with all that a trial can hold."""
    for number in range(7):
        trial = study.ask()
        trial.suggest_categorical("c", ["a", "b", None])
        trial.suggest_float("x", 1e-5, 1.0, log=True)
        if number % 2:
            trial.suggest_int("n", 2, 8, step=2)
        for step in range(number):
            trial.report([0.5, float("nan"), float("inf"), float("-inf")][step % 4], step)
        trial.set_user_attr("u", {"é": [number, None]})
        study._storage.set_trial_system_attr(trial._trial_id, "s", number)
        if number in (0, 5):
            study.tell(trial, [1.0, float("-inf")][number % 2])
        elif number in (1, 6):
            study.tell(trial, state=[TrialState.PRUNED, TrialState.FAIL][number % 2])
    study.enqueue_trial({"x": 0.5})
    study.add_trials([create_trial(value=float(number)) for number in range(plain)])


def backend(storage: Storage) -> Backend:
    """What lies behind Optuna's cache."""
    cache = storage.optuna
    assert isinstance(cache, _cached_storage._CachedStorage)
    assert isinstance(cache._backend, Backend)
    return cache._backend


def as_read(trials: list[FrozenTrial]) -> list[str]:
    """All of the trials; `repr`, since NaN is not equal to itself."""
    return [repr(sorted(vars(trial).items())) for trial in trials]


@pytest.mark.parametrize(
    ("states", "listed", "after"),
    [
        (None, (), -1),
        (None, (3, 4), 5),
        (None, (1, 7), 2),
        (None, (2, 999), 7),
        (None, (), 99),
        ((TrialState.RUNNING,), (), -1),
        ((TrialState.COMPLETE, TrialState.FAIL), (1, 3), 4),
    ],
)
def test_what_is_read_is_what_stock_optuna_reads(
    url: str,
    study: optuna.Study,
    states: tuple[TrialState, ...] | None,
    listed: tuple[int, ...],
    after: int,
) -> None:
    optuna.create_study(storage=study._storage, study_name="b").ask()
    fill(study)
    other = stock(url)
    with open_storage(url) as own:
        read = backend(own)._get_trials(study._study_id, states, set(listed), after)
    expected = other._get_trials(study._study_id, states, set(listed), after)
    other.engine.dispose()
    assert as_read(read) == as_read(expected)


def test_moments_are_local_as_stock_optunas(
    url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = stock(url)
    try:
        for zone in ("Asia/Kolkata", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            study.tell(study.ask(), 1.0)
            with open_storage(url) as own:
                [*_, newest] = own.optuna.get_all_trials(study._study_id)
                assert as_read([newest]) == as_read([other.get_trial(newest._trial_id)])
            assert newest.datetime_complete is not None
            assert abs((datetime.now() - newest.datetime_complete).total_seconds()) < 300
    finally:
        monkeypatch.undo()
        time.tzset()
        other.engine.dispose()


def test_more_trials_are_read_than_a_statement_can_name(url: str, study: optuna.Study) -> None:
    fill(study, plain=1200)
    other = stock(url)
    expected = other.get_all_trials(study._study_id)
    other.engine.dispose()
    with open_storage(url) as own:
        assert as_read(own.optuna.get_all_trials(study._study_id)) == as_read(expected)
        everyone = {trial._trial_id for trial in expected}
        last = max(everyone)
        listed = backend(own)._get_trials(study._study_id, None, everyone, last)
        assert as_read(listed) == as_read(expected)


def test_the_trials_of_no_study_are_an_error(storage: Storage) -> None:
    with pytest.raises(KeyError):
        storage.optuna.get_all_trials(7)
