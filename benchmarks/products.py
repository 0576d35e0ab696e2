"""How fast matrices of a training step are multiplied, in float32 and in bfloat16.

The reason for the default precision: bfloat16 pays only where the hardware multiplies it faster.
"""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.spread import median_and_range, ratios

_SHAPES = ((128, 784, 256), (128, 784, 2048), (128, 256, 256), (512, 512, 512))
_REPEATS = 7
_CALLS = 50


def main() -> None:
    print("| batch x inputs x outputs | float32 GFLOP/s | bfloat16 GFLOP/s | ratio (min to max) |")
    print("|---|---|---|---|")
    for shape in _SHAPES:
        full, half = [], []
        for _ in range(_REPEATS):  # in turn, so that a slow moment hits both
            full.append(_rate(shape, torch.float32))
            half.append(_rate(shape, torch.bfloat16))
        print(
            f"| {' x '.join(map(str, shape))} | {statistics.median(full):.0f} "
            f"| {statistics.median(half):.0f} | {median_and_range(ratios(half, full))} |"
        )
    print(f"\nMedian of n = {_REPEATS}, {_CALLS} products each.")


def _rate(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    batch, inputs, outputs = shape
    left, right = torch.randn(batch, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    out = torch.empty(batch, outputs, dtype=dtype)
    torch.mm(left, right.t(), out=out)
    start = time.perf_counter()
    for _ in range(_CALLS):
        torch.mm(left, right.t(), out=out)
    return 2 * batch * inputs * outputs * _CALLS / (time.perf_counter() - start) / 1e9
