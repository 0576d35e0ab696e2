"""Which simple rule for the size of a population loses least: `--population auto` follows one.

`python -m benchmarks.growth_rules growth_cpu.json ...` holds every rule against what `growth`
measured. A rule takes as many of the measured numbers of members as its bound allows, at least
one; what it loses is its seconds over those of the best number for that width and batch.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

__all__ = ["Loss", "losses_of", "main", "show"]

_Point = dict[str, Any]
_Size = Callable[[_Point], float]

_SIZES: dict[str, tuple[_Size, Sequence[float]]] = {
    "members": (lambda p: p["members"], (1, 2, 4, 8, 16, 32, 64)),
    "units a layer": (lambda p: p["members"] * p["width"], [2**k for k in range(8, 15)]),
    "parameters": (
        lambda p: p["members"] * p["parameters"],
        [2**k * 1_000_000 / 4 for k in range(8)],
    ),
    "MiB by the estimate of memory": (
        lambda p: p["memory"] / 2**20,
        [2**k for k in range(4, 11)],
    ),
    "batch x units, thousands": (
        lambda p: p["batch"] * p["members"] * p["width"] / 1e3,
        [2**k for k in range(4, 12)],
    ),
}


@dataclass(frozen=True)
class Loss:
    """What a rule costs, as seconds over the least seconds, for every width and batch.

    Attributes:
        mean: geometric.
        members: that it chooses, in the mean.
    """

    rule: str
    mean: float
    worst: float
    members: float


def main(arguments: list[str]) -> None:
    for name in arguments:
        facts = json.loads(Path(name).read_text())
        print(f"\n{facts['device']}\n")
        show(facts["points"])


def show(points: Sequence[_Point]) -> None:
    """Print the losses of every rule."""
    print("| at most | mean loss | worst loss | members, mean |\n|---|---|---|---|")
    for loss in losses_of(points):
        print(f"| {loss.rule} | {loss.mean:.2f} | {loss.worst:.2f} | {loss.members:.1f} |")
    print("\nSeconds over those of the best number of members, over all widths and batches.")


def losses_of(points: Sequence[_Point]) -> list[Loss]:
    """Every rule with every bound, in the order of the kinds."""
    rows: dict[tuple[int, int], list[_Point]] = {}
    for point in points:
        if point["seconds"] is not None:
            rows.setdefault((point["width"], point["batch"]), []).append(point)
    return [
        _loss(f"{bound:,.10g} {name}", [_chosen(row, size, bound) for row in rows.values()])
        for name, (size, bounds) in _SIZES.items()
        for bound in bounds
    ]


def _chosen(row: list[_Point], size: _Size, bound: float) -> tuple[float, int]:
    """What a rule loses in a row, and how many members it takes."""
    fitting = [point for point in row if size(point) <= bound]
    chosen = max(fitting, key=lambda p: p["members"], default=None)
    if chosen is None:
        chosen = min(row, key=lambda p: p["members"])
    best = min(point["seconds"] for point in row)
    return chosen["seconds"] / best, chosen["members"]


def _loss(rule: str, chosen: list[tuple[float, int]]) -> Loss:
    ratios = [ratio for ratio, _ in chosen]
    return Loss(
        rule,
        mean=math.exp(fmean(math.log(ratio) for ratio in ratios)),
        worst=max(ratios),
        members=fmean(members for _, members in chosen),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
