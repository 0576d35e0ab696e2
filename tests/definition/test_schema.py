from __future__ import annotations

from collections.abc import Callable

import pytest

from hpo.definition import Choice, FloatRange, IntRange, StudyDefinition

Load = Callable[..., StudyDefinition]
Problems = Callable[..., list[str]]

ADAM = "optimizer={adam: {lr: 0.1, "
SGD = "optimizer={sgd: {lr: 0.1, "
RMSPROP = "optimizer={rmsprop: {lr: 0.1, "


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        # dataset
        ("dataset.validation=0", "0.0 is not above 0"),
        ("dataset.validation=1", "1.0 is not below 1"),
        ("dataset.validation={float: [0.1, 0.2]}", "a mapping is not a number"),
        ("dataset.name=../x", "'../x' is not the name of a dataset"),
        ("dataset.name=3", "3 is not the name of a dataset"),
        ("dataset.augment={rotation: {degrees: 1}}", "a mapping stands where a list is wanted"),
        ("dataset.augment=[{rotation: {}}]", "this key is missing"),
        ("dataset.augment=[{rotation: {degrees: -1}}]", "-1.0 is below 0"),
        ("dataset.augment=[{rotation: {degrees: 1}, random_crop: {padding: 1}}]", "no more"),
        ("dataset.augment=[{}]", "give at least one augmentation"),
        ("dataset.augment=[{random_crop: {padding: 1.5}}]", "1.5 is not a whole number"),
        ("dataset.augment=[{horizontal_flip: {probability: 1.1}}]", "it is a probability"),
        ("dataset.augment=[{color_jitter: {hue: 0.6}}]", "0.6 is above 0.5"),
        ("dataset.augment=[{color_jitter: {contrast: -0.1}}]", "-0.1 is below 0"),
        ("dataset.augment=[{rotation: {degrees: {float: [1, 2]}}}]", "not a number"),
        # model
        ("model={}", "give at least one family of networks: mlp, cnn, numpy_cnn"),
        ("model={rnn: {}}", "unknown key; did you mean `cnn`?"),
        ("model=mlp", "'mlp' stands where a mapping is wanted"),
        ("model={mlp: {width: 3}}", "`layers` missing; give `layers` and `width`, or `widths`"),
        ("model={mlp: {}}", "`layers` and `width` missing"),
        ("model={mlp: {widths: [3], width: 3}}", "`widths` fixes every layer"),
        ("model={mlp: {widths: [3, 0]}}", "0 is below 1; a layer has 1 to 65536 units"),
        ("model={mlp: {widths: 3}}", "3 stands where a list is wanted"),
        (f"model={{mlp: {{widths: {[1] * 33}}}}}", "a list of at most 32 entries"),
        ("model.mlp.layers=33", "33 is above 32"),
        ("model.mlp.layers=true", "true is not a whole number"),
        ("model.mlp.width=65537", "65537 is above 65536"),
        ("model.mlp.dropout=1", "1.0 is not below 1; a dropout is a probability"),
        ("model.mlp.dropout=1.2", "1.2 is above 1; a dropout is a probability"),
        ("model.mlp.dropout={float: [0, 1]}", "1.0 is not below 1"),
        ("model.mlp.dropout={int: [0, 1]}", "`int` does not fit here"),
        ("model.mlp.dropout=.nan", "nan is not a finite number"),
        ("model.mlp.dropout=.inf", "inf is not a finite number"),
        ("model.mlp.dropout=nan", "'nan' is not a number"),
        ("model.mlp.dropout=", "a value is missing here"),
        ("model.mlp.dropout=[0.1, 0.2]", "a list is not a number"),
        ("model.mlp.dropout=true", "true is not a number"),
        ("model.mlp.activation=sigmoid", "'sigmoid' is not an activation"),
        ("model.mlp.activation={int: [1, 2]}", "`int` does not fit here"),
        ("model.mlp.activation={choice: [silu, swish]}", "'silu' is given twice"),
        ("model.mlp.batch_norm=1", "1 is neither true nor false"),
        ("model.mlp.batch_norm={choice: [true, true]}", "true is given twice"),
        ("model.mlp.initialization=hee", "did you mean `he`?"),
        # ranges
        ("model.mlp.layers={int: [1]}", "a range has two bounds"),
        ("model.mlp.layers={int: 3}", "a range has two bounds"),
        ("model.mlp.layers={int: [1, 2, 3]}", "a range has two bounds"),
        ("model.mlp.layers={int: [3, 1]}", "the range's low, 3, is above its high, 1"),
        ("model.mlp.layers={int: [1, 2.5]}", "2.5 is not a whole number"),
        ("model.mlp.layers={int: [0, 4], log: true}", "begins above 0, not at 0"),
        ("model.mlp.layers={int: [1, 4], log: 1}", "`log` is true or false, not 1"),
        ("model.mlp.layers={int: [1, 4], log: true, step: 1}", "exclude each other"),
        ("model.mlp.layers={int: [1, 4], step: 0}", "a step is above 0, not 0"),
        ("model.mlp.layers={int: [1, 4], step: 0.5}", "`step`: 0.5 is not a whole number"),
        ("model.mlp.layers={int: [1, 10], step: 4}", "write {int: [1, 9], step: 4}"),
        ("model.mlp.dropout={float: [0, 0.5], step: 0.2}", "write {float: [0.0, 0.4], step: 0.2}"),
        ("model.mlp.dropout={float: [0, 0.5], step: 1e-300}", "over a million values"),
        ("model.mlp.layers={int: [1, 4], lgo: true}", "did you mean `log`?"),
        ("model.mlp.layers={int: [1, 4], choice: [1]}", "one of them"),
        ("model.mlp.layers={}", "a range is written {int: [low, high]} or {choice: [...]}"),
        ("model.mlp.layers={choice: []}", "a choice is a list of values"),
        ("model.mlp.layers={choice: 3}", "a choice is a list of values"),
        ("model.mlp.layers={choice: [1, 1.0]}", "1 is given twice"),
        ("model.mlp.layers={choice: [1, two]}", "'two' is not a whole number"),
        ("model.mlp.layers={choice: [1, null]}", "a value is missing here"),
        ("model.mlp.layers={choice: [1], step: 1}", "unknown key 'step' in a range"),
        # optimizer
        ("optimizer={}", "give at least one optimizer"),
        ("optimizer={lion: {lr: 1}}", "unknown key"),
        ("optimizer={sgd: 0.1}", "0.1 stands where a mapping is wanted"),
        ("optimizer.sgd.lr=0", "0.0 is not above 0; a learning rate is above 0"),
        ("optimizer.sgd.lr={float: [0, 1]}", "0.0 is not above 0"),
        ("optimizer.sgd.momentum=1", "1.0 is not below 1"),
        (SGD + "nesterov: true}}", "nesterov needs a momentum that is above 0"),
        (SGD + "nesterov: true, momentum: {float: [0, 0.9]}}}", "nesterov needs a momentum"),
        (SGD + "nesterov: {choice: [true, false]}, momentum: {choice: [0.9, 0]}}}", "nesterov"),
        (SGD + "beta1: 0.9}}", "unknown key"),
        (ADAM + "beta2: 1}}", "1.0 is not below 1"),
        (ADAM + "epsilon: 0}}", "0.0 is not above 0"),
        (ADAM + "weight_decay: -1}}", "-1.0 is below 0"),
        (ADAM + "momentum: 0.9}}", "unknown key"),
        (RMSPROP + "alpha: 1}}", "1.0 is not below 1"),
        (RMSPROP + "nesterov: true}}", "unknown key"),
        # schedule
        ("schedule={}", "give at least one schedule"),
        ("schedule={cosine: {warmup: 1}}", "1.0 is not below 1"),
        ("schedule={step: {every: 0}}", "0 is below 1"),
        ("schedule={step: {gamma: 0}}", "0.0 is not above 0"),
        # training
        ("training.batch_size=0", "0 is below 1"),
        ("training.epochs={int: [1, 3]}", "a mapping is not a whole number"),
        ("training.epochs=100001", "100001 is above 100000"),
        ("training.early_stopping={}", "this key is missing"),
        ("training.early_stopping.patience=0", "0 is below 1"),
        ("training.early_stopping={patience: 2, metric: los}", "did you mean `loss`?"),
        ("training.early_stopping={patience: 2, metric: {choice: [loss]}}", "is not a metric"),
        ("training.label_smoothing=1", "1.0 is not below 1"),
        ("training.device=gpu", "'gpu' is not auto, cpu, cuda or cuda:N"),
        ("training.device=cuda:", "is not auto, cpu, cuda or cuda:N"),
        ("training.precision=float16", "did you mean `bfloat16`?"),
        # search, retrain
        ("search.trials=0", "0 is below 1"),
        ("search.trials=1e9", "1000000000 is above 1000000"),
        ("search.sampler=tpee", "did you mean `tpe`?"),
        ("search.sampler={tpe: {startup_trials: -1}}", "-1 is below 0"),
        ("search.sampler=3", "3 stands where a mapping is wanted"),
        ("search.pruner={asha: {reduction: 1}}", "1 is below 2"),
        ("search.pruner={median: {reduction: 3}}", "unknown key"),
        ("search.metric=f1", "'f1' is not a metric"),
        ("search.seed=-1", "-1 is below 0"),
        ("search.seed=4294967296", "is above 4294967295"),
        ("retrain.finalists=0", "0 is below 1"),
        ("retrain.seeds=1.5", "1.5 is not a whole number"),
    ],
)
def test_every_rule_has_its_sentence(problems: Problems, override: str, sentence: str) -> None:
    (found,) = problems(None, override)
    assert sentence in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("'0.5'", True),
        ("' 0.2_5 '", True),
        ("'0x10'", True),
        ("'true'", False),
        ("'.inf'", False),
        ("1__0", False),
        ("\u0661", False),  # a digit to Python, not to YAML
    ],
)
def test_quotes_are_blamed_only_where_they_stand_around_a_number(
    problems: Problems, value: str, hint: bool
) -> None:
    (found,) = problems(None, f"model.mlp.dropout={value}")
    assert "is not a number" in found
    assert found.endswith("; write it without quotes") == hint


def test_each_bound_of_a_range_is_judged(problems: Problems) -> None:
    assert problems(None, "model.mlp.dropout={float: [-1, 2], log: 3}") == [
        f"--set model.mlp.dropout: {sentence}"
        for sentence in (
            "-1.0 is below 0; a dropout is a probability",
            "2.0 is above 1; a dropout is a probability",
        )
    ] + ["--set model.mlp.dropout: model.mlp.dropout.log: `log` is true or false, not 3"]


@pytest.mark.parametrize(
    ("override", "leaf"),
    [
        ("model.mlp.layers={int: [0, 32]}", IntRange(0, 32)),
        ("model.mlp.layers={int: [1, 9], step: 4}", IntRange(1, 9, step=4)),
        ("model.mlp.layers={int: [2, 2]}", IntRange(2, 2)),
        ("model.mlp.layers={choice: [1, 4]}", Choice((1, 4))),
        ("model.mlp.layers=2e0", 2),
        ("model.mlp.layers=0x10", 16),
        ("model.mlp.dropout=0.2_5", 0.25),
        ("model.mlp.dropout={float: [0, 0.3], step: 0.1}", FloatRange(0.0, 0.3, step=0.1)),
        ("model.mlp.dropout={choice: [0, 0.5]}", Choice((0.0, 0.5))),
        ("model.mlp.dropout=0", 0.0),
        ("model.mlp.activation=swish", "silu"),
        ("model.mlp.activation={choice: [tanh, swish]}", Choice(("tanh", "silu"))),
        ("model.mlp.initialization=glorot", "xavier"),
        ("model.mlp.batch_norm=on", True),
        ("model.mlp.batch_norm={choice: [no, yes]}", Choice((False, True))),
        ("optimizer.sgd.lr={float: [1e-4, 1], log: true}", FloatRange(1e-4, 1.0, log=True)),
        ("optimizer.sgd.lr=1e-4", 1e-4),
        ("training.label_smoothing={float: [0, 0.2]}", FloatRange(0.0, 0.2)),
        ("training.batch_size={int: [8, 64], log: true}", IntRange(8, 64, log=True)),
        ("training.device=cuda:3", "cuda:3"),
        ("training.precision=bfloat16", "bfloat16"),
        ("training.early_stopping=null", None),
    ],
)
def test_leaves(load: Load, override: str, leaf: object) -> None:
    found: object = load(None, override)
    for key in override.partition("=")[0].split("."):
        found = getattr(found, key)
    assert found == leaf
    assert type(found) is type(leaf)
    if isinstance(leaf, Choice) and isinstance(found, Choice):
        assert [type(value) for value in found.choices] == [type(value) for value in leaf.choices]


CNN = "model={cnn: {stages: 2, channels: 8, "


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model={cnn: {stages: 2}}",
            "`channels` missing; give `stages` and `channels`, or `stage_",
        ),
        ("model={cnn: {}}", "`stages` and `channels` missing"),
        (CNN + "stage_channels: [3]}}", "`stage_channels` fixes every stage, so `stages`"),
        ("model={cnn: {stage_channels: []}}", "an empty list stands here"),
        ("model={cnn: {stage_channels: [4, 0]}}", "0 is below 1; a convolution gives 1 to 4096"),
        ("model={cnn: {stages: 0, channels: 8}}", "0 is below 1; a network has 1 to 16 conv"),
        (CNN + "channel: 3}}", "unknown key; did you mean `channels`?"),
        (CNN + "widths: [3]}}", "unknown key; there are stages, channels, stage_channels"),
        (CNN + "kernel: 33}}", "33 is above 31; a kernel is 1 to 31 pixels wide"),
        (CNN + "kernel: 4}}", "model.cnn.kernel: a kernel of 4 is even; odd ones keep the size"),
        (CNN + "kernel: {int: [3, 5]}}}", "a kernel of 4 is even"),
        (CNN + "kernel: {choice: [3, 6]}}}", "a kernel of 6 is even"),
        (CNN + "pool: 0}}", "0 is below 1; a window of pooling is 1 to 16 pixels wide"),
        (CNN + "hidden: -1}}", "-1 is below 0; the head has 0 to 65536 hidden units"),
        (CNN + "dropout: 1}}", "1.0 is not below 1; a dropout is a probability"),
        (CNN + "activation: sigmoid}}", "'sigmoid' is not an activation"),
    ],
)
def test_every_rule_of_a_convolutional_family(
    problems: Problems, override: str, sentence: str
) -> None:
    found, *_ = problems(None, override)
    assert sentence in found
    assert "\n" not in found


NUMPY = """\
dataset: {name: digits}
model: {numpy_cnn: {stages: 2, channels: 8, kernel: {int: [1, 5], step: 2}}}
optimizer:
  sgd: {lr: 0.1, momentum: 0.9}
  adam: {lr: 0.001, epsilon: 1.0e-6}
schedule: {cosine: {warmup: 0.1}, step: {every: 2}}
training: {batch_size: 32, epochs: 3, label_smoothing: 0.1, precision: auto}
"""


def test_what_networks_in_numpy_have(load: Load) -> None:
    section = load(NUMPY).model.numpy_cnn
    assert section is not None
    assert (section.kernel, section.hidden) == (IntRange(1, 5, step=2), 0)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  adam:", "  adamw:", "5: optimizer.adamw: numpy_cnn has no adamw; there are sgd and"),
        ("  adam:", "  nadam:", "5: optimizer.nadam: numpy_cnn has no nadam"),
        ("epsilon: 1.0e-6", "weight_decay: 0.1", "5: optimizer.adam.weight_decay: numpy_cnn has"),
        ("momentum: 0.9", "momentum: 0.9, nesterov: true", "4: optimizer.sgd.nesterov: numpy_cnn"),
        (
            "momentum: 0.9",
            "weight_decay: {float: [0.0, 0.1]}",
            "4: optimizer.sgd.weight_decay: numpy_cnn has no weight_decay; leave it out",
        ),
        ("auto", "bfloat16", "7: training.precision: numpy_cnn calculates in float32"),
        ("channels: 8,", "channels: 8, dropout: 0.1,", "2: model.numpy_cnn.dropout: unknown key"),
    ],
)
def test_what_networks_in_numpy_do_not_have(
    problems: Problems, old: str, new: str, sentence: str
) -> None:
    (found,) = problems(NUMPY.replace(old, new))
    assert sentence in found


def test_nesterov_with_a_momentum_that_stays_above_zero(load: Load) -> None:
    for momentum in ("0.9", "{float: [0.1, 0.9]}", "{choice: [0.5, 0.9]}"):
        load(None, f"{SGD}nesterov: true, momentum: {momentum}}}}}")
    load(None, f"{SGD}nesterov: {{choice: [false]}}, momentum: 0}}}}")


def test_defaults_of_optimizers(load: Load) -> None:
    options = load(
        None,
        "optimizer={sgd: {lr: 1}, adam: {lr: 1}, adamw: {lr: 1}, nadam: {lr: 1}, "
        "rmsprop: {lr: 1}}",
    ).optimizer.options
    adam = {"lr": 1.0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0}
    assert {name: section.model_dump() for name, section in options.items()} == {
        "sgd": {"lr": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        "adam": adam,
        "adamw": {**adam, "weight_decay": 0.01},
        "nadam": adam,
        "rmsprop": {
            "lr": 1.0,
            "alpha": 0.99,
            "epsilon": 1e-8,
            "momentum": 0.0,
            "weight_decay": 0.0,
        },
    }
