"""Mean effects and spreads, on values that are known; and the values around a best one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from hpo import space
from hpo.config import MlpConfig, TrialConfig
from hpo.definition import Choice, FloatRange, IntRange, Range, StudyDefinition, load_definition
from hpo.definition.variations import factor
from hpo.errors import HpoError
from hpo.results.around import _values, around, spreads
from hpo.results.effects import mean_effects
from hpo.search.records import TrialRecord

Load = Callable[[str], StudyDefinition]

SEARCHED = """\
dataset: {name: digits}
model:
  mlp:
    layers: {int: [0, 3]}
    width: {int: [10, 1000], log: true}
    activation: {choice: [relu, tanh]}
    dropout: {float: [0.0, 0.6]}
optimizer:
  sgd: {lr: {float: [0.01, 1.0], log: true}, momentum: 0.5}
  adam: {lr: {choice: [0.001, 0.01]}, weight_decay: {float: [0.0, 0.1]}}
schedule: {constant: {}, cosine: {warmup: 0.1}}
training: {batch_size: {choice: [32, 64]}, epochs: 2, early_stopping: {patience: 2}}
search: {trials: 4, metric: accuracy, seed: 7}
"""


ZERO_LAYERS = {
    "mlp__layers": 0,
    "optimizer": "sgd",
    "sgd__lr": 0.2,
    "schedule": "cosine",
    "training__batch_size": 32,
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loader(text: str) -> StudyDefinition:
        path = tmp_path / "wide.yaml"
        path.write_text(text)
        return load_definition(path)

    return loader


def record(
    number: int, value: float | None, params: dict[str, Any], state: str = "complete", **rest: Any
) -> TrialRecord:
    made = {"config": None, "origin": {}, "outcome": {}, "curve": [], **rest}
    return TrialRecord(number, state, value, params, **made)


def widths(config: TrialConfig) -> tuple[int, ...]:
    assert isinstance(config.model, MlpConfig)
    return config.model.widths


def factor_of(definition: StudyDefinition, overrides: dict[str, Any]) -> str | None:
    """The parameter that a variation changes."""
    found = factor(definition.model_dump(mode="json"), overrides) if overrides else None
    return found and found[0]


def drawn(definition: StudyDefinition, number: int, value: float, **params: Any) -> TrialRecord:
    names = {key.replace("__", "."): one for key, one in params.items()}
    return record(number, value, names, config=space.draw(definition, FixedTrial(names)))


def test_mean_effects_of_a_whole_grid(load: Load) -> None:
    text = SEARCHED.replace("{float: [0.0, 0.6]}", "{float: [0.0, 0.6], step: 0.3}")
    definition = load(text)
    trials = [
        record(0, 0.5, {"mlp.activation": "relu", "mlp.dropout": 0.3, "sgd.lr": 0.1}),
        record(1, 0.7, {"mlp.activation": "relu", "mlp.dropout": 0.0, "sgd.lr": 0.2}),
        record(2, 0.8, {"mlp.activation": "tanh", "mlp.dropout": 0.3, "sgd.lr": 0.3}),
        record(3, 1.0, {"mlp.activation": "tanh", "mlp.dropout": 0.0}),
        record(4, 0.1, {"mlp.activation": "tanh"}, "pruned"),
        record(5, None, {"mlp.activation": "relu"}, "failed"),
    ]
    rows = [list(row.values()) for row in mean_effects(definition, trials)]
    assert [row[:4] for row in rows] == [
        ["mlp.activation", "relu", 2, 1],
        ["mlp.activation", "tanh", 2, 1],
        ["mlp.dropout", 0.0, 2, 0],
        ["mlp.dropout", 0.3, 2, 0],
    ]
    found = [number for row in rows for number in row[4:]]
    mean_best_effect = [0.6, 0.7, -0.15, 0.9, 1.0, 0.15, 0.85, 1.0, 0.1, 0.65, 0.8, -0.1]
    assert found == pytest.approx(mean_best_effect)
    assert [list(row.values())[1:] for row in mean_effects(definition, trials[4:])] == [
        ["relu", 0, 1, None, None, None],
        ["tanh", 0, 1, None, None, None],
    ]
    assert mean_effects(definition, []) == []


def test_runs_that_failed_stay_in_the_table_of_spreads(load: Load) -> None:
    best = drawn(load(SEARCHED), 0, 0.9, **ZERO_LAYERS)
    data = around(load(SEARCHED), [best], maximize=True)
    made = StudyDefinition.model_validate({**data, "name": "made"})
    factors = [factor_of(made, one) for one in made.variations]
    low, *_, high = (place for place, name in enumerate(factors) if name == "sgd.lr")
    trials = [
        record(0, 0.9, {"variation": 0}),
        record(1, 0.8, {"variation": low}),
        record(2, None, {"variation": high}, "failed"),
    ]
    (row,) = spreads(made, trials)
    assert (row["parameter"], row["runs"], row["failed"]) == ("sgd.lr", 2, 1)
    assert row["spread"] == pytest.approx(0.1)
    (alone,) = spreads(made, [trials[0], trials[2]])
    assert (alone["runs"], alone["failed"], alone["spread"]) == (1, 1, 0.0)
    assert spreads(made, trials[2:]) == []


def test_a_section_that_changes_two_settings_counts_for_no_parameter(load: Load) -> None:
    fixed = SEARCHED[: SEARCHED.index("model:")] + (
        "model: {mlp: {widths: [16]}}\n"
        "optimizer: {adam: {lr: 0.001}}\n"
        "training: {batch_size: 32, epochs: 2}\n"
        "variations:\n"
        "  - {}\n"
        "  - {optimizer: {adam: {lr: 0.01}}}\n"
        "  - {optimizer.adam.lr: 0.1}\n"
        "  - {optimizer: {adam: {lr: 0.01, beta1: 0.5}}}\n"
        "  - {optimizer: {sgd: {lr: 0.1}}}\n"
    )
    trials = [record(n, n / 10, {"variation": n}) for n in range(5)]
    found = {
        row["parameter"]: (row["runs"], row["best_at"]) for row in spreads(load(fixed), trials)
    }
    assert found == {"adam.lr": (3, "0.1"), "optimizer": (2, "sgd")}


@pytest.mark.parametrize("metric", ["loss", "rmse"])
def test_the_best_of_an_error_is_the_lowest(load: Load, metric: str) -> None:
    text = SEARCHED.replace("metric: accuracy", f"metric: {metric}")
    definition = load(text if metric == "loss" else text.replace("digits", "linear"))
    trials = [record(n, n / 10, {"mlp.activation": "relu"}) for n in (3, 1, 2)]
    (row,) = mean_effects(definition, trials)
    assert row["best"] == 0.1
    best = drawn(definition, 0, 0.9, **ZERO_LAYERS)
    data = around(definition, [best], maximize=False)
    made = StudyDefinition.model_validate({**data, "name": "made"})
    first = next(iter(made.variations[1]))
    rows = spreads(made, [record(n, value, {"variation": n}) for n, value in ((0, 0.4), (1, 0.3))])
    assert [(row["lowest"], row["best_at"] == "as it was") for row in rows] == [(0.3, False)], (
        first
    )


@pytest.mark.parametrize(
    ("leaf", "own", "values"),
    [
        (IntRange(0, 3), 2, [0, 1, 3]),
        (IntRange(10, 1000, log=True), 46, [10, 215, 1000]),
        (IntRange(1, 2), 1, [2]),
        (IntRange(32, 128, step=32), 64, [32, 96, 128]),
        (IntRange(5, 5), 5, []),
        (FloatRange(0.0, 0.6), 0.25, [0.0, 0.2, 0.4, 0.6]),
        (FloatRange(0.001, 1.0, log=True), 0.01, [0.001, 0.1, 1.0]),
        (FloatRange(0.0, 0.5, step=0.25), 0.0, [0.25, 0.5]),
        (FloatRange(0.0, 0.1875, step=0.0625), 0.0, [0.0625, 0.125, 0.1875]),
        (FloatRange(0.9995, 0.9999), 0.9995, [0.999633, 0.999767, 0.9999]),
        (FloatRange(0.99, 0.9999, log=True), 0.99, [0.99329, 0.99659, 0.9999]),
        (FloatRange(0.9, 0.999), 0.9671, [0.9, 0.933, 0.966, 0.999]),
        (Choice((True, False)), True, [False]),
        (Choice(("relu", "tanh", "gelu")), "tanh", ["relu", "gelu"]),
    ],
)
def test_a_few_values_of_a_range_without_the_own_one(
    leaf: Range, own: Any, values: list[Any]
) -> None:
    assert _values(leaf, own) == values


def test_each_variation_changes_one_parameter_of_the_best_trial(load: Load) -> None:
    definition = load(SEARCHED)
    common = {"mlp__activation": "relu", "mlp__dropout": 0.3, "training__batch_size": 64}
    sgd = {"optimizer": "sgd", "sgd__lr": 0.2, "schedule": "constant"}
    adam = {"optimizer": "adam", "adam__lr": 0.01, "adam__weight_decay": 0.05}
    trials = [
        drawn(
            definition, 0, 0.9, mlp__layers=2, mlp__width_0=50, mlp__width_1=20, **common, **sgd
        ),
        drawn(
            definition, 1, 0.8, mlp__layers=1, mlp__width_0=12, **common, **adam, schedule="cosine"
        ),
    ]
    data = around(definition, trials, maximize=True)
    made = StudyDefinition.model_validate({**data, "name": "made"})
    assert not made.looks_at_test
    assert (made.search.metric, made.search.seed) == ("accuracy", 7)
    configs = [space.draw(run, FixedTrial({})) for run in made.runs]
    assert configs[0] == trials[0].config
    assert len({str(config) for config in configs}) == len(configs)
    rows = spreads(made, [record(n, n / 100, {"variation": n}) for n in range(len(configs))])
    counts = {row["parameter"]: row["runs"] - 1 for row in rows}
    assert counts == {
        "mlp.layers": 3,
        "mlp.width_0": 4,
        "mlp.width_1": 4,
        "mlp.activation": 1,
        "mlp.dropout": 4,
        "optimizer": 1,
        "sgd.lr": 4,
        "schedule": 1,
        "training.batch_size": 1,
    }
    other = next(config for config in configs if config.optimizer.name == "adam")
    assert (other.optimizer.lr, other.optimizer.weight_decay) == (0.01, 0.05)
    assert {widths(config) for config in configs} >= {(), (50,), (50, 20, 20), (10, 20)}
    assert rows == sorted(rows, key=lambda row: -row["spread"])
    last = next(row for row in rows if row["parameter"] == "training.batch_size")
    assert (last["best_at"], last["lowest"]) == ("32", 0.0)


def test_an_option_that_no_trial_had_has_the_middle_of_its_ranges(load: Load) -> None:
    definition = load(SEARCHED)
    params = {"mlp__layers": 0, "optimizer": "sgd", "sgd__lr": 0.2, "schedule": "cosine"}
    best = drawn(definition, 0, 0.9, training__batch_size=32, **params)
    made = StudyDefinition.model_validate(
        {**around(definition, [best], maximize=True), "name": "made"}
    )
    configs = [space.draw(run, FixedTrial({})) for run in made.runs]
    assert configs[0] == best.config
    adam = next(config.optimizer for config in configs if config.optimizer.name == "adam")
    assert (adam.lr, adam.weight_decay) == (0.001, 0.05)
    assert {widths(config) for config in configs} == {(), (100,), (100,) * 2, (100,) * 3}


def test_what_a_network_without_layers_did_not_draw_is_in_the_middle(load: Load) -> None:
    text = SEARCHED.replace("{int: [10, 1000], log: true}", "8")
    definition = load(text.replace("[relu, tanh]", "[tanh, gelu]"))
    best = drawn(definition, 0, 0.9, **ZERO_LAYERS)
    data = around(definition, [best], maximize=True)
    made = StudyDefinition.model_validate({**data, "name": "made"})
    models = [space.draw(run, FixedTrial({})).model for run in made.runs]
    assert models[0] == best.config.model if best.config else False
    deeper = [model for model in models if isinstance(model, MlpConfig) and model.widths]
    assert {model.widths for model in deeper} == {(8,), (8, 8), (8, 8, 8)}
    assert {(model.activation, model.dropout) for model in deeper} == {("tanh", 0.3)}


def test_families_may_have_names_of_their_own(load: Load) -> None:
    text = SEARCHED[: SEARCHED.index("  mlp:")] + SEARCHED[SEARCHED.index("optimizer:") :]
    families = "  mlp_small: {widths: [8]}\n  mlp_big: {widths: [32], dropout: 0.5}\n"
    definition = load(text.replace("model:\n", f"model:\n{families}"))
    params = {"optimizer": "sgd", "sgd__lr": 0.2, "schedule": "cosine"}
    best = drawn(definition, 0, 0.9, training__batch_size=32, model="mlp_big", **params)
    data = around(definition, [best], maximize=True)
    assert data["model"] == {"mlp_big": {"dropout": 0.5, "widths": [32]}}
    made = StudyDefinition.model_validate({**data, "name": "made"})
    assert space.draw(made.runs[0], FixedTrial({})) == best.config


def test_convolutional_networks_are_fixed_stage_by_stage(load: Load) -> None:
    stages = "{stages: {int: [1, 2]}, channels: {int: [4, 8], step: 4}, kernel: 1}"
    definition = load(SEARCHED.replace("  mlp:", f"  cnn: {stages}\n  mlp:"))
    params = {"model": "cnn", "cnn__stages": 2, "cnn__channels_0": 4, "cnn__channels_1": 8}
    params |= {"optimizer": "sgd", "sgd__lr": 0.2, "schedule": "constant"}
    best = drawn(definition, 0, 0.9, training__batch_size=32, **params)
    data = around(definition, [best], maximize=True)
    assert data["model"] == {"cnn": {"kernel": 1, "stage_channels": [4, 8]}}
    made = StudyDefinition.model_validate({**data, "name": "made"})
    assert space.draw(made.runs[0], FixedTrial({})) == best.config
    base = made.model_dump(mode="json")
    found = {factor(base, one) for one in made.variations if "model.cnn.stage_channels" in one}
    assert found == {("cnn.stages", "1"), ("cnn.channels_0", "8"), ("cnn.channels_1", "4")}


def test_there_has_to_be_a_best_trial(load: Load) -> None:
    with pytest.raises(HpoError, match="study `wide` has no complete trial yet"):
        around(load(SEARCHED), [record(0, 0.5, {}, "pruned")], maximize=True)
