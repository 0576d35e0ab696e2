"""What stages make of an image's size, and who asks too much of a small one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpo.config import CnnConfig
from hpo.definition import StudyDefinition
from hpo.errors import UsageError
from hpo.models.stages import flattened, image_shape, largest_stages, misfits, stages


def section(**cnn: Any) -> Any:
    data = {
        "name": "small",
        "dataset": {"name": "digits"},
        "model": {"cnn": {"stages": 1, "channels": 4, **cnn}},
        "optimizer": {"sgd": {"lr": 0.1}},
        "training": {"batch_size": 32, "epochs": 3},
    }
    return StudyDefinition.from_json(json.dumps(data)).model


def test_sizes() -> None:
    found = stages(CnnConfig(channels=(8, 16), kernel=5, pool=3), (3, 29, 40))
    assert [(one.inputs, one.outputs, one.size, one.pooled) for one in found] == [
        (3, 8, (29, 40), (9, 13)),
        (8, 16, (9, 13), (3, 4)),
    ]
    assert flattened(found) == 16 * 3 * 4
    assert found[0].weights == 3 * 8 * 25
    assert found[1].pixels == 9 * 13


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (CnnConfig(channels=(2,), kernel=9), "stage 1 reads images of 8x7, smaller than its k"),
        (CnnConfig(channels=(2, 2), kernel=5), "stage 2 reads images of 4x3, smaller than"),
        (CnnConfig(channels=(2, 2, 2), kernel=1, pool=3), "stage 2 pools images of 2x2 by 3"),
        (CnnConfig(channels=(2,), kernel=1, pool=8), "stage 1 pools images of 8x7 by 8, which"),
    ],
)
def test_an_image_that_is_too_small(config: CnnConfig, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        stages(config, (1, 8, 7))


def test_the_largest_draw_decides() -> None:
    model = section(
        stages={"int": [1, 2]},
        channels={"int": [4, 9]},
        kernel={"choice": [3, 1]},
        pool={"choice": [1, 2]},
    )
    found = largest_stages(model.cnn, (1, 8, 8))
    assert [(one.outputs, one.kernel, one.pooled) for one in found] == [
        (9, 3, (4, 4)),
        (9, 3, (2, 2)),
    ]
    assert misfits(model, (8, 8), "digits") == []
    (problem,) = misfits(section(stages={"int": [1, 3]}, kernel=5), (8, 8), "digits")
    assert problem.path == ("model", "cnn")
    assert problem.sentence == (
        "stage 2 reads images of 4x4, smaller than its kernel of 5x5, as digits has images of "
        "8x8; take fewer stages, smaller kernels or smaller windows of pooling"
    )


def test_rows_without_images_are_not_convolved() -> None:
    (found,) = misfits(section(), (64,), "heights")
    assert found.sentence == (
        "heights has no images to convolve, a row of it is 64 numbers; take mlp"
    )
    assert image_shape((64,)) == (1, 1, 64)
    assert image_shape((8, 9)) == (1, 8, 9)
