from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from hpo import space
from hpo.definition import StudyDefinition, describe_variation
from hpo.definition.variations import factor

Load = Callable[..., StudyDefinition]
Problems = Callable[..., list[str]]

STUDY = """\
dataset: {name: digits}
model: {mlp: {widths: [32], activation: relu}}
optimizer: {adam: {lr: 0.001, beta1: 0.8}}
training: {batch_size: 32, epochs: 3}
"""
VARIATIONS = """\
variations:
  - {}
  - {training.batch_size: 16}
  - {training: {batch_size: 64, epochs: 5}}
  - {optimizer: {sgd: {lr: 0.001}}}
  - {optimizer.adam.lr: 0.01}
  - {schedule: {cosine: {}}}
  - {training.early_stopping: {patience: 2}}
  - {training.early_stopping.patience: 1}
  - {training.early_stopping: null, model.mlp.widths: [8, 4]}
"""


def test_each_variation_is_the_rest_of_the_file_with_its_overrides(load: Load) -> None:
    study = load(STUDY + VARIATIONS)
    base, small, large, sgd, fast, cosine, patient, impatient, narrow = study.runs
    assert base.model_dump() == load(STUDY, "search.trials=9", "search.pruner=none").model_dump()
    assert (small.training.batch_size, small.training.epochs) == (16, 3)
    assert (large.training.batch_size, large.training.epochs) == (64, 5)
    assert list(sgd.optimizer.options) == ["sgd"]
    assert fast.optimizer.adam is not None
    assert (fast.optimizer.adam.lr, fast.optimizer.adam.beta1) == (0.01, 0.8)
    assert list(cosine.schedule.options) == ["cosine"]
    assert patient.training.early_stopping is not None
    assert patient.training.early_stopping.patience == 2
    assert impatient.training.early_stopping is not None
    assert impatient.training.early_stopping.patience == 1
    assert narrow.model.mlp is not None
    assert narrow.model.mlp.widths == (8, 4)
    assert not any(run.variations for run in study.runs)


def test_a_study_with_variations_trains_each_once_and_prunes_none(load: Load) -> None:
    study = load(STUDY + VARIATIONS)
    assert study.search.trials == 9
    assert study.search.pruner.name == "none"
    assert study.looks_at_test
    assert space.cardinality(study) == 9
    assert list(space.describe(study)) == [space.VARIATION]
    again = StudyDefinition.from_json(study.to_json())
    assert again == study
    assert again.runs == study.runs
    assert space.differences(study, again) == []
    closed = load(STUDY + VARIATIONS, "search.look_at_test=false")
    assert not closed.looks_at_test
    assert not any(run.looks_at_test for run in study.runs)


def test_without_variations_there_is_one_run(load: Load) -> None:
    study = load(STUDY)
    assert study.runs == (study,)
    assert not study.looks_at_test
    assert load(STUDY + "variations: []\n") == study
    assert "variations" not in space.describe(study)


def test_another_list_of_variations_is_another_study(load: Load) -> None:
    one, other = load(STUDY + VARIATIONS), load(STUDY + VARIATIONS.replace("16", "8"))
    assert space.differences(one, other) == [
        'variations[1]: was {"training.batch_size": 16}, is {"training.batch_size": 8}'
    ]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("{training.batch_size: 0}", "0 is below 1; a batch has 1 to 1000000 rows"),
        ("{training.batch: 3}", "unknown key; did you mean `batch_size`?"),
        ("{trainng.batch_size: 3}", "unknown key; did you mean `training`?"),
        ("{training: {batch: 3}}", "unknown key; did you mean `batch_size`?"),
        ("{training: 3}", "3 stands where a mapping is wanted"),
        ("{training.batch_size: {choice: [16, 32]}}", "this is a range, and a study with"),
        ("{training: {batch_size: {int: [16, 32]}}}", "this is a range, and a study with"),
        ("{optimizer: {sgd: {lr: {float: [0.1, 1]}}}}", "this is a range, and a study with"),
        ("{optimizer: {sgd: {lr: 1}, adam: {lr: 1}}}", "sgd, adam are a choice, and a study"),
        ("{optimizer.sgd.lr: 0.1}", "in a variation `{optimizer: {...}}` puts another in its"),
        ("{optimizer: {sgd: {}}}", "this key is missing"),
        ("{optimizer: {sgd: {lr: 1, nesterov: true}}}", "nesterov needs a momentum"),
        ("{schedule.cosine: {}}", "constant, cosine are a choice"),
        ("{model.mlp.layers: 3}", "`widths` fixes every layer, so `layers` cannot be given too"),
        ("{training.epochs.x: 3}", "`training.epochs` is 3, so there is nothing below it to set"),
        ("{training..epochs: 3}", "write a key with its sections"),
        ("{dataset.name: mnist}", "a variation cannot change `dataset`; all of them train on the"),
        ("{dataset: {name: mnist}}", "a variation cannot change `dataset`"),
        ("{search.seed: 3}", "a variation cannot change `search`"),
        ("{retrain.seeds: 3}", "a variation cannot change `retrain`"),
        ("{variations: []}", "a variation cannot change `variations`"),
        ("{name: x}", "a variation cannot change `name`"),
        ("{training.device: cpu}", "a variation cannot change `training.device`"),
        ("{training: {precision: float32}}", "a variation cannot change `training.precision`"),
        (
            "{training.early_stopping.metric: loss}",
            "training.early_stopping.patience: this key is missing",
        ),
        (
            "{training.batch_size: 16, training: {batch_size: 64}}",
            "`training.batch_size` is set twice in this variation",
        ),
        (
            "{model.mlp.dropout: 0.1, model: {mlp: {widths: [4]}}}",
            "`model` is set twice in this variation",
        ),
        ("16", "16 stands here; a variation is a mapping"),
        ("[]", "a list stands here; a variation is a mapping"),
    ],
)
def test_a_wrong_variation_has_one_sentence_with_its_own_line(
    problems: Problems, entry: str, sentence: str
) -> None:
    (found,) = problems(f"{STUDY}variations:\n  - {{}}\n  - {entry}\n  - {{training.epochs: 2}}\n")
    assert found.startswith("study.yaml:7: variations[1]")
    assert sentence in found


@pytest.mark.parametrize(
    ("override", "place", "sentence"),
    [
        ("model.mlp.dropout={float: [0, 1]}", "--set model.mlp.dropout", "1.0 is not below 1"),
        ("model.mlp.dropout={float: [0, 0.5]}", "--set model.mlp.dropout", "this is a range"),
        ("training.label_smoothing={choice: [0, 0.1]}", "--set training.label", "is a range"),
        ("optimizer.sgd={lr: 0.1}", "study.yaml:3: optimizer", "adam, sgd are a choice"),
        ("search.trials=3", "--set search.trials", "so it has 9 trials and not 3; leave this out"),
        ("search.pruner=asha", "--set search.pruner", "trained to its end; leave the pruner out"),
        ("variations=3", "--set variations", "3 stands where a list of mappings is wanted"),
        ("variations=[3]", "--set variations", "3 stands here; a variation is a mapping"),
    ],
)
def test_what_a_study_with_variations_cannot_have(
    problems: Problems, override: str, place: str, sentence: str
) -> None:
    found = problems(STUDY + VARIATIONS, override)
    assert any(one.startswith(place) and sentence in one for one in found), found


def test_a_problem_of_the_file_is_told_once_and_not_by_every_variation(problems: Problems) -> None:
    wrong = STUDY.replace("epochs: 3", "epochs: 0") + VARIATIONS.replace("lr: 0.01", "lr: -1")
    assert problems(wrong) == [
        "study.yaml:4: training.epochs: 0 is below 1; a run lasts 1 to 100000 epochs",
        "study.yaml:10: variations[4].optimizer.adam.lr: -1.0 is not above 0; a learning rate is above 0",  # noqa: E501
    ]


CNN = "model={cnn: {stages: 1, channels: 4}}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ((CNN, "training.diagnostics=[gradient_norms]"), "those of an mlp, and cnn has none"),
        ((CNN.replace("cnn", "numpy_cnn"), "training.gradient_reset=false"), "always resets its"),
        (("training.diagnostics=[norms]",), "'norms' is not a diagnostic; known: gradient_norms"),
        (("training.gradient_reset={choice: [true, false]}",), "is neither true nor false"),
    ],
)
def test_what_a_family_does_not_have(
    problems: Problems, overrides: tuple[str, ...], sentence: str
) -> None:
    (found,) = problems(STUDY, *overrides)
    assert sentence in found
    assert overrides[-1].split("=")[0] in found


def test_a_variation_may_be_of_another_family(load: Load) -> None:
    study = load(f"{STUDY}variations: [{{}}, {{model: {{cnn: {{stages: 1, channels: 4}}}}}}]\n")
    assert [list(run.model.options) for run in study.runs] == [["mlp"], ["cnn"]]


def test_a_look_at_the_test_rows_needs_variations(problems: Problems) -> None:
    for value in ("true", "false"):
        (found,) = problems(STUDY, f"search.look_at_test={value}")
        assert "a search sees training rows only" in found


def test_with_folds_the_test_rows_stay_closed(load: Load, problems: Problems) -> None:
    folded = "dataset={name: digits, folds: 3}"
    assert not load(STUDY + VARIATIONS, folded).looks_at_test
    (found,) = problems(STUDY + VARIATIONS, folded, "search.look_at_test=true")
    assert "a run is a network for each, so none is tested" in found


def test_a_variation_in_words() -> None:
    for overrides, words in (
        ({}, "baseline"),
        ({"training.batch_size": 16}, "training.batch_size 16"),
        (
            {"training": {"batch_size": 16, "epochs": 2}},
            "training.batch_size 16, training.epochs 2",
        ),
        ({"optimizer": {"sgd": {"lr": 0.001}}}, "optimizer sgd (lr 0.001)"),
        ({"schedule": {"cosine": {}}}, "schedule cosine"),
        ({"training.gradient_reset": False}, "training.gradient_reset false"),
        ({"training.early_stopping": None}, "training.early_stopping none"),
        ({"model.mlp.widths": [8, 4]}, "model.mlp.widths [8, 4]"),
    ):
        assert describe_variation(overrides) == words


def test_the_one_parameter_that_a_variation_changes(load: Load) -> None:
    data = json.loads(load(STUDY, "model.mlp.widths=[32, 16]").to_json())
    for overrides, found in (
        ({}, None),
        ({"training.batch_size": 16, "training.epochs": 2}, None),
        ({"training.batch_size": 16}, ("training.batch_size", "16")),
        ({"training": {"batch_size": 16}}, ("training.batch_size", "16")),
        ({"optimizer.adam.lr": 0.01}, ("adam.lr", "0.01")),
        ({"optimizer": {"sgd": {"lr": 0.1}}}, ("optimizer", "sgd")),
        ({"schedule": {"cosine": {"warmup": 0.1}}}, ("schedule", "cosine")),
        ({"model.mlp.widths": [32, 8]}, ("mlp.width_1", "8")),
        ({"model.mlp.widths": [32]}, ("mlp.layers", "1")),
        ({"model.mlp.widths": [8, 8]}, ("mlp.widths", "[8, 8]")),
        ({"model.mlp.dropout": 0.5}, ("mlp.dropout", "0.5")),
    ):
        assert factor(data, overrides) == found


OWN = """\
dataset: {name: digits}
model: {mlp: {layers: 2, width: 32, activation: relu}}
optimizer: {adam: {lr: 0.001, beta1: 0.8}}
schedule: {step: {every: 10}}
training: {batch_size: 32, epochs: 3}
"""


def test_a_section_with_the_own_option_changes_the_settings_that_differ(load: Load) -> None:
    """Whatever the section leaves out is at its default, and so may be a change itself."""
    data = json.loads(load(OWN).to_json())
    for overrides, found in (
        ({"optimizer": {"adam": {"lr": 0.01, "beta1": 0.8}}}, ("adam.lr", "0.01")),
        ({"optimizer": {"adam": {"lr": 0.001}}}, ("adam.beta1", "0.9")),
        ({"optimizer": {"adam": {"lr": 0.01}}}, None),
        ({"optimizer": {"adam": {"lr": 0.001, "beta1": 0.8}}}, None),
        ({"optimizer.adam": {"lr": 0.01, "beta1": 0.8}}, ("adam.lr", "0.01")),
        ({"optimizer": {"adamw": {"lr": 0.001, "beta1": 0.8}}}, ("optimizer", "adamw")),
        ({"schedule": {"step": {"gamma": 0.9}}}, ("step.gamma", "0.9")),
        ({"schedule": {"constant": None}}, ("schedule", "constant")),
        ({"schedule": None}, ("schedule", "constant")),
        ({"model": {"mlp": {"layers": 2, "width": 32, "dropout": 0.5}}}, ("mlp.dropout", "0.5")),
        ({"model": {"mlp": {"layers": 2, "width": 8}}}, ("mlp.width", "8")),
        ({"model": {"mlp": {"layers": 3, "width": 32}}}, ("mlp.layers", "3")),
        ({"model": {"mlp": {"layers": 3, "width": 8}}}, None),
        ({"model": {"mlp": {"widths": [32, 8]}}}, ("mlp.width_1", "8")),
        ({"model": {"mlp": {"widths": [32, 32, 32]}}}, ("mlp.layers", "3")),
        ({"model": {"mlp": {"widths": [32, 8], "dropout": 0.5}}}, None),
        ({"model": {"cnn": {"stages": 1, "channels": 4}}}, ("model", "cnn")),
    ):
        assert factor(data, overrides) == found, overrides


def test_sizes_are_compared_however_the_section_gives_them(load: Load) -> None:
    data = json.loads(load(OWN, "model={cnn: {stage_channels: [4, 8], kernel: 5}}").to_json())
    for section, found in (
        ("{stages: 2, channels: 4, kernel: 5}", ("cnn.channels_1", "4")),
        ("{stages: 1, channels: 4, kernel: 5}", ("cnn.stages", "1")),
        ("{stage_channels: [4, 8]}", ("cnn.kernel", "3")),
        ("{stages: 2, channels: 4}", None),
    ):
        changed = {"model": {"cnn": yaml.safe_load(section)}}
        assert factor(data, changed) == found, section
