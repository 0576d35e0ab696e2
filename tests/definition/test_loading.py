from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from hpo.definition import (
    Choice,
    FloatRange,
    IntRange,
    StudyDefinition,
    change_definition,
    json_schema,
    load_definition,
)
from hpo.errors import DefinitionError, FileError, UsageError

Load = Callable[..., StudyDefinition]
Problems = Callable[..., list[str]]

# DESIGN.md, section 4, letter for letter
EXAMPLE = """\
# studies/fashion_mnist.yaml: MLPs on Fashion-MNIST; 90.5 % test accuracy is the mark
dataset:
  name: fashion_mnist
  validation: 0.15               # share of the training rows held out; or `folds: 3`
  augment: []                    # training rows only, e.g. [{horizontal_flip: {}}]
model:                           # several families here would make the family itself a choice
  mlp:
    layers: {int: [1, 4]}
    width: {int: [64, 1024], log: true}       # drawn once for every layer
    activation: {choice: [relu, leaky_relu, silu, selu, gelu]}
    batch_norm: {choice: [true, false]}
    dropout: {float: [0.0, 0.6]}
optimizer:                       # one is chosen, and only its own ranges are drawn
  sgd:     {lr: {float: [1.0e-2, 1.0], log: true}, momentum: {float: [0.5, 0.99]}, nesterov: true}
  adam:    {lr: {float: [1.0e-4, 1.0e-2], log: true}}
  adamw:   {lr: {float: [1.0e-4, 1.0e-2], log: true}, weight_decay: {float: [1.0e-5, 1.0e-1], log: true}}
  rmsprop: {lr: {float: [1.0e-5, 1.0e-2], log: true}}
schedule:                        # a choice, as above
  constant: {}
  cosine: {warmup: 0.1}
  step: {every: 10, gamma: 0.5}
training: {batch_size: {choice: [64, 128, 256, 512]}, epochs: 20, early_stopping: {patience: 5}}
search: {trials: 100, sampler: tpe, pruner: asha, metric: accuracy, seed: 0}
retrain: {finalists: 3, seeds: 5}
"""  # noqa: E501

ESCAPES = '"\\e[31mred": 1\n"two\\nlines": 2\n"\\u202ekey": 3\n'

MINIMAL = """\
dataset: {name: digits}
model: {mlp: {layers: 1, width: 32}}
optimizer: {sgd: {lr: 0.1}}
training: {batch_size: 32, epochs: 3}
"""

EVERYTHING_WRONG = """\
dataset: {name: mnist, validation: 1.5, folds: 3}
model:
  mlp:
    layers: {int: [4, 1]}
    width: {int: [0, 1024], log: true}
    widths: [3]
    dropout: {float: [0.0, 1.2]}
    activation: {choice: [relu, relo, swish, silu]}
    activation: gelu
optimizer:
  sgd: {lr: {float: [.nan, 1]}, nesterov: true}
  adm: {}
  adam: {lr: 1e-4, beta1: "0.9", momentum: 0.3}
  adamw:
schedule: cosine
training: {batch_size: {float: [1, 2]}, epoch: 3}
search: {trials: 1e9, n_trials: 4, pruner: {asha: {}, median: {}}, sampler: cmaes}
retrain: !!python/object/apply:os.system [touch canary]
name: x
epochs: 3
variations: {}
"""

ALL_OF_IT = """\
study.yaml:1: dataset.validation: with `folds` every row validates once, so `validation` cannot be given too
study.yaml:1: dataset.validation: 1.5 is above 1; validation is the share of the training rows that is held out
study.yaml:4: model.mlp.layers: `widths` fixes every layer, so `layers` cannot be given too
study.yaml:4: model.mlp.layers: the range's low, 4, is above its high, 1
study.yaml:5: model.mlp.width: `widths` fixes every layer, so `width` cannot be given too
study.yaml:5: model.mlp.width: 0 is below 1; a layer has 1 to 65536 units
study.yaml:7: model.mlp.dropout: 1.2 is above 1; a dropout is a probability
study.yaml:8: model.mlp.activation: 'relo' is not an activation; did you mean `relu`? known: relu, leaky_relu, elu, selu, silu, gelu, tanh
study.yaml:8: model.mlp.activation: 'silu' is given twice
study.yaml:9: model.mlp.activation: this key is given twice; the first is in line 8
study.yaml:11: optimizer.sgd.lr: nan is not a finite number
study.yaml:12: optimizer.adm: unknown key; did you mean `adam`?
study.yaml:13: optimizer.adam.beta1: '0.9' is not a number; write it without quotes
study.yaml:13: optimizer.adam.momentum: unknown key; there are lr, beta1, beta2, epsilon, weight_decay
study.yaml:14: optimizer.adamw.lr: this key is missing
study.yaml:15: schedule: 'cosine' stands where a mapping is wanted, with constant, cosine, step
study.yaml:16: training.batch_size: `float` does not fit here: a range is written {int: [low, high]} or {choice: [...]}
study.yaml:16: training.epochs: this key is missing
study.yaml:16: training.epoch: unknown key; did you mean `epochs`?
study.yaml:17: search.trials: 1000000000 is above 1000000; a search has 1 to 1000000 trials
study.yaml:17: search.sampler.cmaes: unknown key; there are tpe, random, grid
study.yaml:17: search.pruner: give one pruner and no more, not 'asha', 'median'
study.yaml:17: search.n_trials: unknown key; did you mean `trials`?
study.yaml:18: retrain: the tag '!!python/object/apply:os.system' is refused; a study is plain data
study.yaml:19: name: a study is named after its file, or by `--name`; leave this key out
study.yaml:20: epochs: unknown key; did you mean `training.epochs`?
study.yaml:21: variations: a mapping stands where a list of mappings is wanted
"""  # noqa: E501


def test_the_example_of_the_design_loads(load: Load) -> None:
    study = load(EXAMPLE)
    mlp = study.model.mlp
    assert mlp is not None
    assert mlp.layers == IntRange(1, 4)
    assert mlp.width == IntRange(64, 1024, log=True)
    assert mlp.batch_norm == Choice((True, False))
    assert mlp.dropout == FloatRange(0.0, 0.6)
    assert list(study.optimizer.options) == ["sgd", "adam", "adamw", "rmsprop"]
    assert study.training.batch_size == Choice((64, 128, 256, 512))
    assert study.dataset.augment == ()
    assert study.search.sampler.name == "tpe"


def test_a_minimal_study_has_the_defaults(load: Load) -> None:
    study = load()
    assert study.name == "study"
    assert study.dataset.validation == 0.15
    assert list(study.schedule.options) == ["constant"]
    assert study.training.early_stopping is None
    assert (study.training.device, study.training.precision) == ("auto", "auto")
    search = study.search
    assert (search.trials, search.metric, search.seed) == (100, "accuracy", 0)
    assert (search.sampler.name, search.pruner.name) == ("tpe", "asha")
    assert search.pruner.settings.model_dump() == {"min_epochs": 1, "reduction": 4}
    assert (study.retrain.finalists, study.retrain.seeds) == (3, 5)


def test_everything_wrong_is_said_at_once_by_line(
    problems: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(EVERYTHING_WRONG) == ALL_OF_IT.splitlines()
    assert not Path("canary").exists()


def test_sections_may_be_empty_where_a_default_serves(load: Load) -> None:
    text = "search:\nretrain:\nschedule:\n" + MINIMAL
    assert load(text) == load()
    assert list(load(None, "schedule={cosine: , constant: }").schedule.options) == [
        "constant",
        "cosine",
    ]


def test_the_order_of_keys_in_the_file_does_not_matter(load: Load) -> None:
    one = load(None, "optimizer={adam: {lr: 0.1}, sgd: {lr: 0.1}}")
    assert one == load(None, "optimizer={sgd: {lr: 0.1}, adam: {lr: 0.1}}")
    assert list(one.optimizer.options) == ["sgd", "adam"]


def test_augmentations(load: Load) -> None:
    text = (
        "dataset.augment=[{horizontal_flip: {}}, {rotation: {degrees: 10}}, "
        "{random_crop: {padding: 4}}, {color_jitter: {brightness: 0.2, hue: 0.1}}, "
        "horizontal_flip]"
    )
    steps = load(None, text).dataset.augment
    names = ["horizontal_flip", "rotation", "random_crop", "color_jitter", "horizontal_flip"]
    assert [step.name for step in steps] == names
    assert steps[0].settings.model_dump() == {"probability": 0.5}
    assert steps[1].settings.model_dump() == {"degrees": 10.0}
    assert steps[3].settings.model_dump() == {
        "brightness": 0.2,
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.1,
    }


def test_a_file_with_another_name_for_the_study(tmp_path: Path, load: Load) -> None:
    load()
    path = (tmp_path / "study.yaml").rename(tmp_path / "my study.yaml")
    with pytest.raises(DefinitionError, match="'my study' cannot be a study's name"):
        load_definition(path)
    assert load_definition(path, name="mine").name == "mine"
    with pytest.raises(UsageError):
        load_definition(path, name="../mine")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "study.yaml: the file is empty; a study needs at least a dataset"),
        ("# only a comment\n", "study.yaml: the file is empty; a study needs at least a dataset"),
        ("- a\n- b\n", "study.yaml:1: a study is a mapping of sections, not a list"),
        ("\nwords\n", "study.yaml:2: a study is a mapping of sections, not 'words'"),
        (b"a: 1\nb: \xff\n", "study.yaml:2: this is not UTF-8 text"),
    ],
)
def test_what_is_no_study(problems: Problems, text: str | bytes, sentence: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0] == sentence


def test_a_byte_order_mark_is_no_harm(load: Load) -> None:
    assert load("\ufeff" + MINIMAL) == load()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="there is no such file"):
        load_definition(tmp_path / "none.yaml")
    with pytest.raises(DefinitionError, match="this is a folder"):
        load_definition(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(DefinitionError, match="not a regular file"):
        load_definition(tmp_path / "pipe.yaml")
    with pytest.raises(FileError, match="cannot be read"):
        load_definition(tmp_path / ("x" * 300 + ".yaml"))


def test_only_so_many_problems_are_listed(problems: Problems) -> None:
    found = problems("\n".join(f"key{i}: 1" for i in range(2000)))
    assert len(found) == 101
    assert found[-1] == "study.yaml: and 1904 problems more"


def test_messages_hold_nothing_that_a_terminal_obeys(problems: Problems) -> None:
    text = ESCAPES + 'model: {mlp: {activation: "\\e[31mred\\a", layers: 1, width: 2}}\n'
    for line in problems(text):
        assert line.isprintable()


def test_stored_definitions_that_are_none() -> None:
    for text in ("", "[" * 100_000, "NaN", "[]", '{"name": "x"}'):
        with pytest.raises(DefinitionError, match="the stored definition"):
            StudyDefinition.from_json(text)


def test_json_holds_everything_and_comes_back(load: Load) -> None:
    study = load(EXAMPLE)
    data = json.loads(study.to_json())
    assert data["name"] == "study"
    assert data["model"]["mlp"]["initialization"] == "he"  # a default, written out
    assert "nadam" not in data["optimizer"]
    assert StudyDefinition.from_json(study.to_json()) == study


def test_a_definition_does_not_change(load: Load) -> None:
    study = load()
    with pytest.raises(ValueError, match="frozen"):
        study.search.trials = 3
    assert hash(study) == hash(load())


def test_the_json_schema_describes_the_file() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert list(schema["properties"]) == [
        "dataset",
        "model",
        "optimizer",
        "schedule",
        "training",
        "search",
        "retrain",
        "variations",
    ]
    assert schema["required"] == ["dataset", "model", "optimizer", "training"]
    dropout = schema["$defs"]["MlpSection"]["properties"]["dropout"]
    constant, choice, interval = dropout["anyOf"]
    assert constant == {"type": "number", "minimum": 0.0, "exclusiveMaximum": 1}
    assert choice["properties"]["choice"]["items"] == constant
    assert interval["properties"]["float"]["items"] == constant
    assert schema["$defs"]["SamplerSection"]["anyOf"][0] == {"enum": ["tpe", "random", "grid"]}


@pytest.mark.parametrize(
    ("section", "taken"),
    [
        ("training: {batch_size: 32, epochs: 3, early_stopping: null}", True),
        ("training: {batch_size: 32, epochs: 3, early_stopping: {patience: 1, metric: }}", True),
        ("training: {batch_size: 32, epochs: 3, label_smoothing: }", False),
        ("training: {batch_size: 32, epochs: }", False),
        ("training: ", False),
        ("schedule: {constant: , cosine: , step: }", True),
        ("schedule: ", True),
        ("search: ", True),
        ("search: {look_at_test: }", True),
        ("search: {sampler: {tpe: }, pruner: {none: }}", True),
        ("search: {sampler: }", False),
        ("search: {seed: }", False),
        ("retrain: ", True),
        ("variations: ", True),
        ("dataset: {name: digits, validation: , folds: , augment: }", True),
        ("dataset: {name: digits, augment: [{horizontal_flip: }]}", True),
        ("dataset: {name: digits, augment: [{rotation: }]}", False),
        ("dataset: {name: }", False),
        ("model: {mlp: {layers: , width: , widths: [3]}}", True),
        ("model: {mlp_own: {widths: [3], dropout: }}", False),
        ("model: {mlp: }", False),
        ("model: {mlp_own: }", False),
        ("optimizer: {sgd: }", False),
        ("optimizer: ", False),
    ],
)
def test_the_json_schema_takes_nothing_where_the_file_may_have_it(
    load: Load, section: str, taken: bool
) -> None:
    key = section.partition(":")[0]
    others = [line for line in MINIMAL.splitlines() if not line.startswith(f"{key}:")]
    text = "\n".join([*others, section])
    assert Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text)) == taken
    if taken:
        load(text)
    else:
        with pytest.raises(DefinitionError):
            load(text)


def test_a_stored_definition_is_not_held_to_the_limits_of_a_file(load: Load) -> None:
    """With every default written out it has more values than its file, which is near the limit."""
    sizes = ", ".join(map(str, range(1, 4961)))
    study = load(None, f"training.batch_size={{choice: [{sizes}]}}")
    again = change_definition(study, ["training.epochs=7"], name="again")
    assert again.training.batch_size == study.training.batch_size
    assert (again.training.epochs, again.name) == (7, "again")


def test_a_change_of_a_stored_definition_is_told_without_a_line(load: Load) -> None:
    with pytest.raises(DefinitionError) as caught:
        change_definition(load(), ["training.epochs=0", "model.mlp.layers=null"])
    assert caught.value.problems == [
        "study study: model.mlp: `layers` missing; give `layers` and `width`, or `widths`",
        "--set training.epochs: 0 is below 1; a run lasts 1 to 100000 epochs",
    ]


def test_import_stays_light() -> None:
    code = (
        "import sys, hpo.definition, hpo.space, hpo.studies;"
        "print([m for m in ('torch', 'optuna', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
