"""Members that predict targets: as a plain torch loop has it, in folds, and from a snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional

from hpo.config import MlpConfig, OptimizerConfig, TrialConfig
from hpo.data import MeasuredRows
from hpo.data.tensors import Normalization
from hpo.data.vectors import VectorTensors
from hpo.models.alone import build_module
from hpo.training.goals import TARGETS
from hpo.training.history import EpochRecord, History
from hpo.training.population import Member, Population
from hpo.training.snapshot import Snapshot
from hpo.training.streams import Stream
from hpo.training.task import Task

CPU = torch.device("cpu")
BATCH, EPOCHS = 20, 3
TRAINING, VALIDATION = torch.arange(60), torch.arange(60, 97)
SCORES = {"mse", "rmse", "mae", "r2"}


@pytest.fixture(scope="module")
def task() -> Task:
    """Two targets of very different sizes out of three numbers."""
    rng = np.random.default_rng(2)
    inputs = rng.normal([0, 5, 40], [1, 2, 10], (97, 3))
    targets = np.stack([100 * np.sin(inputs[:, 0]) + 800, 0.01 * inputs[:, 1]], 1)
    rows = MeasuredRows(inputs.astype(np.float32), targets.astype(np.float32))
    examples = VectorTensors(rows, CPU)
    return Task(
        examples,
        outputs=2,
        normalization=examples.normalization(TRAINING),
        precision=torch.float64,
        dtype=torch.float64,
        goal=TARGETS,
    )


def config(**changes: Any) -> TrialConfig:
    own = TrialConfig(
        model=MlpConfig(widths=(7, 5), activation="tanh"),
        optimizer=OptimizerConfig(name="adam", lr=0.02),
        batch_size=BATCH,
        epochs=EPOCHS,
    )
    return replace(own, **changes)


def stream(normalization: Normalization | None = None, number: int = 0) -> Stream:
    return Stream(TRAINING, BATCH, 7, number, normalization)


def train(task: Task, members: list[Member], *streams: Stream) -> Population:
    population = Population(task, *(streams or (stream(),)))
    population.add(members)
    for _ in range(EPOCHS):
        population.run_epoch(VALIDATION)
    return population


def test_a_member_is_a_plain_torch_loop_and_its_scores_are_scikit_learns(task: Task) -> None:
    member = Member(3, config(), seed=5, metric="r2")
    others = [Member(key, config(model=MlpConfig(widths=(key + 1,))), key, "r2") for key in (0, 9)]
    start = Population(task, stream())
    start.add([member])
    module = build_module(member.config.model, task.shape, task.outputs).double()
    module.load_state_dict(start.state(member))
    member = Member(3, config(), seed=5, metric="r2")
    train(task, [member, *others])

    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for epoch in range(EPOCHS):
        losses = []
        for index in stream().epoch(epoch):
            features, wanted = task.examples.batch(index, task.normalization, torch.float64)
            loss = functional.mse_loss(module(features), wanted.double())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        record = member.history.records[epoch]
        assert record.train_loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert isinstance(task.examples, VectorTensors)
    with torch.no_grad():
        features, _ = task.examples.batch(VALIDATION, task.normalization, torch.float64)
        guesses = task.normalization.to_targets(module(features)).numpy()
    truths = task.examples.targets[VALIDATION].double().numpy()
    expected = {
        "mse": metrics.mean_squared_error(truths, guesses),
        "rmse": metrics.root_mean_squared_error(truths, guesses),
        "mae": metrics.mean_absolute_error(truths, guesses),
        "r2": metrics.r2_score(truths, guesses),
    }
    assert record.scores == pytest.approx(expected, rel=1e-4)
    assert member.history.value(record) == record.scores["r2"]


def test_folds_of_unequal_sizes_are_standardised_and_scored_each_by_its_own_rows(
    task: Task,
) -> None:
    """r2 of a trial is the mean over its folds, each by the mean of the rows that score it."""
    parts = [torch.arange(60, 97), torch.arange(40, 60)]
    examples = task.examples
    kept = [torch.arange(60), torch.cat([torch.arange(40), torch.arange(60, 97)])]
    levels = [examples.normalization(rows) for rows in kept]
    streams = [
        Stream(rows, BATCH, 7, fold, level)
        for fold, (rows, level) in enumerate(zip(kept, levels, strict=True))
    ]
    member = Member(0, config(), seed=5, metric="r2", folds=2)
    population = Population(task, *streams)
    population.add([member])
    (record,) = population.run_epoch(parts)
    alone = []
    for fold, own in enumerate(streams):
        one = Member(0, config(), member.networks[fold].seed, "r2")
        by_itself = Population(replace(task, normalization=levels[fold]), own)
        by_itself.add([one])
        by_itself.run_epoch(parts[fold])
        alone.append(one.history.records[0])
    assert record.folds == pytest.approx([one.scores["r2"] for one in alone])
    for name in SCORES:
        assert record.scores[name] == pytest.approx(np.mean([one.scores[name] for one in alone]))
    assert record.loss == pytest.approx(np.mean([one.loss for one in alone]))


def test_an_epoch_is_json_and_back_and_the_best_is_of_the_metric(task: Task) -> None:
    member = Member(0, config(), seed=5, metric="mae")
    train(task, [member])
    curve = member.history.curve()
    assert set(curve[0]) == {"epoch", "train_loss", "loss", *SCORES, "seconds"}
    again = History.from_curve("mae", curve)
    assert again.records == member.history.records
    assert again.best is not None
    assert again.value(again.best) == min(epoch["mae"] for epoch in curve)
    best = again.judged_by("r2").best
    assert best is not None
    assert best.scores["r2"] == max(epoch["r2"] for epoch in curve)


def test_an_old_curve_of_classes_still_loads() -> None:
    old = {"epoch": 2, "train_loss": 0.5, "loss": 0.4, "accuracy": 0.9, "seconds": 1.5}
    record = EpochRecord.from_dict(old)
    assert (record.value("accuracy"), record.value("loss"), record.seconds) == (0.9, 0.4, 1.5)
    assert record.to_dict() == old
    assert EpochRecord.from_dict({**old, "folds": [0.8, 1.0]}).folds == (0.8, 1.0)


def test_a_snapshot_goes_on_bit_for_bit_and_mixed_metrics_are_none(task: Task) -> None:
    unbroken = Member(0, config(), seed=5, metric="rmse")
    train(task, [unbroken])
    first = Population(task, stream())
    member = Member(0, config(), seed=5, metric="rmse")
    first.add([member])
    first.run_epoch(VALIDATION)
    snapshot = first.snapshot(member)
    snapshot.check()
    second = Population(task, stream(), epoch=1)
    resumed = Member.restored(0, snapshot)
    second.add([resumed])
    for _ in range(EPOCHS - 1):
        second.run_epoch(VALIDATION)
    assert [r.scores for r in resumed.history.records] == [
        r.scores for r in unbroken.history.records
    ]
    for changed in (
        {"metric": "accuracy"},
        {"history": [{**snapshot.facts["history"][0], "x": 1}]},
    ):
        with pytest.raises(ValueError, match="its parts do not fit each other"):
            Snapshot({**snapshot.facts, **changed}, snapshot.tensors).check()
