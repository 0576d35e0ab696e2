"""Folds: a member has a network for each, which trains as it would alone."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from safetensors.torch import load, save

from hpo.config import CnnConfig, MlpConfig, NumpyCnnConfig, OptimizerConfig, TrialConfig
from hpo.data import folds
from hpo.training.population import Member, Population, Stopped
from hpo.training.snapshot import Snapshot
from hpo.training.task import Fold, Split

from .conftest import BATCH, Bench

COUNT = 3
ROWS = 301  # the first fold has a row more than the others


@pytest.fixture(scope="module")
def split(bench: Bench) -> Split:
    parts = [tuple(map(torch.from_numpy, part)) for part in folds(ROWS, COUNT, seed=3)]
    examples = bench.task.examples
    return Split(
        bench.task,
        tuple(Fold(one, other, examples.normalization(one)) for one, other in parts),
    )


def config(*widths: int, batch_norm: bool = True, metric_lr: float = 3e-3) -> TrialConfig:
    return TrialConfig(
        model=MlpConfig(widths=widths, batch_norm=batch_norm, dropout=0.2),
        optimizer=OptimizerConfig(name="adam", lr=metric_lr),
        batch_size=BATCH,
        epochs=4,
    )


def members() -> list[Member]:
    cnn = CnnConfig(channels=(4, 3), hidden=6, batch_norm=True, dropout=0.2)
    configs = [
        *(config(12, 9), config(7, batch_norm=False), config(20)),
        *(replace(config(), model=model) for model in (cnn, NumpyCnnConfig(channels=(4,)))),
    ]
    metrics = ["accuracy", "loss", "accuracy", "loss", "accuracy"]
    return [
        Member(key, own, seed=key, metric=metric, folds=COUNT)
        for key, (own, metric) in enumerate(zip(configs, metrics, strict=True))
    ]


def population(split: Split) -> Population:
    return Population(split.task, *split.streams(BATCH, seed=5, number=0))


def test_each_fold_is_that_network_alone_on_its_rows(split: Split) -> None:
    together, company = population(split), members()
    together.add(company)
    for _ in range(3):
        together.run_epoch(split.validation)
    streams = split.streams(BATCH, seed=5, number=0)
    for member in company:
        alone = []
        for fold, stream in enumerate(streams):
            by_itself = Population(split.task, stream)
            one = Member(0, member.config, member.networks[fold].seed, member.metric)
            by_itself.add([one])
            for _ in range(3):
                by_itself.run_epoch(split.folds[fold].validation)
            alone.append(one.history)
        for epoch, record in enumerate(member.history.records):
            own = [history.records[epoch] for history in alone]
            for name in ("train_loss", "loss", "accuracy"):
                expected = fmean(getattr(one, name) for one in own)
                assert getattr(record, name) == pytest.approx(expected, rel=1e-9)
            assert record.folds == pytest.approx([getattr(one, member.metric) for one in own])


def test_folds_differ_in_rows_and_in_seeds(split: Split) -> None:
    one = members()[0]
    assert len({network.seed for network in one.networks}) == COUNT
    together = population(split)
    together.add([one])
    together.run_epoch(split.validation)
    assert len(set(one.history.records[0].folds)) > 1


def test_stopped_and_written_down_they_go_on_bit_for_bit(split: Split) -> None:
    unbroken = population(split)
    unbroken.add(members())
    for _ in range(3):
        unbroken.run_epoch(split.validation)
    first = population(split)
    first.add(members())
    first.run_epoch(split.validation)
    left = iter(range(2))
    with pytest.raises(Stopped):
        first.run_epoch(split.validation, lambda: next(left, None) is None)
    written = []
    for member in first.members:
        snapshot = first.snapshot(member)
        copied = Snapshot(json.loads(json.dumps(snapshot.facts)), load(save(snapshot.tensors)))
        copied.check()
        written.append((member.key, copied))
    second = Population(
        split.task, *split.streams(BATCH, seed=5, number=0), epoch=first.epoch, batch=first.batch
    )
    second.add([Member.restored(key, snapshot) for key, snapshot in reversed(written)])
    while second.epoch < 3:
        second.run_epoch(split.validation)
    for one, other in zip(unbroken.members, second.members, strict=True):
        assert one.key == other.key
        ours = unbroken.snapshot(one)
        theirs = second.snapshot(other)
        assert [record.folds for record in one.history.records] == [
            record.folds for record in other.history.records
        ]
        for name, tensor in ours.tensors.items():
            assert torch.equal(tensor, theirs.tensors[name]), name


def test_a_snapshot_with_a_fold_too_few_is_refused(split: Split) -> None:
    whole = population(split)
    whole.add(members()[:1])
    whole.run_epoch(split.validation)
    snapshot = whole.snapshot(whole.members[0])
    fewer = {name: one for name, one in snapshot.tensors.items() if not name.startswith("2.")}
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot(snapshot.facts, fewer).check()


def test_one_that_diverges_in_one_fold_has_diverged(split: Split) -> None:
    both = population(split)
    sick, well = members()[:2]
    both.add([sick, well])
    both.run_epoch(split.validation)
    network = sick.networks[1]
    for tensor in network.optimizer.state["mean"]:
        tensor.fill_(float("inf"))
    records = both.run_epoch(split.validation)
    assert [record.diverged for record in records] == [True, False]
