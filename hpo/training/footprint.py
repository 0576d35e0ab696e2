"""How much memory members take, so that a population is never larger than its device bears."""

from __future__ import annotations

from itertools import pairwise

import torch

from hpo.config import TrialConfig
from hpo.training.population import EVALUATION_ROWS

__all__ = ["default_capacity", "member_bytes", "memory_limit"]

_NUMBER = 4
_PER_PARAMETER = (
    5  # value, gradient, two of the optimizer's, and a passing copy at a re-arrangement
)
_PER_UNIT = 6  # pre, hidden, grad, mask, normal, and scratch, for each row of a batch
_SCORED_PER_UNIT = 1  # its value for each row that is scored at once
_CPU_LIMIT = 768 * 2**20
_CUDA_SHARE = 0.6


def member_bytes(config: TrialConfig, features: int, classes: int) -> int:
    """An upper estimate of what one member holds while it trains or is scored, in bytes.

    The rows themselves, which all members read, are not in it.
    """
    sizes = [features, *config.model.widths, classes]
    parameters = sum(below * width + 3 * width for below, width in pairwise(sizes))
    units = sum(config.model.widths) + 4 * classes
    rows = _PER_UNIT * config.batch_size + _SCORED_PER_UNIT * EVALUATION_ROWS
    return _NUMBER * (_PER_PARAMETER * parameters + rows * units)


def memory_limit(device: torch.device) -> int:
    """What all members of a worker may take together, in bytes.

    On a CPU a worker is to stay under 1.5 GiB with torch itself, on a GPU it may use a good part
    of what is free when it asks.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _CUDA_SHARE)
    return _CPU_LIMIT


def default_capacity(device: torch.device) -> int:
    """How many members `--population auto` lets train side by side, memory permitting.

    On a CPU eight fill the cores (`benchmarks/RESULTS.md`); a GPU is full only with more.
    """
    return 32 if device.type == "cuda" else 8
