from __future__ import annotations

import itertools
import json
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpo import space
from hpo.config import CnnConfig, MlpConfig, NumpyCnnConfig, TrialConfig
from hpo.definition import (
    ACTIVATIONS,
    INITIALIZATIONS,
    Choice,
    FloatRange,
    IntRange,
    Range,
    StudyDefinition,
    load_definition,
)

# --- a stand-in for a trial, which knows nothing of Optuna


class Scripted:
    """Answers with `pick`, and keeps what it was asked."""

    def __init__(self, pick: Callable[[str, Sequence[Any]], Any] | None = None) -> None:
        self.asked: dict[str, Range] = {}
        self.answers: dict[str, Any] = {}
        self._pick = pick or (lambda _name, values: values[0])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        values = range(low, high + 1, step)
        return int(self._answer(name, IntRange(low, high, log, step), values))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._answer(name, FloatRange(low, high, log, step), (low, high)))

    def suggest_categorical(self, name: str, choices: Sequence[bool | int | float | str]) -> Any:
        return self._answer(name, Choice(tuple(choices)), choices)

    def _answer(self, name: str, asked: Range, values: Sequence[Any]) -> Any:
        assert name not in self.asked, f"{name} is asked for twice in one trial"
        self.asked[name] = asked
        self.answers[name] = self._pick(name, values)
        return self.answers[name]


def as_optuna(leaf: Range) -> optuna.distributions.BaseDistribution:
    if isinstance(leaf, IntRange):
        return IntDistribution(leaf.low, leaf.high, log=leaf.log, step=leaf.step)
    if isinstance(leaf, FloatRange):
        return FloatDistribution(leaf.low, leaf.high, log=leaf.log, step=leaf.step)
    return CategoricalDistribution(leaf.choices)


# --- random valid definitions, as they are written


def whole(low: int, high: int) -> st.SearchStrategy[Any]:
    """A constant or a range of whole numbers within the bounds."""
    number = st.integers(low, high)
    pairs = st.tuples(number, number).map(sorted)
    logged = st.tuples(st.integers(max(low, 1), high), st.integers(max(low, 1), high)).map(sorted)
    stepped = st.tuples(number, st.integers(1, 9), st.integers(0, 9)).map(
        lambda t: {"int": [t[0], t[0] + (min(t[2], (high - t[0]) // t[1])) * t[1]], "step": t[1]}
    )
    return st.one_of(
        number,
        pairs.map(lambda pair: {"int": pair}),
        logged.map(lambda pair: {"int": pair, "log": True}),
        stepped,
        choice(number),
    )


def real(low: float, high: float) -> st.SearchStrategy[Any]:
    """A constant or a range of numbers within the bounds, these included."""
    number = st.floats(low, high, allow_nan=False)
    pairs = st.tuples(number, number).map(sorted)
    above = st.floats(max(low, 1e-12), high)
    logged = st.tuples(above, above).map(sorted)
    return st.one_of(
        number,
        pairs.map(lambda pair: {"float": pair}),
        logged.map(lambda pair: {"float": pair, "log": True}),
        choice(number),
    )


def choice(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, min_size=1, max_size=4, unique=True).map(lambda c: {"choice": c})


def word(words: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(words) | choice(st.sampled_from(words))


SHARE = real(0.0, 0.99)
DECAY = real(0.0, 1.0)
LR = real(1e-6, 10.0)

HIDDEN = {
    "activation": word(ACTIVATIONS),
    "batch_norm": word([True, False]),
    "dropout": SHARE,
    "initialization": word(INITIALIZATIONS),
}
MLPS = st.one_of(
    st.fixed_dictionaries({"layers": whole(0, 5), "width": whole(1, 300)}, optional=HIDDEN),
    st.fixed_dictionaries({"widths": st.lists(st.integers(1, 300), max_size=4)}, optional=HIDDEN),
)
NUMPY_CNNS = {
    "kernel": st.sampled_from([1, 3, {"choice": [5, 3]}, {"int": [3, 7], "step": 2}]),
    "pool": whole(1, 3),
    "hidden": whole(0, 300),
    "activation": word(ACTIVATIONS),
    "initialization": word(INITIALIZATIONS),
}
STAGES = {"stages": whole(1, 5), "channels": whole(1, 300)}
NUMPY_CNN = st.fixed_dictionaries(STAGES, optional=NUMPY_CNNS)
CNN = st.fixed_dictionaries(STAGES, optional={**NUMPY_CNNS, **HIDDEN})
ADAM = st.fixed_dictionaries(
    {"lr": LR},
    optional={"beta1": SHARE, "beta2": SHARE, "epsilon": LR, "weight_decay": DECAY},
)


def some_of(options: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=options).filter(bool)


OPTIMIZERS = some_of(
    {
        "sgd": st.fixed_dictionaries(
            {"lr": LR, "momentum": real(0.01, 0.99)},
            optional={"nesterov": word([True, False]), "weight_decay": DECAY},
        ),
        "adam": ADAM,
        "adamw": ADAM,
        "nadam": ADAM,
        "rmsprop": st.fixed_dictionaries({"lr": LR}, optional={"alpha": SHARE, "momentum": SHARE}),
    }
)
SCHEDULES = some_of(
    {
        "constant": st.just({}),
        "cosine": st.fixed_dictionaries({}, optional={"warmup": SHARE}),
        "step": st.fixed_dictionaries({}, optional={"every": whole(1, 50), "gamma": real(0.1, 1)}),
    }
)
TRAINING = st.fixed_dictionaries(
    {"batch_size": whole(1, 4096), "epochs": st.integers(1, 100)},
    optional={
        "label_smoothing": SHARE,
        "early_stopping": st.just(None)
        | st.fixed_dictionaries(
            {"patience": st.integers(1, 9)},
            optional={"metric": st.sampled_from(["accuracy", "loss"])},
        ),
        "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]),
    },
)
AUGMENTATIONS = st.lists(
    st.sampled_from([{"horizontal_flip": {}}, {"rotation": {"degrees": 10}}, "color_jitter"])
)
SEARCH = st.fixed_dictionaries(
    {},
    optional={
        "trials": st.integers(1, 10**6),
        "sampler": st.sampled_from(["tpe", "random", {"tpe": {"startup_trials": 3}}]),
        "pruner": st.sampled_from(["asha", "median", "none", {"asha": {"reduction": 3}}]),
        "metric": st.sampled_from(["accuracy", "loss"]),
        "seed": st.integers(0, 2**32 - 1),
    },
)
STUDIES = st.fixed_dictionaries(
    {
        "name": st.just("study"),
        "dataset": st.fixed_dictionaries(
            {"name": st.just("digits")}, optional={"augment": AUGMENTATIONS}
        ),
        "model": some_of({"mlp": MLPS, "cnn": CNN}),
        "optimizer": OPTIMIZERS,
        "training": TRAINING,
    },
    optional={"schedule": SCHEDULES, "search": SEARCH},
)


def widths(config: TrialConfig) -> tuple[int, ...]:
    assert isinstance(config.model, MlpConfig)
    return config.model.widths


def definition_of(data: dict[str, Any]) -> StudyDefinition:
    return StudyDefinition.from_json(json.dumps(data))


def small(**changes: Any) -> StudyDefinition:
    return definition_of(
        {
            "name": "small",
            "dataset": {"name": "digits"},
            "model": {"mlp": {"layers": 1, "width": 32}},
            "optimizer": {"sgd": {"lr": 0.1}},
            "training": {"batch_size": 32, "epochs": 3},
            **changes,
        }
    )


# --- properties


@given(STUDIES)
@settings(max_examples=100, deadline=None)
def test_a_definition_comes_back_from_json_and_from_yaml(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    study = definition_of(data)
    assert StudyDefinition.from_json(study.to_json()) == study
    assert StudyDefinition.from_json(study.to_json()).to_json() == study.to_json()
    path = tmp_path_factory.getbasetemp() / "study.yaml"
    written = json.loads(study.to_json())
    del written["name"]
    path.write_text(yaml.safe_dump(written))
    assert load_definition(path) == study
    assert space.differences(study, load_definition(path)) == []


@given(STUDIES, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_every_draw_is_legal_and_its_names_are_described(
    data: dict[str, Any], source: random.Random
) -> None:
    study = definition_of(data)
    described = space.describe(study)
    trial = Scripted(lambda _name, values: source.choice(values))
    config = space.draw(study, trial)
    assert_legal(config, study)
    assert {name: described[name] for name in trial.asked} == trial.asked
    order = list(described)
    assert [order.index(name) for name in trial.asked] == sorted(map(order.index, trial.asked))
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert space.draw(study, Scripted(lambda name, _values: trial.answers[name])) == config


@given(STUDIES)
@settings(max_examples=50, deadline=None)
def test_optuna_takes_every_range_as_it_stands(data: dict[str, Any]) -> None:
    study = definition_of(data)
    described = space.describe(study)
    search = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        trial = search.ask()
        assert_legal(space.draw(study, trial), study)
        for name, distribution in trial.distributions.items():
            assert distribution == as_optuna(described[name])
        search.tell(trial, 0.0)


def assert_legal(config: TrialConfig, study: StudyDefinition) -> None:
    model, optimizer, schedule = config.model, config.optimizer, config.schedule
    assert model.family in study.model.options
    sizes = model.widths if isinstance(model, MlpConfig) else model.channels
    assert len(sizes) <= 5
    assert all(type(size) is int and 1 <= size <= 300 for size in sizes)
    if isinstance(model, CnnConfig):
        assert len(sizes) >= 1
        assert model.kernel in (1, 3, 5, 7)
        assert 1 <= model.pool <= 3
        assert 0 <= model.hidden <= 300
    assert model.activation in ACTIVATIONS
    assert model.initialization in INITIALIZATIONS
    assert type(model.batch_norm) is bool
    assert 0 <= model.dropout < 1
    assert optimizer.name in study.optimizer.options
    assert 0 < optimizer.lr <= 10
    assert not optimizer.nesterov or optimizer.momentum > 0
    assert schedule.name in study.schedule.options
    assert 0 <= schedule.warmup < 1
    assert type(config.batch_size) is int
    assert 1 <= config.batch_size <= 4096
    assert 0 <= config.label_smoothing < 1
    assert config.epochs == study.training.epochs


# --- conditions and names


def test_names_and_their_order() -> None:
    study = small(
        model={
            "mlp": {
                "layers": {"int": [1, 3]},
                "width": {"int": [8, 64], "log": True},
                "activation": {"choice": ["relu", "gelu"]},
                "batch_norm": {"choice": [True, False]},
                "dropout": {"float": [0.0, 0.5]},
                "initialization": {"choice": ["he", "lecun"]},
            }
        },
        optimizer={
            "sgd": {"lr": {"float": [0.01, 1.0], "log": True}, "momentum": {"float": [0.5, 0.9]}},
            "adamw": {"lr": {"float": [1e-4, 1e-2], "log": True}},
        },
        schedule={"constant": {}, "cosine": {"warmup": {"float": [0, 0.2]}}},
        training={
            "batch_size": {"choice": [32, 64]},
            "epochs": 3,
            "label_smoothing": {"float": [0.0, 0.2]},
        },
    )
    trial = Scripted(lambda _name, values: values[-1])
    config = space.draw(study, trial)
    assert list(trial.asked) == [
        "mlp.layers",
        "mlp.width_0",
        "mlp.width_1",
        "mlp.width_2",
        "mlp.activation",
        "mlp.batch_norm",
        "mlp.dropout",
        "mlp.initialization",
        "optimizer",
        "adamw.lr",
        "schedule",
        "cosine.warmup",
        "training.batch_size",
        "training.label_smoothing",
    ]
    assert widths(config) == (64, 64, 64)
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("adamw", 0.01)
    assert (config.schedule.name, config.schedule.warmup) == ("cosine", 0.2)
    first = Scripted()
    assert space.draw(study, first).optimizer.momentum == 0.5
    assert list(first.asked)[-5:] == [
        "sgd.lr",
        "sgd.momentum",
        "schedule",
        "training.batch_size",
        "training.label_smoothing",
    ]
    assert "mlp.width_1" not in first.asked
    assert space.BATCH_SIZE in space.describe(study)


def test_a_study_of_constants_asks_for_nothing() -> None:
    study = small(training={"batch_size": 32, "epochs": 3, "early_stopping": {"patience": 2}})
    trial = Scripted()
    config = space.draw(study, trial)
    assert trial.asked == {}
    assert space.describe(study) == {}
    assert space.cardinality(study) == 1
    assert widths(config) == (32,)
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.1)
    assert (config.batch_size, config.epochs, config.patience) == (32, 3, 2)


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_what_early_stopping_waits_for_is_the_studys_metric_unless_it_says_otherwise(
    metric: str,
) -> None:
    def study(**stopping: str) -> StudyDefinition:
        early = {"patience": 2, **stopping}
        training = {"batch_size": 32, "epochs": 3, "early_stopping": early}
        return small(training=training, search={"metric": metric})

    other = "loss" if metric == "accuracy" else "accuracy"
    assert space.draw(study(), Scripted()).stopping_metric is None
    assert space.draw(study(metric=metric), Scripted()).stopping_metric is None
    assert space.draw(study(metric=other), Scripted()).stopping_metric == other
    assert space.differences(study(), study(metric=metric)) == []
    assert len(space.differences(study(), study(metric=other))) == 1


def test_a_config_of_before_it_could_be_chosen_still_loads() -> None:
    config = space.draw(small(), Scripted())
    old = {key: value for key, value in config.to_dict().items() if key != "stopping_metric"}
    assert TrialConfig.from_dict(old) == config


def test_without_hidden_layers_what_they_have_is_not_drawn() -> None:
    study = small(
        model={
            "mlp": {
                "layers": {"int": [0, 1]},
                "width": 8,
                "dropout": {"float": [0.1, 0.5]},
                "initialization": {"choice": ["he", "lecun"]},
            }
        }
    )
    trial = Scripted()
    assert space.draw(study, trial).model.dropout == 0.0
    assert list(trial.asked) == ["mlp.layers", "mlp.initialization"]


def test_the_family_is_a_choice_and_only_its_own_ranges_are_drawn() -> None:
    stages = {"stages": {"int": [1, 2]}, "channels": {"int": [4, 8]}}
    study = small(
        model={
            "numpy_cnn": {**stages, "hidden": {"choice": [0, 16]}},
            "cnn": {**stages, "kernel": 5, "pool": {"int": [1, 2]}, "dropout": 0.5},
            "mlp": {"widths": [8], "dropout": {"float": [0.0, 0.5]}},
        }
    )
    found = {}
    for family in ("mlp", "cnn", "numpy_cnn"):

        def last(name: str, values: Sequence[Any], family: str = family) -> Any:
            return family if name == "model" else values[-1]

        trial = Scripted(last)
        found[family] = (space.draw(study, trial).model, list(trial.asked))
    assert found["mlp"] == (MlpConfig(widths=(8,), dropout=0.5), ["model", "mlp.dropout"])
    assert found["cnn"] == (
        CnnConfig(channels=(8, 8), kernel=5, pool=2, dropout=0.5),
        ["model", "cnn.stages", "cnn.channels_0", "cnn.channels_1", "cnn.pool"],
    )
    assert found["numpy_cnn"] == (
        NumpyCnnConfig(channels=(8, 8), hidden=16),
        [
            *("model", "numpy_cnn.stages", "numpy_cnn.channels_0", "numpy_cnn.channels_1"),
            "numpy_cnn.hidden",
        ],
    )
    asked = space.describe(study)
    assert asked["model"] == Choice(("mlp", "cnn", "numpy_cnn"))
    assert {name for _, names in found.values() for name in names} == set(asked)


@given(NUMPY_CNN, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_networks_in_numpy_are_drawn(section: dict[str, Any], source: random.Random) -> None:
    study = small(model={"numpy_cnn": section})
    config = space.draw(study, Scripted(lambda _name, values: source.choice(values)))
    assert isinstance(config.model, NumpyCnnConfig)
    data = json.loads(json.dumps(config.to_dict()))
    assert data["model"]["family"] == "numpy_cnn"
    assert TrialConfig.from_dict(data) == config


def test_a_config_from_before_there_were_families_is_a_perceptron() -> None:
    config = space.draw(small(), Scripted())
    data = config.to_dict()
    assert data["model"].pop("family") == "mlp"
    assert TrialConfig.from_dict(data) == config


def test_fixed_widths() -> None:
    study = small(model={"mlp": {"widths": [2048, 512, 256], "dropout": {"choice": [0.1, 0.2]}}})
    trial = Scripted()
    assert widths(space.draw(study, trial)) == (2048, 512, 256)
    assert list(trial.asked) == ["mlp.dropout"]


@pytest.mark.parametrize("name", ["mnist_cnn", "mnist_numpy_cnn"])
def test_every_parameter_of_the_convolutional_spaces_is_drawn(name: str) -> None:
    study = load_definition(Path(__file__).parent.parent / "studies" / f"{name}.yaml")
    search = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: set[str] = set()
    for number in range(30):
        trial = search.ask()
        space.draw(study, trial)
        seen.update(trial.params)
        search.tell(trial, float(number % 7))
    assert seen == set(space.describe(study))


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
def test_tpe_models_the_shipped_spaces_without_a_word(name: str) -> None:
    study = load_definition(Path(__file__).parent.parent / "studies" / f"{name}.yaml")
    described = space.describe(study)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(group=True, multivariate=True, seed=0)
    search = optuna.create_study(sampler=sampler)
    seen: set[str] = set()
    for number in range(30):
        trial = search.ask()
        config = space.draw(study, trial)
        assert len(widths(config)) == trial.params["mlp.layers"]
        for parameter, distribution in trial.distributions.items():
            assert distribution == as_optuna(described[parameter])
        seen.update(trial.params)
        search.tell(trial, float(number % 7))
    assert seen == set(described)


# --- comparing

STOPPING = {"patience": 2, "metric": "loss"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model": {"mlp": {"layers": 1, "width": 32, "dropout": {"float": [0.0, 0.5]}}}},
            "mlp.dropout: was 0.0, is float 0.0 to 0.5",
        ),
        (
            {"optimizer": {"sgd": {"lr": {"float": [0.1, 1.0], "log": True}}}},
            "sgd.lr: was 0.1, is log float 0.1 to 1.0",
        ),
        ({"training": {"batch_size": 64, "epochs": 3}}, "training.batch_size: was 32, is 64"),
        ({"training": {"batch_size": 32, "epochs": 4}}, "training.epochs: was 3, is 4"),
        (
            {"training": {"batch_size": 32, "epochs": 3, "early_stopping": {"patience": 2}}},
            "training.early_stopping: was off, is patience 2",
        ),
        (
            {"training": {"batch_size": 32, "epochs": 3, "early_stopping": STOPPING}},
            "training.early_stopping: was off, is patience 2 on loss",
        ),
        ({"search": {"seed": 1}}, "search.seed: was 0, is 1"),
        ({"search": {"metric": "loss"}}, "search.metric: was accuracy, is loss"),
        ({"dataset": {"name": "mnist"}}, "dataset.name: was digits, is mnist"),
        (
            {"dataset": {"name": "digits", "augment": [{"rotation": {"degrees": 5}}]}},
            "dataset.augment: was none, is rotation (degrees 5.0)",
        ),
    ],
)
def test_each_difference_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert space.differences(small(), small(**changes)) == [sentence]


def test_an_optimizer_more_is_a_difference() -> None:
    more = small(optimizer={"sgd": {"lr": 0.1}, "rmsprop": {"lr": 0.1}})
    assert space.differences(small(), more)[:2] == [
        "optimizer: was sgd, is choice of [sgd, rmsprop]",
        "rmsprop.lr: was not there, is 0.1",
    ]


def test_what_may_change_on_resume() -> None:
    other = small(
        name="other",
        search={"trials": 7, "sampler": "random", "pruner": "none"},
        retrain={"finalists": 1, "seeds": 2},
        training={"batch_size": 32, "epochs": 3, "device": "cpu", "precision": "float32"},
    )
    assert space.differences(small(), other) == []


# --- counting


def every_draw(study: StudyDefinition) -> Iterator[tuple[tuple[str, Any], ...]]:
    """Walk the whole tree of answers, one branch after another."""
    script: list[tuple[Any, ...]] = [()]
    while script:
        prefix = script.pop()
        answers: list[Any] = []
        forks: list[tuple[Any, ...]] = []

        def pick(
            name: str,
            values: Sequence[Any],
            prefix: tuple[Any, ...] = prefix,
            answers: list[Any] = answers,
            forks: list[tuple[Any, ...]] = forks,
        ) -> Any:
            place = len(answers)
            if place < len(prefix):
                answers.append(prefix[place])
            else:
                forks.extend((*answers, other) for other in itertools.islice(values, 1, None))
                answers.append(values[0])
            return answers[-1]

        trial = Scripted(pick)
        space.draw(study, trial)
        script += forks
        yield tuple(trial.answers.items())


@pytest.mark.parametrize("width", [{"int": [4, 8], "step": 2}, {"choice": [4, 16]}, 8])
@pytest.mark.parametrize("layers", [{"int": [0, 2]}, {"choice": [1, 3]}, 2, 0])
def test_cardinality_is_the_number_of_different_draws(layers: Any, width: Any) -> None:
    study = small(
        model={
            "mlp": {
                "layers": layers,
                "width": width,
                "activation": {"choice": ["relu", "gelu"]},
                "initialization": {"choice": ["he", "lecun"]},
            }
        },
        optimizer={"sgd": {"lr": {"choice": [0.1, 0.2]}}, "adam": {"lr": 0.1}},
        schedule={"constant": {}, "step": {"every": {"int": [1, 3]}}},
        training={"batch_size": {"int": [8, 9]}, "epochs": 1},
    )
    draws = list(every_draw(study))
    assert len(set(draws)) == len(draws) == space.cardinality(study)


def test_cardinality_with_several_families() -> None:
    stages = {"stages": {"int": [1, 3]}, "channels": {"choice": [4, 8]}}
    study = small(
        model={
            "numpy_cnn": {**stages, "pool": {"int": [1, 3]}},
            "cnn": {**stages, "kernel": {"int": [1, 5], "step": 2}, "hidden": {"int": [0, 1]}},
            "mlp": {"layers": {"int": [0, 1]}, "width": {"int": [1, 3]}},
        }
    )
    draws = list(every_draw(study))
    assert len(set(draws)) == len(draws) == space.cardinality(study) == 14 * 3 + 14 * 6 + 4


def test_cardinality_of_float_ranges() -> None:
    def smoothing(leaf: Any) -> StudyDefinition:
        return small(training={"batch_size": 8, "epochs": 1, "label_smoothing": leaf})

    assert space.cardinality(smoothing({"float": [0.0, 0.3]})) is None
    assert space.cardinality(smoothing({"float": [0.0, 0.3], "step": 0.1})) == 4
    assert space.cardinality(smoothing({"float": [0.1, 0.1]})) == 1
