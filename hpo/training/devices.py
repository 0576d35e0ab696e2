"""Which device trains, and in which precision."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from hpo.errors import UsageError
from hpo.training.machine import usable_cores

__all__ = [
    "device_name",
    "pick_device",
    "pick_precision",
    "prove",
    "usable_gpus",
    "use_threads",
    "use_threads_in_numpy",
    "use_true_float32",
    "visible_gpus",
]

_WORTH_SHARING = 16_000_000
_WORTH_ROUNDING = 1.5
_ATTEMPTS = 8


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU.

    Raises:
        UsageError: a CUDA device is asked for and this machine, or this build of torch, has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = usable_gpus()
        if (device.index or 0) >= count:
            message = (
                f"training.device: {name} is not on this machine, which has {count} CUDA devices; "
                "use auto or cpu"
            )
            raise UsageError(message)
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the operands of matrix products; master weights are always float32.

    `auto` is bfloat16 where that is multiplied much faster than float32: on CUDA devices of
    compute capability 8.0 and later, and on CPUs with matrix units (AMX), which is tried. On
    CPUs without, bfloat16 was measured at half of float32's rate (`benchmarks/RESULTS.md`).
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = _bfloat16_gain() >= _WORTH_ROUNDING
    return torch.bfloat16 if fast else torch.float32


@functools.cache
def _bfloat16_gain() -> float:
    """How many times as fast as float32 this machine's CPU multiplies bfloat16; takes 20 ms.

    It is 0.5 without matrix units and 3 to 7 with them, so it is clear also on a busy machine.
    """
    seconds = {dtype: float("inf") for dtype in (torch.float32, torch.bfloat16)}
    for _ in range(_ATTEMPTS):
        for dtype in seconds:
            left, right = torch.ones(512, 784, dtype=dtype), torch.ones(784, 128, dtype=dtype)
            start = time.perf_counter()
            left @ right
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def use_true_float32() -> None:
    """Let cuDNN's float32 convolutions be float32, as matrix products are.

    Torch lets them round their operands to TF32 (10 bits) on GPUs that can; here `float32` is
    what was asked for, and every row that counts is scored in it.
    """
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):
        cudnn.conv.fp32_precision = "ieee"
    else:  # before torch 2.9
        cudnn.allow_tf32 = False


def use_threads(multiplications: int) -> None:
    """Let torch use all cores for large work, and one for small work.

    Threads that share small work gain nothing (`benchmarks/RESULTS.md`), and wait for each other
    whenever another process is on one of the cores.

    Args:
        multiplications: in the largest matrix product of a step.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = int(asked) if asked.isdecimal() and int(asked) else usable_cores()
    torch.set_num_threads(most if multiplications >= _WORTH_SHARING else 1)


def use_threads_in_numpy() -> None:
    """Let NumPy's products use as many threads as torch's, where each would take all cores."""
    threadpool_limits(torch.get_num_threads(), user_api="blas")


def usable_gpus() -> int:
    """How many GPUs torch can use; it counts those with too old a driver, too."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` of a child names them.

    Where that variable is set here, they are what it names, in its order; an index that a person
    gives means a place in this list. To count them takes no memory on any GPU; torch stops, as
    CUDA does, at the first name that it does not know.
    """
    count = usable_gpus()
    inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if inherited is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in inherited.split(",")][:count]


def device_name(device: torch.device) -> str:
    """What a person calls the device, such as `cuda:0 (NVIDIA H100)` or `cpu`."""
    if device.type == "cuda":
        return f"cuda:{device.index or 0} ({torch.cuda.get_device_name(device)})"
    return str(device)


def prove(device: torch.device, size: int = 512) -> tuple[float, float]:
    """Multiply two matrices there and compare with float64 on the CPU.

    Returns:
        The rate in GFLOP/s (float32, one product after a warm-up), and the largest error
        relative to the largest entry.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    there = left.to(device), right.to(device)
    (there[0] @ there[1]).cpu()
    start = time.perf_counter()
    product = (there[0] @ there[1]).cpu()
    seconds = time.perf_counter() - start
    error = (product.double() - exact).abs().max() / exact.abs().max()
    return 2 * size**3 / seconds / 1e9, float(error)
