"""Which device and precision are taken, here and where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpo.errors import UsageError
from hpo.training.devices import (
    device_name,
    pick_device,
    pick_precision,
    prove,
    visible_gpus,
)

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_not_there_is_one_sentence(name: str, no_gpu: None) -> None:
    with pytest.raises(UsageError) as raised:
        pick_device(name)
    assert str(raised.value) == (
        f"training.device: {name} is not on this machine, which has 0 CUDA devices; "
        "use auto or cpu"
    )


def test_a_second_gpu_is_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UsageError, match=r"cuda:1 .* has 1 CUDA devices"):
        pick_device("cuda:1")


def test_auto_is_the_cpu_without_a_gpu(no_gpu: None) -> None:
    assert pick_device("auto") == pick_device("cpu") == CPU
    assert device_name(CPU) == "cpu"


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert pick_precision("bfloat16", CPU) == torch.bfloat16
    for gain, expected in ((0.5, torch.float32), (4.0, torch.bfloat16)):
        monkeypatch.setattr("hpo.training.devices._bfloat16_gain", lambda gain=gain: gain)
        assert pick_precision("auto", CPU) == expected
        assert pick_precision("float32", CPU) == torch.float32
    for capability, expected in (
        ((7, 5), torch.float32),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert pick_precision("auto", gpu) == expected
        assert pick_precision("float32", gpu) == torch.float32


def test_what_bfloat16_gains_on_a_cpu_is_measured() -> None:
    units = "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    assert pick_precision("auto", CPU) == (torch.bfloat16 if units else torch.float32)


def test_a_proof_has_a_rate_and_a_small_error() -> None:
    rate, error = prove(CPU, size=128)
    assert 0 < rate < 1e6
    assert 0 < error < 1e-5


@pytest.mark.parametrize(
    ("inherited", "count", "gpus"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("", 0, []),
        ("4,6", 2, ["4", "6"]),
        ("4, GPU-8f6a ,-1,5", 2, ["4", "GPU-8f6a"]),
        ("MIG-3f1e", 1, ["MIG-3f1e"]),
    ],
)
def test_gpus_are_those_that_this_process_was_given(
    monkeypatch: pytest.MonkeyPatch, inherited: str | None, count: int, gpus: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    assert visible_gpus() == gpus


def test_a_gpu_that_cannot_be_used_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a driver that is too old for torch: the GPU is counted all the same."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == []


def test_convolutions_are_not_rounded_to_tf32() -> None:
    """In a process of its own, since it holds for all of it; a warning would be an error there."""
    program = """
import torch
from hpo.training.devices import use_true_float32
use_true_float32()
assert torch.backends.cudnn.conv.fp32_precision == "ieee"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_what_is_next_to_nothing_is_nothing_while_training() -> None:
    """In a process of its own, since it holds for all of it."""
    program = """
import torch
from hpo import studies
from hpo.definition import load_definition
from hpo.training.task import prepare
small = torch.full((10,), 2e-38)
assert (small * 0.1 > 0).all()
prepare(load_definition(studies.find("digits")))
assert (small * 0.1 == 0).all()
assert (small * 1.5 > 0).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
