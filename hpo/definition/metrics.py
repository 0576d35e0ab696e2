"""The metrics by which networks are judged, and which way is better."""

from __future__ import annotations

from typing import Literal

__all__ = ["CLASSIFICATION", "DIRECTIONS", "METRICS", "REGRESSION"]

Direction = Literal["maximize", "minimize"]

CLASSIFICATION: dict[str, Direction] = {"accuracy": "maximize", "loss": "minimize"}
"""Of a dataset with classes."""

REGRESSION: dict[str, Direction] = {
    "loss": "minimize",
    "mse": "minimize",
    "rmse": "minimize",
    "mae": "minimize",
    "r2": "maximize",
}
"""Of a dataset with targets."""

DIRECTIONS: dict[str, Direction] = {**CLASSIFICATION, **REGRESSION}
METRICS = tuple(DIRECTIONS)
