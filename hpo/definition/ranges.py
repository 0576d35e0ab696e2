"""The ranges that a search draws from, as data: `{int: [1, 4]}`, `{choice: [relu, gelu]}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Generic, TypeGuard, TypeVar

from hpo.definition.problems import shown

__all__ = ["Choice", "FloatRange", "IntRange", "Range", "is_range", "largest", "values"]

T_co = TypeVar("T_co", bound=bool | int | float | str, covariant=True)


@dataclass(frozen=True, slots=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included, `step` apart."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def to_data(self) -> dict[str, Any]:
        """As it is written in a study file."""
        extra = {"log": True} if self.log else {} if self.step == 1 else {"step": self.step}
        return {"int": [self.low, self.high], **extra}

    def __str__(self) -> str:
        log, step = "log " if self.log else "", f" step {self.step}" if self.step != 1 else ""
        return f"{log}int {self.low} to {self.high}{step}"

    def __len__(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1


@dataclass(frozen=True, slots=True)
class FloatRange:
    """Real numbers from `low` to `high`, both included; `step` apart if it is given."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def to_data(self) -> dict[str, Any]:
        """As it is written in a study file."""
        extra = {"log": True} if self.log else {} if self.step is None else {"step": self.step}
        return {"float": [self.low, self.high], **extra}

    def __str__(self) -> str:
        log, step = "log " if self.log else "", f" step {self.step}" if self.step else ""
        return f"{log}float {self.low} to {self.high}{step}"

    def count(self) -> int | None:
        """How many values there are; None if it is continuous."""
        span = Decimal(str(self.high)) - Decimal(str(self.low))
        if span == 0:
            return 1
        return None if self.step is None else int(span / Decimal(str(self.step))) + 1

    def values(self) -> tuple[float, ...]:
        """Every value, exact in the digits that were written, where it is not continuous."""
        return _stepped(self.low, self.high, self.step)


@dataclass(frozen=True, slots=True)
class Choice(Generic[T_co]):
    """One of `choices`, which have no order."""

    choices: tuple[T_co, ...]

    def to_data(self) -> dict[str, Any]:
        """As it is written in a study file."""
        return {"choice": list(self.choices)}

    def __str__(self) -> str:
        words = (shown(choice).strip("'") for choice in self.choices)
        return f"choice of [{', '.join(words)}]"


@lru_cache  # a grid asks for the same values at every cell
def _stepped(low: float, high: float, step: float | None) -> tuple[float, ...]:
    count = FloatRange(low, high, step=step).count() or 0
    first, apart = Decimal(str(low)), Decimal(str(step or 0))
    return tuple(float(first + apart * place) for place in range(count))


Range = IntRange | FloatRange | Choice[Any]
"""Whatever a search draws a value from."""


def is_range(value: object) -> TypeGuard[Range]:
    """Whether a leaf is drawn, and not a constant."""
    return isinstance(value, IntRange | FloatRange | Choice)


def largest(leaf: IntRange | Choice[int] | int) -> int:
    """The largest number that a leaf of whole numbers can be."""
    if isinstance(leaf, IntRange):
        return leaf.high
    return max(leaf.choices) if isinstance(leaf, Choice) else leaf


def values(leaf: IntRange | Choice[int] | int) -> Sequence[int]:
    """Every value of a leaf of whole numbers."""
    if isinstance(leaf, IntRange):
        return range(leaf.low, leaf.high + 1, leaf.step)
    return leaf.choices if isinstance(leaf, Choice) else (leaf,)
