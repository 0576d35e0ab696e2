from __future__ import annotations

from collections.abc import Callable

import pytest

from hpo.definition import Choice, IntRange, StudyDefinition

Load = Callable[..., StudyDefinition]
Problems = Callable[..., list[str]]


def test_a_leaf_a_range_and_a_whole_section(load: Load) -> None:
    study = load(
        None,
        "training.epochs=7",
        "model.mlp.layers={int: [1, 3]}",
        "optimizer={adam: {lr: 1e-3}}",
        "search.seed = 4",
    )
    assert study.training.epochs == 7
    assert study.model.mlp is not None
    assert study.model.mlp.layers == IntRange(1, 3)
    assert list(study.optimizer.options) == ["adam"]
    assert study.search.seed == 4


def test_the_last_one_wins(load: Load) -> None:
    assert load(None, "training.epochs=7", "training.epochs=8").training.epochs == 8


def test_sections_that_the_file_leaves_out_are_made(load: Load) -> None:
    study = load(None, "search.pruner.median.startup_trials=9")
    assert study.search.pruner.name == "median"
    assert load(None, "search.sampler=random").search.sampler.name == "random"


def test_an_option_can_be_added(load: Load) -> None:
    assert list(load(None, "optimizer.nadam.lr=0.1").optimizer.options) == ["sgd", "nadam"]


def test_widths_can_take_the_place_of_layers(load: Load) -> None:
    study = load(
        None, "model.mlp.layers=null", "model.mlp.width=null", "model.mlp.widths=[64, 32]"
    )
    assert study.model.mlp is not None
    assert study.model.mlp.widths == (64, 32)


def test_an_override_mends_what_the_file_has_wrong(load: Load) -> None:
    text = (
        "dataset: {name: digits}\nmodel: {mlp: {layers: 1, width: 32}}\n"
        "optimizer: {sgd: {lr: 0.1}}\ntraining: {batch_size: {choice: [0, 1]}, epochs: 3}\n"
    )
    assert load(text, "training.batch_size.choice=[8, 16]").training.batch_size == Choice((8, 16))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("training.epochs=0", "training.epochs: 0 is below 1; a run lasts 1 to 100000 epochs"),
        ("training.epoch=3", "training.epoch: unknown key; did you mean `epochs`?"),
        ("trainin.epochs=3", "trainin.epochs: trainin: unknown key; did you mean `training`?"),
        ("epochs=3", "epochs: unknown key; did you mean `training.epochs`?"),
        (
            "training.epochs.x=3",
            "training.epochs.x: `training.epochs` is 3, so there is nothing below it to set",
        ),
        ("foo", "'foo': write it as key.path=value, as in `--set training.epochs=3`"),
        ("=3", "'': write it as key.path=value, as in `--set training.epochs=3`"),
        ("a..b=3", "'a..b': write it as key.path=value, as in `--set training.epochs=3`"),
        (
            "optimizer={sgd: {lr: -1}}",
            "optimizer: optimizer.sgd.lr: -1.0 is not above 0; a learning rate is above 0",
        ),
        (
            "training.epochs=",
            "training.epochs: a value is missing here; a whole number is wanted",
        ),
        (
            "training.epochs=!!int 3",
            "training.epochs: the tag '!!int' is refused; a study is plain data",
        ),
        ("training.epochs=[1", "training.epochs: this is not YAML: "),
        ("training.epochs=3\udcff", "training.epochs: this is not UTF-8 text"),
        ("training.e\udcff=3", "'training.e\\udcff': this is not UTF-8 text"),
        ("dataset.augment=[{flip: {}}]", "dataset.augment: dataset.augment[0].flip: unknown key"),
        ("name=x", "name: a study is named after its file"),
    ],
)
def test_problems_name_the_override(problems: Problems, override: str, problem: str) -> None:
    (found,) = problems(None, override)
    assert found.startswith(f"--set {problem}")


def test_problems_of_the_file_come_first(problems: Problems) -> None:
    found = problems("nonsense: 1\n", "search.trials=0")
    assert found[-1].startswith("--set search.trials: 0 is below 1")
    assert all(line.startswith("study.yaml:1: ") for line in found[:-1])


def test_a_key_that_is_given_twice_is_named(problems: Problems) -> None:
    (found,) = problems(None, "optimizer={sgd: {lr: 0.1, lr: 0.2}}")
    assert found.startswith("--set optimizer: sgd.lr: this key is given twice")
