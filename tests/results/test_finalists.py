"""Choosing finalists out of real studies, and scoring them again with fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from hpo import space
from hpo.definition import StudyDefinition, load_definition
from hpo.errors import TrainingError
from hpo.results.finalists import Finalist, choose, score_again
from hpo.search import records
from hpo.search.storage import Storage, open_storage
from hpo.search.study import build_sampler, create_or_resume, retire, start_trial
from hpo.training.population import Member, Population
from hpo.training.task import prepare

STUDY = (
    "dataset: {name: digits}\n"
    "model: {mlp: {widths: [16]}}\n"
    "optimizer: {sgd: {lr: {float: [0.001, 1.0e+30], log: true}}}\n"
    "training: {batch_size: 64, epochs: 2}\n"
    "retrain: {finalists: 2, seeds: 2}\n"
)


def never() -> bool:
    return False


def ignore(sentence: str) -> None:
    assert sentence


@pytest.fixture
def definition(tmp_path: Path) -> StudyDefinition:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return load_definition(path)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path}/hpo.db") as opened:
        yield opened


def tell(
    study: optuna.Study,
    definition: StudyDefinition,
    value: float,
    state: TrialState = TrialState.COMPLETE,
    **outcome: int,
) -> None:
    trial = start_trial(study, 0, lambda number: build_sampler(definition, number))
    records.write_origin(trial, space.draw(definition, trial), {})
    records.write_outcome(study._storage, trial._trial_id, {"epochs": 2, **outcome}, [])
    trial.report(value, 1)
    study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)


def test_finalists_are_the_best_that_trained_to_their_end_each_config_once(
    storage: Storage, definition: StudyDefinition
) -> None:
    study = create_or_resume(storage, definition, "study")
    with pytest.raises(TrainingError, match="hpo optimize --study study"):
        choose(study.trials, definition)
    tell(study, definition, 0.5)
    tell(study, definition, 0.99, TrialState.PRUNED)
    tell(study, definition, 0.98, twin=0)
    tell(study, definition, 0.7)
    tell(study, definition, 0.6)
    assert [finalist.number for finalist in choose(study.trials, definition)] == [3, 4]


def test_where_none_trained_to_its_end_it_says_how_many_trials_to_ask_for(
    storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY + "search: {trials: 4}\n")
    definition = load_definition(path)
    study = create_or_resume(storage, definition, "study")
    for asked in (4, 4, 6):
        tell(study, definition, 0.5, TrialState.FAIL)
        with pytest.raises(TrainingError) as caught:
            choose(study.trials, definition, " --storage sqlite:///other.db")
        assert str(caught.value) == (
            "study `study` has no trial that trained to its end; run hpo optimize --study study "
            f"--trials {asked} --storage sqlite:///other.db first"
        )
    retire(study, start_trial(study, 0, lambda n: build_sampler(definition, n))._trial_id, "late")
    with pytest.raises(TrainingError, match="--trials 6 first"):
        choose(study.trials, definition)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("search: {sampler: grid, trials: 2}\n", "every cell of the grid of study `study` failed"),
        ("variations: [{}, {training.batch_size: 32}]\n", "every variation of study `study`"),
    ],
)
def test_more_trials_than_cells_or_variations_are_not_asked_for(
    storage: Storage, tmp_path: Path, more: str, sentence: str
) -> None:
    path = tmp_path / "study.yaml"
    lr = "{choice: [0.1, 0.2]}" if "grid" in more else "0.1"
    path.write_text(STUDY.replace("{float: [0.001, 1.0e+30], log: true}", lr) + more)
    definition = load_definition(path)
    study = create_or_resume(storage, definition, "study")
    tell(study, definition, 0.5, TrialState.FAIL)
    with pytest.raises(TrainingError, match="--trials 2 first"):
        choose(study.trials, definition)
    tell(study, definition, 0.5, TrialState.FAIL)
    with pytest.raises(TrainingError, match=sentence) as caught:
        choose(study.trials, definition)
    assert "--trials" not in str(caught.value)
    assert "under another --name" in str(caught.value)


def test_equal_draws_that_trained_side_by_side_are_one_finalist(
    storage: Storage, definition: StudyDefinition
) -> None:
    """Neither is the other's twin: only a finished trial is copied."""
    study = create_or_resume(storage, definition, "study")
    for value, lr in ((0.5, 0.1), (0.9, 0.2), (0.8, 0.2)):
        trial = study.ask()
        config = space.draw(definition, FixedTrial({"sgd.lr": lr}))
        records.write_origin(trial, config, {})
        study.tell(trial, value)
    assert [finalist.number for finalist in choose(study.trials, definition)] == [1, 0]


def test_a_lower_loss_is_better(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY + "search: {metric: loss}\n")
    definition = load_definition(path)
    study = create_or_resume(storage, definition, "study")
    for value in (0.5, 0.2, 0.9):
        tell(study, definition, value)
    assert [finalist.number for finalist in choose(study.trials, definition)] == [1, 0]


def finalist(definition: StudyDefinition, number: int, rate: float) -> Finalist:
    return Finalist(number, space.draw(definition, FixedTrial({"sgd.lr": rate})), {"sgd.lr": rate})


def test_fresh_seeds_decide_and_divergence_loses(definition: StudyDefinition) -> None:
    data = prepare(definition)
    candidates = [
        finalist(definition, 0, 1e30),
        finalist(definition, 1, 0.001),
        finalist(definition, 2, 0.1),
    ]
    scored = score_again(candidates, definition, data, never, ignore)
    assert [entry.number for entry in scored] == [2, 1]
    winner = scored[0]
    assert len(winner.values) == len(winner.best_epochs) == 2
    assert winner.values[0] != winner.values[1]
    assert winner.mean == pytest.approx(sum(winner.values) / 2)
    assert 1 <= winner.epochs <= 2
    assert score_again(candidates, definition, data, never, ignore) == scored


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[list[Member]], bool]) -> None:
    """Let an epoch raise where certain members are in it."""
    run = Population.run_epoch

    def run_epoch(population: Population, *arguments: Any) -> Any:
        if fails(list(population.members)):
            raise RuntimeError("something else\nmore")
        return run(population, *arguments)

    monkeypatch.setattr(Population, "run_epoch", run_epoch)


def test_a_finalist_that_cannot_be_trained_leaves_the_others(
    definition: StudyDefinition, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = prepare(definition)
    candidates = [finalist(definition, 4, 0.2), finalist(definition, 7, 0.1)]
    failing(monkeypatch, lambda members: members[0].config.optimizer.lr == 0.2)
    scored = score_again(candidates, definition, data, never, ignore)
    assert [(entry.number, len(entry.values)) for entry in scored] == [(7, 2)]
    assert "trial 4 could not be trained with fresh seed 1 of 2" in caplog.text
    failing(monkeypatch, lambda _: True)
    with pytest.raises(TrainingError, match=r"the last one: trial 7: RuntimeError: something"):
        score_again(candidates, definition, data, never, ignore)


def test_one_seed_that_fails_costs_its_value_alone(
    definition: StudyDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(definition)
    whole = score_again([finalist(definition, 4, 0.2)], definition, data, never, ignore)
    failing(monkeypatch, lambda members: any(member.key == 0 for member in members))
    [scored] = score_again([finalist(definition, 4, 0.2)], definition, data, never, ignore)
    assert scored.values == pytest.approx(whole[0].values[1:])


def test_if_all_diverge_it_says_so(definition: StudyDefinition) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        score_again(
            [finalist(definition, 0, 1e30)], definition, prepare(definition), never, ignore
        )
