"""What a dataset cannot serve is said with the line of the study file that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
        return LabelledRows(np.zeros((20, 4), np.uint8), np.arange(20) % 2)

    def load_test(self, _folder: Path) -> LabelledRows:
        return LabelledRows(np.zeros((10, 4), np.uint8), np.arange(10) % 2)


@pytest.fixture
def path(tmp_path: Path, offer: Callable[..., None]) -> Path:
    offer("flat", Flat)
    file = tmp_path / "flat.yaml"
    file.write_text(STUDY)
    return file


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
