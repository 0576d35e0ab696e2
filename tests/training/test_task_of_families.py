"""Where studies of the families train: device, precision, threads."""

from __future__ import annotations

import json
from typing import Any

import pytest
import threadpoolctl
import torch

import hpo.training.task
from hpo.definition import StudyDefinition
from hpo.errors import DefinitionError, UsageError
from hpo.training.task import check, prepare

STAGES = {"stages": 1, "channels": 4}
MLP = {"widths": [8]}


def definition(model: dict[str, Any], **training: Any) -> StudyDefinition:
    data = {
        "name": "small",
        "dataset": {"name": "digits"},
        "model": model,
        "optimizer": {"sgd": {"lr": 0.1}},
        "training": {"batch_size": 32, "epochs": 3, "device": "cpu", **training},
    }
    return StudyDefinition.from_json(json.dumps(data))


@pytest.fixture(autouse=True)
def _rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which `auto` is bfloat16."""

    def pick(name: str, _device: torch.device) -> torch.dtype:
        return torch.float32 if name == "float32" else torch.bfloat16

    monkeypatch.setattr(hpo.training.task, "pick_precision", pick)


@pytest.mark.parametrize(
    ("model", "training", "precision"),
    [
        ({"mlp": MLP}, {}, torch.bfloat16),
        ({"mlp": MLP, "cnn": STAGES}, {}, torch.bfloat16),
        ({"cnn": STAGES}, {}, torch.float32),
        ({"cnn": STAGES}, {"precision": "bfloat16"}, torch.bfloat16),
        ({"numpy_cnn": STAGES}, {}, torch.float32),
        ({"mlp": MLP, "numpy_cnn": STAGES}, {}, torch.float32),
    ],
)
def test_precision(
    model: dict[str, Any], training: dict[str, Any], precision: torch.dtype
) -> None:
    assert prepare(definition(model, **training)).task.precision == precision


def test_networks_in_numpy_train_on_the_cpu_whatever_the_device() -> None:
    study = definition({"numpy_cnn": STAGES}, device="cuda:99")
    assert prepare(study).task.examples.device == torch.device("cpu")
    with pytest.raises(UsageError):  # the perceptrons want it
        prepare(definition({"numpy_cnn": STAGES, "mlp": MLP}, device="cuda:99"))


def test_numpy_uses_as_many_threads_as_torch() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        prepare(definition({"numpy_cnn": STAGES}))  # too small to be shared
        assert torch.get_num_threads() == 1
        pools = threadpoolctl.threadpool_info()
        assert {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"} == {1}


def test_too_deep_a_network_is_refused_by_whoever_comes_without_a_file() -> None:
    study = definition({"cnn": {**STAGES, "stages": 4}})
    for refuse in (check, prepare):
        with pytest.raises(
            DefinitionError, match=r"study small: model\.cnn: stage 3 reads images"
        ):
            refuse(study)
