"""What a dataset cannot serve is said with the line of the study file that asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hpo.data import DatasetInfo, LabelledRows
from hpo.data.suitability import unsuitable
from hpo.definition import load_definition
from hpo.errors import DefinitionError
from hpo.training.task import check, prepare
from tests.commands import here

STUDY = """# studies/flat.yaml: rows of four numbers
dataset:
  name: flat
  augment: [horizontal_flip]
model: {mlp: {widths: [8]}}
optimizer: {adam: {lr: 0.01}}
training: {batch_size: 2, epochs: 1}
"""
SENTENCE = "flat has no images to augment, a row of it is 4 numbers; leave `augment` out"


class Flat:
    """A dataset without images."""

    info = DatasetInfo("flat", 2, (4,), 20, 10, "this test", "CC0")

    def missing(self, _folder: Path, _part: str) -> list[str]:
        return []

    def fetch(self, _folder: Path) -> None:
        pass

    def load_train(self, _folder: Path) -> LabelledRows:
        return LabelledRows(_rows(20), np.arange(20) % 2)

    def load_test(self, _folder: Path) -> LabelledRows:
        return LabelledRows(_rows(10), np.arange(10) % 2)


def _rows(n: int) -> NDArray[np.uint8]:
    """Two numbers tell the class by little, beside one that is large; the last never changes."""
    labels = np.arange(n) % 2
    columns = [100 + labels, 3 - labels, np.linspace(0, 255, n), np.full(n, 9)]
    return np.asfortranarray(np.stack(columns, axis=1).astype(np.uint8))


@pytest.fixture
def path(tmp_path: Path, offer: Callable[..., None]) -> Path:
    offer("flat", Flat)
    file = tmp_path / "flat.yaml"
    file.write_text(STUDY)
    return file


def test_rows_of_numbers_with_classes_are_learnt_each_number_normalised(path: Path) -> None:
    path.write_text(STUDY.replace("  augment: [horizontal_flip]\n", "").replace("1}", "12}"))
    here(path.parent, "optimize", "--study", "./flat.yaml", "--trials", "1")
    here(path.parent, "retrain-best", "--study", "flat")
    metrics = json.loads((path.parent / "results/flat/metrics.json").read_text())
    assert metrics["test"]["mean"] > 0.9  # 0.5 where one scale is for all numbers


@pytest.mark.parametrize("command", ["optimize", "submit"])
def test_augmentation_without_images_is_refused_with_its_line(path: Path, command: str) -> None:
    done = here(path.parent, command, "--study", str(path), expect=2)
    assert (done.stdout, done.stderr) == ("", f"hpo: {path}:4: dataset.augment: {SENTENCE}\n")
    assert not (path.parent / "hpo.db").exists()


def test_validate_says_so_and_an_override_is_named(path: Path) -> None:
    done = here(path.parent, "studies", "validate", str(path), expect=2)
    assert done.stderr == f"hpo: {path}:4: dataset.augment: {SENTENCE}\n"
    change = ("--set", "dataset.augment=[{rotation: {degrees: 5}}]")
    done = here(path.parent, "studies", "validate", str(path), *change, expect=2)
    assert done.stderr == f"hpo: --set dataset.augment: {SENTENCE}\n"
    assert (
        "valid"
        in here(
            path.parent, "studies", "validate", str(path), "--set", "dataset.augment=[]"
        ).stdout
    )


@pytest.mark.parametrize("room", [check, prepare])
def test_a_study_from_no_file_is_refused_as_well(path: Path, room: Callable[..., object]) -> None:
    with pytest.raises(DefinitionError, match=f"study flat: dataset.augment: {SENTENCE}"):
        room(load_definition(path))


@pytest.mark.parametrize("name", ["digits", "stl10"])
def test_grey_and_coloured_images_take_every_augmentation(path: Path, name: str) -> None:
    steps = "[horizontal_flip, {color_jitter: {saturation: 0.2, hue: 0.1}}]"
    definition = load_definition(path, [f"dataset.name={name}", f"dataset.augment={steps}"])
    assert unsuitable(definition) == []


REGRESSION = """# studies/wave.yaml: a regression
dataset: {name: sine, validation: 0.2}
model: {mlp: {widths: [8]}}
optimizer: {adam: {lr: 0.01}}
training: {batch_size: 20, epochs: 1}
search: {metric: rmse, trials: 1}
"""
WITHOUT_TRIALS = REGRESSION.replace(", trials: 1", "")
ONE_OF = "write one of loss, mse, rmse, mae, r2"


@pytest.fixture
def wave(tmp_path: Path) -> Path:
    file = tmp_path / "wave.yaml"
    file.write_text(REGRESSION)
    return file


def refused(file: Path, text: str) -> str:
    """What the study's check says of it, without the file."""
    file.write_text(text)
    done = here(file.parent, "optimize", "--study", str(file), expect=2)
    assert done.stdout == ""
    assert not (file.parent / "hpo.db").exists()
    return done.stderr.removeprefix(f"hpo: {file}:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "metric: rmse",
            "metric: accuracy",
            f"6: search.metric: accuracy does not fit sine, which has targets; {ONE_OF}",
        ),
        (
            "metric: rmse, ",
            "",
            f"6: search.metric: accuracy does not fit sine, which has targets; {ONE_OF}",
        ),
        (
            "epochs: 1",
            "epochs: 1, early_stopping: {patience: 1, metric: accuracy}",
            "5: training.early_stopping.metric: accuracy does not fit sine, which has targets; "
            + ONE_OF,
        ),
        (
            "epochs: 1",
            "epochs: 1, label_smoothing: {float: [0.0, 0.1]}",
            (
                "5: training.label_smoothing: sine has no labels to smooth; "
                "leave `label_smoothing` out"
            ),
        ),
        (
            "validation: 0.2",
            "validation: 0.2, augment: [horizontal_flip]",
            (
                "2: dataset.augment: sine has no images to augment, a row of it is 1 number; "
                "leave `augment` out"
            ),
        ),
        (
            "{mlp: {widths: [8]}}",
            "{cnn: {stages: 1, channels: 4, kernel: 3}}",
            "3: model.cnn: sine has no images to convolve, a row of it is 1 number; take mlp",
        ),
    ],
)
def test_what_does_not_fit_targets_is_refused_with_its_line(
    wave: Path, old: str, new: str, message: str
) -> None:
    assert refused(wave, REGRESSION.replace(old, new)) == f"{message}\n"


@pytest.mark.parametrize(
    ("variation", "message"),
    [
        (
            "training.early_stopping: {patience: 2, metric: accuracy}",
            f"variations[1]: accuracy does not fit sine, which has targets; {ONE_OF}",
        ),
        (
            "training.label_smoothing: 0.1",
            "variations[1]: sine has no labels to smooth; leave `label_smoothing` out",
        ),
    ],
)
def test_what_a_variation_asks_is_held_against_the_dataset_too(
    wave: Path, variation: str, message: str
) -> None:
    said = refused(wave, WITHOUT_TRIALS + f"variations:\n  - {{}}\n  - {{{variation}}}\n")
    assert said == f"9: {message}\n"
    done = here(wave.parent, "studies", "validate", str(wave), expect=2)
    assert message in done.stderr


DIGITS = """# studies/few.yaml: more than the rows can give
dataset: {name: digits, validation: 0.2}
model: {cnn: {stages: 1, channels: 2, batch_norm: {choice: [true, false]}}}
optimizer: {adam: {lr: 0.01}}
training: {batch_size: {int: [2, 20]}, epochs: 1}
search: {trials: 1}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "validation: 0.2",
            "validation: 0.9999",
            (
                "2: dataset.validation: the validation share 0.9999 of 1438 rows leaves none for "
                "training; lower it"
            ),
        ),
        (
            "[2, 20]",
            "[2, 5000]",
            (
                "5: training.batch_size: a batch of 5000 is larger than the 1150 training rows of "
                "digits; choose a smaller batch"
            ),
        ),
        (
            "[2, 20]",
            "[1, 20]",
            (
                "5: training.batch_size: batch norm of `cnn` needs two rows; choose batches of "
                "2 or more"
            ),
        ),
    ],
)
def test_what_the_rows_are_too_few_for_is_refused_with_its_line(
    wave: Path, old: str, new: str, message: str
) -> None:
    assert refused(wave, DIGITS.replace(old, new)) == f"{message}\n"


def test_a_dataset_that_nobody_knows_is_told_with_its_line_beside_the_rest(wave: Path) -> None:
    text = DIGITS.replace("digits", "digitz").replace("[2, 20]", "[1, 20]")
    first, second = refused(wave, text).splitlines()
    assert first.startswith("2: dataset.name: there is no dataset 'digitz'; there are digits, ")
    assert first.endswith("did you mean digits?")
    assert second.startswith(f"hpo: {wave}:5: training.batch_size: batch norm of `cnn` needs two")
    with pytest.raises(DefinitionError, match=r"study wave: dataset\.name: there is no dataset"):
        prepare(load_definition(wave))


MLP = "{mlp: {layers: {int: [0, 2]}, width: 8, batch_norm: {choice: [true, false]}}}"


@pytest.mark.parametrize(
    ("model", "size", "rest", "place"),
    [
        (MLP, "{int: [1, 20]}", "", "5: training.batch_size"),
        ("{mlp: {widths: [], input_batch_norm: true}}", "1", "", "5: training.batch_size"),
        (
            "{mlp: {widths: [8], batch_norm: true}}",
            "2",
            "variations:\n  - {}\n  - {training.batch_size: 1}\n",
            "9: variations[1]",
        ),
    ],
)
def test_one_row_is_not_normalised(
    wave: Path, model: str, size: str, rest: str, place: str
) -> None:
    text = (WITHOUT_TRIALS + rest).replace("{mlp: {widths: [8]}}", model)
    said = refused(wave, text.replace("batch_size: 20", f"batch_size: {size}"))
    assert said == f"{place}: batch norm of `mlp` needs two rows; choose batches of 2 or more\n"


@pytest.mark.parametrize(
    "model", ["{mlp: {widths: [], batch_norm: true}}", "{mlp: {widths: [4]}}"]
)
def test_one_row_is_enough_where_nothing_is_normalised(wave: Path, model: str) -> None:
    text = REGRESSION.replace("{mlp: {widths: [8]}}", model)
    wave.write_text(text.replace("batch_size: 20", "batch_size: 1"))
    assert "valid" in here(wave.parent, "studies", "validate", str(wave)).stdout


def test_folds_above_the_rows_are_refused_with_their_line(path: Path) -> None:
    text = STUDY.replace("augment: [horizontal_flip]", "folds: 21")
    message = "4: dataset.folds: 20 rows cannot be cut into 21 folds; ask for fewer\n"
    assert refused(path, text) == message
    done = here(path.parent, "studies", "validate", str(path), expect=2)
    assert done.stderr.endswith(message)


def test_one_row_has_no_spread_to_compare_with(wave: Path) -> None:
    text = REGRESSION.replace("metric: rmse", "metric: r2").replace("0.2}", "0.0001}")
    assert "6: search.metric: r2 compares with the spread of the validation rows" in (
        f"{refused(wave, text)}"
    )


@pytest.mark.parametrize(
    ("stopping", "rest", "place"),
    [
        ("{patience: 1, metric: r2}", "", "5: training.early_stopping.metric"),
        (
            "{patience: 1, metric: mae}",
            "variations:\n  - {}\n  - {training.early_stopping.metric: r2}\n",
            "9: variations[1]",
        ),
    ],
)
def test_nor_has_it_any_to_stop_by(wave: Path, stopping: str, rest: str, place: str) -> None:
    text = (WITHOUT_TRIALS + rest).replace("epochs: 1", f"epochs: 1, early_stopping: {stopping}")
    sentence = "r2 compares with the spread of the validation rows, and one row has none"
    assert (
        refused(wave, text.replace("0.2}", "0.0001}")) == f"{place}: {sentence}; hold more out\n"
    )


@pytest.mark.parametrize("metric", ["mse", "rmse", "mae", "r2"])
def test_a_metric_of_targets_does_not_fit_classes(wave: Path, metric: str) -> None:
    text = REGRESSION.replace("sine", "digits").replace("metric: rmse", f"metric: {metric}")
    sentence = f"{metric} does not fit digits, which has classes; write one of accuracy, loss"
    assert refused(wave, text) == f"6: search.metric: {sentence}\n"


def test_a_metric_that_nobody_names_is_told_by_the_file(wave: Path) -> None:
    """The default, `accuracy`, has no line."""
    wave.write_text(REGRESSION.replace("search: {metric: rmse, trials: 1}\n", ""))
    with pytest.raises(DefinitionError, match=f"search.metric: accuracy does not fit.*{ONE_OF}"):
        check(load_definition(wave))


def test_loss_and_smoothing_of_nothing_fit_both(wave: Path) -> None:
    for name in ("sine", "digits"):
        changes = [f"dataset.name={name}", "search.metric=loss", "training.label_smoothing=0"]
        assert unsuitable(load_definition(wave, changes)) == []
