"""How the learning rate of a member moves over its run."""

from __future__ import annotations

import math

from hpo.config import ScheduleConfig

__all__ = ["rate_factor"]


def rate_factor(schedule: ScheduleConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the configured learning rate is multiplied by at one step.

    Args:
        step: optimizer steps that the member has taken before this one.
        epochs: the horizon, the most epochs that the member may train.

    Returns:
        1 for `constant`; for `step`, `gamma` to the power of the drops so far; for `cosine`, a
        linear rise over the share `warmup`, then half a cosine down to zero at the horizon
        (Loshchilov and Hutter 2017, one cycle).
    """
    if schedule.name == "step":
        return schedule.gamma ** (step // steps_per_epoch // schedule.every)
    if schedule.name == "cosine":
        total = steps_per_epoch * epochs
        warmup = round(schedule.warmup * total)
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return 1.0
