"""What is known of a dataset without opening it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DatasetInfo"]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without opening it.

    Attributes:
        name: as in a study file.
        classes: how many; labels are `0..classes-1`. 0 where targets are to be predicted.
        shape: of one row: `(height, width)` or `(channels, height, width)` of an image, or
            `(features,)`.
        n_train: rows in the training part, at least one.
        n_test: rows in the test part, at least one.
        origin: whom it comes from, one line.
        licence: under which it may be used.
        targets: numbers to predict for each row; 0 where it has a class.
    """

    name: str
    classes: int
    shape: tuple[int, ...]
    n_train: int
    n_test: int
    origin: str
    licence: str
    targets: int = 0

    def __post_init__(self) -> None:
        if (self.classes > 0) == (self.targets > 0):
            raise ValueError(f"the dataset {self.name} must have either classes or targets")
        if self.targets and len(self.shape) != 1:
            raise ValueError(f"the rows of {self.name} must be of the shape (features,)")
        if not 1 <= len(self.shape) <= 3:
            raise ValueError(
                f"the rows of {self.name} must be of the shape (features,), (height, width) or "
                "(channels, height, width)"
            )
        if min(self.shape) < 1:
            raise ValueError(
                f"the rows of {self.name} must have a length of 1 or more along each axis, "
                f"not {self.shape}"
            )
        for part, rows in (("training", self.n_train), ("test", self.n_test)):
            if rows < 1:
                raise ValueError(
                    f"the dataset {self.name} must have 1 {part} row or more, not {rows}"
                )

    @property
    def outputs(self) -> int:
        """How many numbers a network gives for a row."""
        return self.classes or self.targets
