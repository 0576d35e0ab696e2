"""The places on one machine in which workers run, and what each worker finds there.

Nothing here looks at the machine, so that all of it can be tested without a GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.errors import UsageError

__all__ = [
    "NAME",
    "PARENT",
    "Slot",
    "auto_workers",
    "choose_gpus",
    "parent",
    "sharers",
    "slots",
]

NAME = "HPO_WORKER_NAME"
"""The environment variable that tells a worker what it is called."""

PARENT = "HPO_WORKER_PARENT"
"""The environment variable that tells a worker the process that looks after it."""

_SHARERS = "HPO_WORKER_GPU_SHARERS"
_WORKER_BYTES = 1.25 * 2**30
_THREADS = "OMP_NUM_THREADS"
_GPUS = "CUDA_VISIBLE_DEVICES"
# What nvidia-smi -L prints, or the beginning of it; older MIG names have slashes.
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,90}")


@dataclass(frozen=True)
class Slot:
    """A place for one worker.

    Attributes:
        name: what its worker is called in log lines.
        gpu: the GPU, as `CUDA_VISIBLE_DEVICES` names it; None for a worker without.
        threads: its share of the cores.
        sharers: workers on its GPU, itself included.
    """

    name: str
    gpu: str | None
    threads: int
    sharers: int = 1

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment of the worker here.

        It must be set before the worker's Python starts: torch reads it once. An empty
        `CUDA_VISIBLE_DEVICES` hides every GPU. A smaller `OMP_NUM_THREADS` that is inherited
        stays as it is.
        """
        asked = inherited.get(_THREADS, "")
        threads = min(self.threads, int(asked)) if asked.isdecimal() and int(asked) else None
        return {
            **inherited,
            _GPUS: self.gpu or "",
            _THREADS: str(threads or self.threads),
            NAME: self.name,
            _SHARERS: str(self.sharers),
        }


def slots(workers: int, gpus: Sequence[str], per_gpu: int | None, cores: int) -> list[Slot]:
    """Places for so many workers, spread evenly over the GPUs where there are any.

    Args:
        gpus: see `choose_gpus`; empty for workers on the CPU.
        per_gpu: the most workers on one GPU; None for as many as it takes.
        cores: which the workers share.

    Raises:
        UsageError: there is no room for so many.
    """
    if gpus and per_gpu is not None and workers > len(gpus) * per_gpu:
        raise UsageError(
            f"--workers: {len(gpus)} GPUs with {per_gpu} workers each have no room for {workers}; "
            "raise --workers-per-gpu"
        )
    threads = max(1, cores // workers)
    if not gpus:
        return [Slot(str(place + 1), None, threads) for place in range(workers)]
    chosen = [gpus[place % len(gpus)] for place in range(workers)]
    return [
        Slot(str(place + 1), gpu, threads, chosen.count(gpu)) for place, gpu in enumerate(chosen)
    ]


def auto_workers(
    gpus: Sequence[str], per_gpu: int | None, *, cores: int, memory: int, trials: int
) -> int:
    """How many workers `--workers auto` starts: at least one.

    Args:
        cores: which workers on the CPU fill one by one.
        memory: bytes that can be had; a worker on the CPU is allowed 1.25 GiB.
        trials: which are left to do.
    """
    on_gpus, on_cpu = len(gpus) * (per_gpu or 1), min(cores, int(memory / _WORKER_BYTES))
    most = on_gpus or on_cpu
    return max(1, min(most, trials))


def choose_gpus(asked: str, visible: Sequence[str]) -> list[str]:
    """The GPUs that `--gpus` means.

    Args:
        asked: `all`, `none`, or names with commas between: indices into `visible`, UUIDs, or
            the names of MIG instances.
        visible: what this process sees, as `CUDA_VISIBLE_DEVICES` names it.

    Raises:
        UsageError: one is not there, or is named twice.
    """
    if asked == "none":
        return []
    if asked == "all":
        if not visible:
            raise UsageError(f"--gpus all: {_those_there_are(visible)}; use --gpus none")
        return list(visible)
    chosen = [_gpu(word.strip(), visible) for word in asked.split(",")]
    twice = next((gpu for gpu in chosen if chosen.count(gpu) > 1), None)
    if twice is not None:
        raise UsageError(f"--gpus: {twice} is named twice; --workers-per-gpu puts more on one")
    return chosen


def parent() -> int | None:
    """The process that started this one as a worker and looks after it; None if none does."""
    given = os.environ.get(PARENT, "")
    return int(given) if given.isdecimal() else None


def sharers() -> int:
    """How many workers have this process's GPU, itself included."""
    given = os.environ.get(_SHARERS, "")
    return max(1, int(given)) if given.isdecimal() else 1


def _gpu(word: str, visible: Sequence[str]) -> str:
    if _UUID.fullmatch(word):
        by_uuid = [gpu for gpu in visible if _UUID.fullmatch(gpu)]
        if visible and (len(by_uuid) < len(visible) or any(g.startswith(word) for g in by_uuid)):
            return word  # the worker finds out where it cannot be known here
    elif word.isascii() and word.isdecimal() and int(word) < len(visible):
        return visible[int(word)]
    raise UsageError(f"--gpus: there is no GPU {word[:50]!r}; {_those_there_are(visible)}")


def _those_there_are(visible: Sequence[str]) -> str:
    if not visible:
        return "torch finds no GPU here"
    named = [
        str(place) if gpu == str(place) else f"{place} ({gpu})"
        for place, gpu in enumerate(visible)
    ]
    return f"there are {', '.join(named)}" if len(named) > 1 else f"there is {named[0]}"
