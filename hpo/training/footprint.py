"""How much memory members take, so that a population is never larger than its device bears."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from hpo.config import CnnConfig, MlpConfig, NumpyCnnConfig, TrialConfig
from hpo.models.stages import flattened, stages
from hpo.training.lone import SCORED_ROWS
from hpo.training.population import EVALUATION_ROWS

__all__ = ["Limits", "company_bytes", "limits", "member_bytes"]

_NUMBER = 4
_PER_PARAMETER = (
    5  # value, gradient, two of the optimizer's, and a passing copy at a re-arrangement
)
_PER_UNIT = 6  # pre, hidden, grad, mask, normal, and scratch, for each row of a batch
_PER_PREPARED = 3  # inputs that are dropped or normalised: a mask, and what it leaves, twice
_PER_NORMALISED = 2  # two products for each first weight; when it is scored, weights with a scale
_PER_PIXEL = 6  # of what a convolution gives: itself, normal, active, pooled, and two gradients
_SCORED_PER_PIXEL = 3
_SCORED_PER_UNIT = 1  # its value for each row that is scored at once
_CPU_LIMIT = 768 * 2**20
_CUDA_SHARE = 0.6
# `--population auto` on a CPU: what stays near its caches. Of simple rules these bytes lose least
# over all widths and batches (`benchmarks/growth_rules.py`). Twice as many lose no more, and only
# make a search learn later.
_CPU_GAINS = 64 * 2**20
_CPU_MEMBERS = 16
_CUDA_MEMBERS = 32
# What is in training has taught the search nothing yet. On `digits`, 80 trials, 4 at a time found
# as much as one at a time in three quarters of the time; 16 found less, in two thirds of it. On
# `fashion_mnist`, 25 trials of some 15 MiB each, 4 found less than 2, and took as long.
_TRIALS_PER_MEMBER = 20
_FEW_MEMBERS = 4
_FEW_BYTES = 40 * 2**20


@dataclass
class Limits:
    """How much a worker takes on at once.

    Attributes:
        members: trials in training side by side; fewer once memory was short.
        memory: bytes that their tensors may take together; one alone is always tried.
    """

    members: int
    memory: int


def limits(
    device: torch.device,
    population: int | None = None,
    *,
    learning: bool = True,
    trials: int | None = None,
    sharers: int = 1,
) -> Limits:
    """What trains side by side in one worker.

    Args:
        population: so many, as far as memory goes: on a CPU a worker is to stay under 1.5 GiB
            with torch itself, on a GPU it may use a good part of what is free when it asks.
            None (`auto`) is as many as gain from it.
        learning: whether what has ended decides what comes next, which then should not begin
            all at once.
        trials: of a search that learns; only a small part of them trains at once.
        sharers: workers on one GPU. They start together, so each finds it empty.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # What torch keeps of memory that was given back is free to this process only.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Limits(population or _CUDA_MEMBERS, int(min(free, total // sharers) * _CUDA_SHARE))
    if population is not None:
        return Limits(population, _CPU_LIMIT)
    if not learning:
        return Limits(_CPU_MEMBERS, 3 * _CPU_GAINS)
    share = _CPU_MEMBERS if trials is None else trials // _TRIALS_PER_MEMBER
    if share < _FEW_MEMBERS:
        return Limits(_FEW_MEMBERS, _FEW_BYTES)
    return Limits(min(share, _CPU_MEMBERS), _CPU_GAINS)


def member_bytes(config: TrialConfig, shape: Sequence[int], classes: int) -> int:
    """An upper estimate of what one member holds while it trains or is scored, in bytes.

    The rows themselves, which all members read, are not in it.

    Args:
        shape: of an image, `(channels, height, width)`.
    """
    model, batch = config.model, config.batch_size
    if not isinstance(model, MlpConfig):
        return _convolutional(config, model, shape, classes)
    sizes = [math.prod(shape), *model.widths, classes]
    parameters = sum(below * width + 3 * width for below, width in pairwise(sizes))
    units = sum(model.widths) + 4 * classes
    rows = _PER_UNIT * batch + _SCORED_PER_UNIT * EVALUATION_ROWS
    own = rows * units + _prepared(config, shape)
    if model.input_batch_norm:
        parameters += 2 * sizes[0]
        own += _PER_NORMALISED * sizes[0] * sizes[1]
    return _NUMBER * (_per_parameter(config) * parameters + own)


def company_bytes(
    members: Iterable[tuple[TrialConfig, int]], shape: Sequence[int], classes: int
) -> int:
    """As `member_bytes`, of members side by side, which share the inputs that they prepare alike.

    Args:
        members: configs, and how many folds each has.
    """
    total = 0
    prepared = set()
    for config, folds in members:
        total += folds * member_bytes(config, shape, classes)
        if isinstance(config.model, MlpConfig):
            own = (config.batch_size, config.model.input_batch_norm, config.model.input_dropout)
            if own in prepared:
                total -= folds * _NUMBER * _prepared(config, shape)
            prepared.add(own)
    return total


def _prepared(config: TrialConfig, shape: Sequence[int]) -> int:
    """The numbers of inputs that are dropped or normalised."""
    assert isinstance(config.model, MlpConfig)
    return _PER_PREPARED * config.batch_size * math.prod(shape) * config.model.prepares_input


def _convolutional(
    config: TrialConfig,
    model: CnnConfig | NumpyCnnConfig,
    shape: Sequence[int],
    classes: int,
) -> int:
    """Both families keep every stage's values for the way back; NumPy keeps the windows too."""
    found = stages(model, shape)
    sizes = [flattened(found), *([model.hidden] if model.hidden else []), classes]
    parameters = sum(stage.weights + 4 * stage.outputs for stage in found)
    parameters += sum(below * width + 4 * width for below, width in pairwise(sizes))
    images = [stage.outputs * stage.pixels for stage in found]
    head = sum(sizes) + 3 * classes
    units = _PER_PIXEL * sum(images) + _PER_UNIT * head
    scored = EVALUATION_ROWS * 4 * classes
    if isinstance(model, CnnConfig):
        scored += _SCORED_PER_PIXEL * SCORED_ROWS * max(images)
    else:  # scores as many rows at once as it trains on
        columns = [stage.inputs * stage.kernel**2 * stage.pixels for stage in found]
        units += sum(columns) + 2 * max(columns)
    rows = config.batch_size * units + scored
    return _NUMBER * (_per_parameter(config) * parameters + rows)


def _per_parameter(config: TrialConfig) -> int:
    """With the sum of all gradients, where they are never reset."""
    return _PER_PARAMETER + (not config.gradient_reset)
