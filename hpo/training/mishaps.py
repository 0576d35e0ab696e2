"""What went wrong with a population, told apart by what helps: fewer members, or another try.

The error itself is not kept: its traceback holds the tensors of the frames that it passed, and
with them the memory that was short (PyTorch issue 18853).
"""

from __future__ import annotations

import gc
import logging
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch

from hpo.errors import FileError, StorageError, TrainingError
from hpo.training.population import Stopped

__all__ = ["DeviceLost", "Mishap", "attempt", "give_memory_back", "is_short_of_memory"]

_log = logging.getLogger(__name__)

# What allocators say, and libraries on a GPU that find no room for what they need themselves; on
# a CPU torch raises a plain RuntimeError.
_SHORT_OF_MEMORY = re.compile(
    r"can't allocate memory|out of memory|cannot allocate memory|std::bad_alloc"
    r"|STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# After one of these every further call on the device fails, so the process has to go.
_DEVICE_IS_LOST = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|misaligned address"
    r"|hardware stack error|unspecified launch failure|launch timed out"
    r"|uncorrectable (ECC|NVLink)",
    re.IGNORECASE,
)
_LONGEST_REASON = 300


class DeviceLost(TrainingError):  # noqa: N818 (named as what happened)
    """Nothing can be trained in this process any more."""


@dataclass(frozen=True)
class Mishap:
    """Why a population could not go on.

    Attributes:
        reason: one line for a person.
        memory: whether memory was short, so that fewer members may do.
    """

    reason: str
    memory: bool


def attempt(work: Callable[[], None]) -> Mishap | None:
    """Do some work on a population and say what went wrong, if anything did.

    When it returns, a failed try holds nothing any more, on a GPU neither; what the population
    itself holds is its owner's to drop.

    Args:
        work: such as an epoch.

    Raises:
        Stopped: the work was asked to stop, which is no mishap.
        StorageError, FileError: the database, or the disk, refused while it was asked that; so
            it is the worker's trouble, and no member's.
        DeviceLost: this process cannot go on, another one can.
    """
    try:
        work()
    except (Stopped, StorageError, FileError):
        raise
    except Exception as error:  # noqa: BLE001 (whatever a member does, it is contained)
        mishap = _read(error)
        _log.debug("%s", "".join(traceback.format_exception(error)).rstrip())
    else:
        return None
    give_memory_back()
    return mishap


def give_memory_back() -> None:
    """Let go of what nobody holds any more, on a GPU also for its other processes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_short_of_memory(error: Exception) -> bool:
    """Whether memory was short, on the device or beside it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(
        isinstance(error, RuntimeError) and _SHORT_OF_MEMORY.search(str(error))
    )


def _read(error: Exception) -> Mishap:
    lines = str(error).strip().splitlines() or [""]
    if _DEVICE_IS_LOST.search(str(error)):
        raise DeviceLost(
            f"the device is lost ({lines[0][:_LONGEST_REASON]}); start the worker again"
        ) from None
    if is_short_of_memory(error):
        return Mishap("out of memory", memory=True)
    text = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
    return Mishap(text[:_LONGEST_REASON], memory=False)
