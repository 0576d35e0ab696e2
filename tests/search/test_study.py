from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from hpo import space
from hpo.config import MlpConfig, TrialConfig
from hpo.definition import StudyDefinition, load_definition
from hpo.errors import UsageError
from hpo.search import records
from hpo.search.asha import AshaPruner
from hpo.search.ledger import holder_name
from hpo.search.records import SURPLUS
from hpo.search.storage import Storage, open_storage
from hpo.search.study import (
    DEFINITION,
    SLOT,
    build_pruner,
    build_sampler,
    create_or_resume,
    find_finished_twin,
    find_trial_of_slot,
    load,
    names,
    resume_trial,
    retire,
    start_trial,
    surplus_trials,
    trial_seed,
)
from hpo.search.tpe import WindowedTpe

STUDY = """
dataset: {name: digits, validation: 0.2}
model:
  mlp:
    layers: {int: [1, 3]}
    width: {int: [16, 128], log: true}
    activation: relu
optimizer:
  sgd: {lr: {float: [0.01, 1.0], log: true}, momentum: {float: [0.5, 0.99]}}
  adam: {lr: {float: [0.0001, 0.01], log: true}}
training: {batch_size: {choice: [32, 64, 128]}, epochs: 8}
search: {trials: 40, sampler: {tpe: {startup_trials: 5}}, pruner: asha, seed: 3}
"""
BATCH = "training.batch_size"


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def define(study_file: Path) -> Callable[..., StudyDefinition]:
    return lambda *overrides: load_definition(study_file, overrides)


@pytest.fixture
def definition(define: Callable[..., StudyDefinition]) -> StudyDefinition:
    return define()


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[Storage]:
    """On SQLite: what differs between databases is Optuna's business, but for a takeover."""
    with open_storage(sqlite_url) as opened:
        yield opened


@pytest.fixture
def study(storage: Storage, definition: StudyDefinition) -> optuna.Study:
    return create_or_resume(storage, definition, "tiny")


def sampler_of(
    definition: StudyDefinition, fixed: dict[str, Any] | None = None
) -> Callable[[int], BaseSampler]:
    seed = definition.search.seed
    return lambda number: build_sampler(definition, trial_seed(seed, number), fixed)


def search(
    study: optuna.Study, definition: StudyDefinition, first: int, last: int, side_by_side: int = 1
) -> list[TrialConfig]:
    """Run trials whose value is a function of their config; returns the configs."""
    configs = []
    for start in range(first, last, side_by_side):
        running = []
        for slot in range(start, start + side_by_side):
            trial = start_trial(study, slot, sampler_of(definition))
            running.append((trial, space.draw(definition, trial)))
        for trial, config in running:
            assert isinstance(config.model, MlpConfig)
            value = 1.0 / (1.0 + abs(config.optimizer.lr - 0.05)) + config.model.widths[0] / 1e3
            trial.report(value, 1)
            pruned = trial.number % 3 == 2
            study.tell(trial, None if pruned else value, TrialState(2 if pruned else 1))
            configs.append(config)
    return configs


# --- create and resume


def test_a_study_is_resumed_with_what_may_change(
    storage: Storage, define: Callable[..., StudyDefinition]
) -> None:
    first = create_or_resume(storage, define(), "tiny")
    changed = define(
        "search.trials=99", "search.sampler=random", "search.pruner=none", "retrain.seeds=2"
    )
    again = create_or_resume(storage, changed, "tiny")
    assert again._study_id == first._study_id
    assert isinstance(build_sampler(load(storage, "tiny")[1], 0), RandomSampler)
    assert isinstance(again.pruner, NopPruner)
    loaded, definition = load(storage, "tiny")
    assert loaded._study_id == first._study_id
    assert definition == changed
    assert names(storage) == ["tiny"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.adam.lr={float: [0.001, 0.01], log: true}", "adam.lr: was log float 0.0001"),
        ("model.mlp.activation=gelu", "mlp.activation: was relu, is gelu"),
        ("dataset.name=mnist", "dataset.name: was digits, is mnist"),
        ("dataset.validation=0.3", "dataset.validation: was 0.2, is 0.3"),
        ("training.epochs=9", "training.epochs: was 8, is 9"),
        ("search.metric=loss", "search.metric: was accuracy, is loss"),
        ("search.seed=4", "search.seed: was 3, is 4"),
    ],
)
def test_a_study_is_not_resumed_with_another_definition(
    storage: Storage, define: Callable[..., StudyDefinition], override: str, expected: str
) -> None:
    create_or_resume(storage, define(), "tiny")
    with pytest.raises(UsageError, match="start a new study with --name") as caught:
        create_or_resume(storage, define(override), "tiny")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load(storage, "tiny")[1] == define()


def test_the_metric_decides_which_way_is_better(
    storage: Storage, define: Callable[..., StudyDefinition]
) -> None:
    assert create_or_resume(storage, define(), "a").direction.name == "MAXIMIZE"
    assert create_or_resume(storage, define("search.metric=loss"), "b").direction.name == (
        "MINIMIZE"
    )


def test_what_is_not_hpos_is_left_alone(storage: Storage, definition: StudyDefinition) -> None:
    theirs = optuna.create_study(storage=storage.optuna, study_name="theirs", direction="maximize")
    theirs.tell(theirs.ask(), 1.0)
    with pytest.raises(UsageError, match="`theirs` was not made by hpo"):
        create_or_resume(storage, definition, "theirs")
    with pytest.raises(UsageError, match="`theirs` was not made by hpo"):
        load(storage, "theirs")
    assert DEFINITION not in theirs.user_attrs


def test_a_creator_that_died_halfway_is_made_good(
    storage: Storage, definition: StudyDefinition
) -> None:
    optuna.create_study(storage=storage.optuna, study_name="tiny", direction="maximize")
    create_or_resume(storage, definition, "tiny")
    assert load(storage, "tiny")[1] == definition


def test_a_study_that_is_not_there(storage: Storage, definition: StudyDefinition) -> None:
    with pytest.raises(UsageError, match="there is no study yet; hpo optimize starts one"):
        load(storage, "tiny")
    for name in ("tiny", "mnist"):
        create_or_resume(storage, definition, name)
    with pytest.raises(UsageError, match=r"did you mean `mnist`\? it holds tiny, mnist"):
        load(storage, "minst")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-rf", "a\0b", "x" * 513])
def test_a_name_that_is_none(storage: Storage, definition: StudyDefinition, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a study's name"):
        create_or_resume(storage, definition, name)
    assert names(storage) == []


def test_processes_that_create_a_study_at_once_share_it(
    url: str, study_file: Path, processes: Any
) -> None:
    ids = processes.run("create", 8, url, str(study_file))
    assert len(ids) == 8
    assert len(set(ids)) == 1


# --- draws


def test_no_warning_and_nothing_silenced_for_others(
    define: Callable[..., StudyDefinition],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_sampler(define(), 1, {BATCH: 64})
        with pytest.raises(optuna.exceptions.ExperimentalWarning):
            TPESampler(group=True)


def test_the_sampler_is_the_definitions(define: Callable[..., StudyDefinition]) -> None:
    tpe = build_sampler(define(), 1)
    assert isinstance(tpe, WindowedTpe)
    assert tpe._n_startup_trials == 5
    assert (tpe._multivariate, tpe._group, tpe._constant_liar) == (True, True, True)
    assert isinstance(build_sampler(define("search.sampler=random"), 1), RandomSampler)
    fixed = build_sampler(define("search.sampler=random"), 1, {BATCH: 32})
    assert isinstance(fixed, PartialFixedSampler)
    assert isinstance(build_sampler(define(), 1, {}), WindowedTpe)


def epochs_at_which_a_bad_trial_is_pruned(pruner: BasePruner, good_trials: int) -> list[int]:
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(good_trials):
        good = study.ask()
        for epoch in range(1, 8):
            good.report(0.9, epoch)
        study.tell(good, 0.9)
    bad, pruned = study.ask(), []
    for epoch in range(1, 8):
        bad.report(0.1, epoch)
        if bad.should_prune():
            pruned.append(epoch)
    return pruned


def test_the_pruner_is_the_definitions(define: Callable[..., StudyDefinition]) -> None:
    asha = build_pruner(define("search.pruner={asha: {min_epochs: 2, reduction: 3}}"))
    assert isinstance(asha, AshaPruner)
    assert (asha._min_epochs, asha._reduction) == (2, 3)
    median = build_pruner(define("search.pruner={median: {startup_trials: 2, warmup_epochs: 4}}"))
    assert isinstance(median, MedianPruner)
    assert epochs_at_which_a_bad_trial_is_pruned(median, good_trials=1) == []
    assert epochs_at_which_a_bad_trial_is_pruned(median, good_trials=2) == [5, 6, 7]
    assert isinstance(build_pruner(define("search.pruner=none")), NopPruner)


def test_seeds_are_apart_and_fixed_for_good() -> None:
    seeds = {trial_seed(seed, number) for seed in range(50) for number in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**32 for seed in seeds)
    # Another value would change what a resumed study draws.
    assert trial_seed(0, 0) == 2968811710
    assert trial_seed(3, 17) == 2815252342


@pytest.mark.parametrize(
    ("sampler", "side_by_side"),
    [("{tpe: {startup_trials: 5}}", 1), ("{tpe: {startup_trials: 5}}", 4), ("random", 4)],
)
def test_draws_follow_from_seed_number_and_history(
    tmp_path: Path, define: Callable[..., StudyDefinition], sampler: str, side_by_side: int
) -> None:
    definition = define(f"search.sampler={sampler}")
    whole, parts = [], []
    with open_storage(f"sqlite:///{tmp_path}/whole.db") as storage:
        whole = search(create_or_resume(storage, definition, "a"), definition, 0, 16, side_by_side)
    for first in (0, 8):  # as a process of its own would go on, on another database
        with open_storage(f"sqlite:///{tmp_path}/parts.db") as storage:
            study = create_or_resume(storage, definition, "b")
            parts += search(study, definition, first, first + 8, side_by_side)
    assert parts == whole
    assert len({str(config) for config in whole}) == 16
    other = define(f"search.sampler={sampler}", "search.seed=4")
    with open_storage(f"sqlite:///{tmp_path}/other.db") as storage:
        assert search(create_or_resume(storage, other, "c"), other, 0, 4) != whole[:4]


def test_conditional_parameters_are_modelled_jointly(
    study: optuna.Study, definition: StudyDefinition
) -> None:
    search(study, definition, 0, 24)
    trial = start_trial(study, 24, sampler_of(definition))
    relative = trial.relative_params
    assert set(relative) == set(space.describe(definition))
    assert {"mlp.width_2", "sgd.lr", "sgd.momentum", "adam.lr"} <= set(relative)
    # What goes together is one group, and what the optimizer has of its own is another.
    sampler = trial.study.sampler
    assert isinstance(sampler, TPESampler)
    assert sampler._search_space_group is not None
    groups = [set(group) for group in sampler._search_space_group.search_spaces]
    assert {"sgd.lr", "sgd.momentum"} in groups
    assert {"optimizer", "mlp.layers", "mlp.width_0", BATCH} in groups
    # Optuna's default would have left the conditional ones out.
    stock = TPESampler(seed=0).infer_relative_search_space(study, study.trials[-1])
    assert set(stock) == {"optimizer", "mlp.layers", "mlp.width_0", BATCH}


def test_a_fixed_batch_size_is_kept_and_the_rest_is_still_joint(
    study: optuna.Study, definition: StudyDefinition
) -> None:
    search(study, definition, 0, 12)
    for slot, size in enumerate((32, 64, 128), start=12):
        trial = start_trial(study, slot, sampler_of(definition, {BATCH: size}))
        assert space.draw(definition, trial).batch_size == size
        assert set(trial.relative_params) == set(space.describe(definition)) - {BATCH}
        study.tell(trial, 0.5)


def test_trials_side_by_side_draw_with_their_own_samplers(
    study: optuna.Study, definition: StudyDefinition
) -> None:
    """Draws are lazy: a second trial that was opened meanwhile must not draw for the first."""
    first = start_trial(study, 0, sampler_of(definition, {BATCH: 32}))
    second = start_trial(study, 1, sampler_of(definition, {BATCH: 128}))
    assert space.draw(definition, first).batch_size == 32
    assert space.draw(definition, second).batch_size == 128


# --- trials and slots


def test_a_trial_knows_its_slot_from_its_first_moment(
    study: optuna.Study, definition: StudyDefinition, storage: Storage, monkeypatch: Any
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(optuna, "Trial", die)
    with pytest.raises(SystemExit):
        start_trial(study, 41, sampler_of(definition))
    monkeypatch.undo()
    again, _ = load(storage, "tiny")
    found = find_trial_of_slot(again, 41)
    assert found is not None
    assert found.state == TrialState.RUNNING
    assert found.user_attrs == {SLOT: 41}
    assert found.datetime_start is not None
    assert find_trial_of_slot(again, 4) is None


def test_a_trial_is_taken_over_as_itself(url: str, definition: StudyDefinition) -> None:
    """Another process (a storage of its own) goes on where the first one stopped, half drawn."""
    with open_storage(url) as storage, open_storage(url) as other:
        take_over(storage, other, definition)


def take_over(storage: Storage, other: Storage, definition: StudyDefinition) -> None:
    study = create_or_resume(storage, definition, "tiny")
    storage.ledger.set_budget(study._study_id, 1)
    [slot] = storage.ledger.claim(study._study_id, "old:1:x", 1, 0.001)
    old = start_trial(study, slot.id, sampler_of(definition))
    old.report(0.5, 1)
    layers = old.suggest_int("mlp.layers", 1, 3)
    mine, stored = load(other, "tiny")
    [taken] = other.ledger.claim(mine._study_id, holder_name(), 1, 60)
    frozen = find_trial_of_slot(mine, taken)
    assert frozen is not None
    assert frozen.state == TrialState.RUNNING
    assert (frozen.params, frozen.intermediate_values) == ({"mlp.layers": layers}, {1: 0.5})
    taken = other.ledger.assign(taken, frozen._trial_id)
    again = find_trial_of_slot(mine, taken)
    assert again is not None
    assert again._trial_id == frozen._trial_id
    new = resume_trial(mine, frozen._trial_id, sampler_of(stored))
    config = space.draw(stored, new)
    assert isinstance(config.model, MlpConfig)
    assert len(config.model.widths) == layers
    new.report(0.6, 2)
    mine.tell(new, 0.6)
    other.ledger.finish(taken)
    # The first holder comes back, and its work is void.
    with pytest.raises(UpdateFinishedTrialError):
        old.report(0.1, 3)
    with pytest.raises(ValueError, match="Cannot tell a COMPLETE trial"):
        study.tell(old, 0.1)
    [trial] = study.trials
    assert (trial.value, trial.intermediate_values) == (0.6, {1: 0.5, 2: 0.6})


def test_a_finished_trial_of_an_unfinished_slot_is_found(
    storage: Storage, study: optuna.Study, definition: StudyDefinition
) -> None:
    storage.ledger.set_budget(study._study_id, 1)
    [slot] = storage.ledger.claim(study._study_id, "old:1:x", 1, 60)
    trial = start_trial(study, slot.id, sampler_of(definition))
    study.tell(trial, 0.5)
    for known in (slot, storage.ledger.assign(slot, trial._trial_id)):
        found = find_trial_of_slot(study, known)
        assert found is not None
        assert (found.state, found.value) == (TrialState.COMPLETE, 0.5)


def test_a_trial_that_no_slot_knows_is_retired(
    storage: Storage, study: optuna.Study, definition: StudyDefinition
) -> None:
    """A worker froze between claiming a slot and creating the trial, and was replaced."""
    ledger, study_id = storage.ledger, study._study_id
    ledger.set_budget(study_id, 2)
    slot, waiting = ledger.claim(study_id, "a:1:x", 2, 60)
    rightful = start_trial(study, slot.id, sampler_of(definition))
    ledger.assign(slot, rightful._trial_id)
    late = start_trial(study, slot.id, sampler_of(definition))
    unassigned = start_trial(study, waiting.id, sampler_of(definition))
    [surplus] = surplus_trials(study, ledger.slots(study_id))
    assert surplus._trial_id == late._trial_id
    retire(study, surplus._trial_id, "its worker was replaced")
    assert surplus_trials(study, ledger.slots(study_id)) == []
    states = {trial._trial_id: trial.state for trial in study.trials}
    assert states[late._trial_id] == TrialState.FAIL
    assert states[unassigned._trial_id] == TrialState.RUNNING
    assert study.trials[1].user_attrs[SURPLUS] == "its worker was replaced"
    found = find_trial_of_slot(study, slot.id)
    assert found is not None
    assert found._trial_id == rightful._trial_id


def test_a_trial_that_somebody_asked_optuna_for_is_theirs(
    storage: Storage, study: optuna.Study
) -> None:
    asked = study.ask()
    assert surplus_trials(study, storage.ledger.slots(study._study_id)) == []
    study.tell(asked, 0.5)


def test_the_first_trial_of_a_slot_is_found_whatever_became_of_it(
    study: optuna.Study, definition: StudyDefinition
) -> None:
    """Also when trials end in another order than that in which they began."""
    first, other, second = (start_trial(study, slot, sampler_of(definition)) for slot in (7, 8, 7))
    for trial in (second, other, first):
        for slot, number in ((7, 0), (8, 1)):
            found = find_trial_of_slot(study, slot)
            assert found is not None
            assert found.number == number
        study.tell(trial, 0.5)
    found = find_trial_of_slot(study, 7)
    assert found is not None
    assert (found.number, found.state) == (0, TrialState.COMPLETE)
    assert find_trial_of_slot(study, 9) is None
    study.tell(study.ask(), 0.5)  # it has no slot, and is nobody's
    assert find_trial_of_slot(study, 9) is None


def test_a_twin_is_the_first_trial_that_was_trained_with_the_same_parameters(
    study: optuna.Study, definition: StudyDefinition
) -> None:
    def run(lr: float, state: TrialState, outcome: dict[str, Any]) -> None:
        trial = start_trial(study, 0, sampler_of(definition))
        trial.suggest_float("adam.lr", lr, lr)
        records.write_outcome(study._storage, trial._trial_id, outcome, [])
        study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)

    def twin(params: dict[str, float | str]) -> FrozenTrial | None:
        return find_finished_twin(study, params, len(study.trials) - 1)

    params: dict[str, float | str] = {"adam.lr": 0.5}
    assert twin(params) is None
    run(0.5, TrialState.FAIL, {})
    run(0.25, TrialState.COMPLETE, {})
    run(0.5, TrialState.COMPLETE, {"twin": 1})
    assert twin(params) is None
    start_trial(study, 0, sampler_of(definition)).suggest_float("adam.lr", 0.5, 0.5)
    assert twin(params) is None  # it runs
    run(0.5, TrialState.PRUNED, {})
    run(0.5, TrialState.COMPLETE, {})
    start_trial(study, 0, sampler_of(definition))
    found = twin(params)
    assert found is not None
    assert found.number == 4
    assert twin({**params, "optimizer": "adam"}) is None
