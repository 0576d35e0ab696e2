"""Families that stand several times in a study, under names of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo import grid, space
from hpo.config import MlpConfig
from hpo.definition import StudyDefinition, json_schema, load_definition
from hpo.errors import DefinitionError
from tests.commands import here, read

STUDY = """
dataset: {name: digits}
model:
  mlp_plain: {widths: [16]}
  mlp_normed: {widths: [16], batch_norm: true}
  mlp_deep: {layers: {int: [2, 3]}, width: {choice: [8, 16]}}
optimizer:
  adam: {lr: {choice: [0.001, 0.01]}}
training: {batch_size: 64, epochs: 1}
search: {sampler: grid, pruner: none}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "structures.yaml"
    path.write_text(STUDY)
    return path


def test_each_has_ranges_and_parameters_of_its_own(file: Path) -> None:
    definition = load_definition(file)
    assert list(definition.model.options) == ["mlp_deep", "mlp_normed", "mlp_plain"]
    assert definition.model.families == ["mlp"]
    described = space.describe(definition)
    assert {"model", "mlp_deep.layers", "mlp_deep.width_2", "adam.lr"} == {
        name for name in described if name not in ("mlp_deep.width_0", "mlp_deep.width_1")
    }
    assert space.cardinality(definition) == (4 + 8 + 1 + 1) * 2
    cells = grid.cells(definition)
    assert len(cells) == 28


def test_a_stored_definition_is_the_same_again(file: Path) -> None:
    definition = load_definition(file)
    again = StudyDefinition.from_json(definition.to_json())
    assert again == definition
    assert hash(again) == hash(definition)
    assert not space.differences(definition, again)


def test_a_continuous_range_of_a_grid_is_told_with_its_line(file: Path) -> None:
    file.write_text(STUDY.replace("batch_norm: true", "dropout: {float: [0.0, 0.5]}"))
    with pytest.raises(DefinitionError) as caught:
        load_definition(file)
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"{file}:5: model.mlp_normed.dropout: float 0.0 to 0.5 is continuous"
    )


@pytest.mark.parametrize("value", ["[]", "[[mlp_x, {}]]", "{mlp_x: {widths: [4]}}"])
def test_how_names_are_kept_inside_is_no_key(file: Path, value: str) -> None:
    file.write_text(STUDY.replace("mlp_plain: {widths: [16]}", f"named: {value}"))
    with pytest.raises(DefinitionError, match=r"structures.yaml:4: model.named: unknown key"):
        load_definition(file)


def test_errors_name_the_line(file: Path) -> None:
    file.write_text(
        STUDY.replace("widths: [16], batch_norm: true", "widths: [16], batch_norms: true").replace(
            "choice: [8, 16]", "choice: [0, 16]"
        )
    )
    with pytest.raises(DefinitionError) as caught:
        load_definition(file)
    said = str(caught.value)
    assert "structures.yaml:5: model.mlp_normed.batch_norms: unknown key" in said
    assert "structures.yaml:6: model.mlp_deep.width: 0 is below 1" in said


def test_errors_of_named_and_of_plain_families_are_told_at_once(file: Path) -> None:
    wrong = "mlp_plain: {widths: [0]}\n  mlp: {widths: [0]}\n  named: 3\n  rnn: {}"
    file.write_text(STUDY.replace("mlp_plain: {widths: [16]}", wrong))
    with pytest.raises(DefinitionError) as caught:
        load_definition(file)
    assert [problem.removeprefix(f"{file}:") for problem in caught.value.problems] == [
        "4: model.mlp_plain.widths[0]: 0 is below 1; a layer has 1 to 65536 units",
        "5: model.mlp.widths[0]: 0 is below 1; a layer has 1 to 65536 units",
        "6: model.named: unknown key; there are mlp, cnn, numpy_cnn",
        "7: model.rnn: unknown key; did you mean `cnn`?",
    ]


def test_a_name_that_begins_with_no_family_is_refused(file: Path) -> None:
    file.write_text(STUDY.replace("mlp_plain", "plain"))
    with pytest.raises(DefinitionError, match=r"model\.plain: unknown key"):
        load_definition(file)


def test_the_schema_lets_names_stand_beside_families() -> None:
    model = json_schema()["$defs"]["ModelSection"]
    assert list(model["properties"]) == ["mlp", "cnn", "numpy_cnn"]
    assert set(model["patternProperties"]) == {
        "^mlp_[a-z0-9_]+$",
        "^cnn_[a-z0-9_]+$",
        "^numpy_cnn_[a-z0-9_]+$",
    }


def test_they_are_searched_and_retrained(file: Path) -> None:
    folder = file.parent
    here(folder, "optimize", "--study", "./structures.yaml")
    trials = read(folder, "trials", "--study", "structures")
    assert len(trials) == 28
    assert {trial["params"]["model"] for trial in trials} == {
        "mlp_plain",
        "mlp_normed",
        "mlp_deep",
    }
    result = read(folder, "retrain-best", "--study", "structures")
    assert result["params"]["model"].startswith("mlp_")
    effects = here(folder, "effects", "--study", "structures").stdout
    assert "mlp_normed" in effects


def test_a_draw_is_of_the_family(file: Path) -> None:
    definition = load_definition(file)
    import optuna

    trial = optuna.trial.FixedTrial({"model": "mlp_normed", "adam.lr": 0.01})
    config = space.draw(definition, trial)
    assert config.model == MlpConfig(widths=(16,), batch_norm=True)
